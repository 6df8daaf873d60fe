import PythonProcesses

/// The program that speaks with Ray for the controller, run by the cluster's own Python. It makes one placement group and, for each
/// worker process, one supervisor: an actor with the worker's name and resources, which starts the process on its node, passes its
/// lines on, and takes it along when it dies itself. What the Swift processes tell one another goes past all this.
///
/// It reads and writes JSON, an object a line. Requests: `connect`, `place`, `run`, `signal`, `kill`, `release`, `shutdown`. Events:
/// `ready`, `failed`, `note`, `placed`, `refused`, `started`, `lines`, `ended`, `lost`; see ``RayEvent``.
enum RayProgram {
    static let source = PythonPrelude.source + supervisor + driver

    /// Runs in an actor's process: nothing of the program but what is in the class is there.
    private static let supervisor = #"""
        class FledgeWorker:
            """One worker process of Fledge, and what it says."""

            LINE = 1 << 16
            TAIL = 5

            def __init__(self):
                import queue
                self.events = queue.Queue(maxsize=4096)
                self.process = None
                self.socket = None
                self.given = (-1, [])

            def _address(self):
                import ray
                return ray.util.get_node_ip_address()

            async def facts(self, listens):
                import os, resource, shutil, socket, ray
                address = self._address()
                if listens and self.socket is None:
                    self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                    self.socket.bind((address, 0))
                    self.socket.listen(512)
                gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
                shm = shutil.disk_usage("/dev/shm") if os.path.isdir("/dev/shm") else None
                spill = shutil.disk_usage(os.environ.get("RAY_TMPDIR") or "/tmp")
                return {
                    "node": address, "hostname": socket.gethostname(), "gpus": [str(g) for g in gpus],
                    "node_id": ray.get_runtime_context().get_node_id(),
                    "port": self.socket.getsockname()[1] if self.socket else None,
                    "directory": os.getcwd(), "cores": os.cpu_count(),
                    "shm_total": shm.total if shm else 0, "shm_free": shm.free if shm else 0,
                    "spill_free": spill.free, "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                }

            async def run(self, request, gpus):
                import asyncio, threading
                started = asyncio.get_running_loop().create_future()
                threading.Thread(target=self._live, args=(request, gpus, started), daemon=True).start()
                return await started

            # On a thread of its own: the kernel ends the process when the thread that started it ends.
            def _live(self, request, gpus, started):
                import ctypes, os, signal, subprocess, threading
                loop = started.get_loop()
                libc = ctypes.CDLL(None)
                actor = os.getpid()

                def settle(value, error=None):
                    if error is None:
                        loop.call_soon_threadsafe(started.set_result, value)
                    else:
                        loop.call_soon_threadsafe(started.set_exception, error)

                # What Ray's processes block or ignore, since whoever started them did, is not for ours: they are stopped by signals.
                def before():
                    os.setsid()
                    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
                        signal.signal(number, signal.SIG_DFL)
                    signal.pthread_sigmask(signal.SIG_SETMASK, ())
                    libc.prctl(1, signal.SIGKILL)
                    if os.getppid() != actor:
                        os._exit(1)

                environment = dict(os.environ)
                # Ray's own choice for its Python workers: how many threads ours have is their business.
                environment.pop("OMP_NUM_THREADS", None)
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
                environment["FLEDGE_NODE_ADDRESS"] = self._address()
                environment["FLEDGE_LAUNCHER"] = str(actor)
                kept = ()
                if self.socket is not None:
                    kept = (self.socket.fileno(),)
                    environment["FLEDGE_STORE_SOCKET"] = str(kept[0])
                environment.update(request["environment"])
                try:
                    directory = request.get("directory")
                    if directory is not None and not os.path.isdir(directory):
                        raise FileNotFoundError(
                            "the folder " + directory + " is not on this node; start the run from one that all nodes see, "
                            "or submit it as a job")
                    self.process = subprocess.Popen(
                        request["arguments"], env=environment, cwd=directory, stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=before, pass_fds=kept)
                except BaseException as error:
                    settle(None, RuntimeError(type(error).__name__ + ": " + str(error)))
                    return
                if self.socket is not None:
                    self.socket.close()
                    self.socket = None
                settle(self.process.pid)
                tail = []
                readers = [
                    threading.Thread(target=self._read, args=(stream, letter, tail), daemon=True)
                    for stream, letter in ((self.process.stdout, 1), (self.process.stderr, 2))]
                for reader in readers:
                    reader.start()
                code = self.process.wait()
                # What it started and left in its group.
                self._kill_group()
                for reader in readers:
                    reader.join(5)
                self.events.put(("ended", code, tail[-self.TAIL:]))

            def _read(self, stream, letter, tail):
                import os
                rest = b""
                while True:
                    try:
                        chunk = os.read(stream.fileno(), 1 << 16)
                    except OSError:
                        chunk = b""
                    *lines, rest = (rest + chunk).split(b"\n")
                    if not chunk and rest:
                        lines, rest = lines + [rest], b""
                    while len(rest) > self.LINE:
                        lines.append(rest[:self.LINE])
                        rest = rest[self.LINE:]
                    for line in lines:
                        for start in range(0, len(line) or 1, self.LINE):
                            text = line[start:start + self.LINE].decode("utf-8", "replace")
                            if letter == 2:
                                tail.append(text)
                                del tail[:-self.TAIL]
                            self.events.put(("line", letter, text))
                    if not chunk:
                        return

            def _take(self):
                import queue
                taken, size = [], 0
                try:
                    taken.append(self.events.get(timeout=10))
                    while len(taken) < 512 and size < 1 << 18:
                        size += len(taken[-1][2]) if taken[-1][0] == "line" else 0
                        taken.append(self.events.get_nowait())
                except queue.Empty:
                    pass
                return taken

            # What it said since, as soon as there is something. An answer that got lost is given again.
            async def next(self, number):
                import asyncio
                if number != self.given[0]:
                    self.given = (number, await asyncio.get_running_loop().run_in_executor(None, self._take))
                return self.given[1]

            async def signal(self, number):
                if self.process is not None and self.process.poll() is None:
                    self.process.send_signal(number)

            async def kill(self):
                self._kill_group()

            def _kill_group(self):
                import os, signal
                if self.process is not None:
                    try:
                        os.killpg(self.process.pid, signal.SIGKILL)
                    except OSError:
                        pass

        """#

    private static let driver = #"""
        import asyncio, threading

        writing = threading.Lock()

        def tell(event, **fields):
            body = encode(dict(fields, event=event)) + b"\n"
            with writing:
                write_all(replies, body)

        def short(error):
            text = str(error).strip() or type(error).__name__
            return text if len(text) <= 2000 else text[:2000] + "…"

        def discard(actor):
            try:
                ray.kill(actor)
            except BaseException:
                pass

        def is_of_node(error):
            return "node has died" in str(error) or "node is dead" in str(error).lower()

        die_with(parent)
        try:
            import ray
            from ray.exceptions import ActorUnavailableError, RayActorError
            from ray.util.placement_group import placement_group, remove_placement_group
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
        except ImportError as error:
            tell("failed", message=sys.executable + " cannot import Ray (" + short(error) + "); name the Python that runs the "
                 "cluster in cluster.ray.python, or: pip install 'ray[default]'")
            os._exit(1)

        class Driver:
            def __init__(self):
                self.group = None
                self.workers = {}
                self.names = {}
                self.patience = 60.0

            async def connect(self, request):
                self.patience = float(request["patience"])
                # Nobody else's names stand in our way: the namespace is this run's alone.
                ray.init(
                    address=request.get("address") or os.environ.get("RAY_ADDRESS") or "auto", log_to_driver=False,
                    logging_level="ERROR", namespace=request["name"] + "-" + os.urandom(4).hex())
                bundles = [{k: float(v) for k, v in b.items() if v} for b in request["bundles"]]
                loop = asyncio.get_running_loop()
                begun = loop.time()
                told = False
                if bundles:
                    self.group = placement_group(bundles, strategy=request["strategy"], name=request["name"])
                while self.group is not None and not await loop.run_in_executor(None, self.group.wait, 1):
                    waited = loop.time() - begun
                    if waited > self.patience:
                        raise RuntimeError(self.no_room(bundles, request["strategy"], waited))
                    if waited > 5 and not told:
                        told = True
                        tell("note", message=self.no_room(bundles, request["strategy"], waited) + "; waiting for more")
                tell("ready", ray=ray.__version__, python=".".join(map(str, sys.version_info[:3])), nodes=self.nodes())

            def nodes(self):
                return [
                    {"address": n["NodeManagerAddress"], "hostname": n["NodeManagerHostname"], "id": n["NodeID"],
                     "cpus": n["Resources"].get("CPU", 0.0), "gpus": n["Resources"].get("GPU", 0.0),
                     "store": n["Resources"].get("object_store_memory", 0.0)}
                    for n in ray.nodes() if n["Alive"]]

            def no_room(self, bundles, strategy, waited):
                def amounts(resources):
                    return ", ".join(
                        "%s %g" % (k, v) for k, v in sorted(resources.items())
                        if not k.startswith(("node:", "memory", "object_store", "bundle_", "accelerator_type")) and "_group_" not in k)
                try:
                    free = amounts(ray.available_resources())
                    nodes = "; ".join(
                        n["NodeManagerAddress"] + ": " + amounts(n["Resources"]) for n in ray.nodes() if n["Alive"])
                except Exception as error:
                    free, nodes = "unknown", short(error)
                return ("no room on the Ray cluster for %d bundles of %s, placed by %s, after %.0f s; free now: %s; its nodes have %s"
                        % (len(bundles), amounts(bundles[0]), strategy, waited, free or "nothing", nodes or "nothing"))

            def name(self, wanted):
                self.names[wanted] = self.names.get(wanted, 0) + 1
                return wanted if self.names[wanted] == 1 else wanted + "#" + str(self.names[wanted])

            async def place(self, request):
                bundle = request.get("bundle")
                strategy = "DEFAULT" if self.group is None else PlacementGroupSchedulingStrategy(
                    self.group, placement_group_bundle_index=-1 if bundle is None else bundle)
                number, facts = request["id"], None
                loop = asyncio.get_running_loop()
                end = loop.time() + self.patience
                while facts is None:
                    actor = ray.remote(FledgeWorker).options(
                        name=self.name(request["name"]), num_cpus=request["cpus"], num_gpus=request["gpus"],
                        resources={k: v for k, v in request["resources"].items() if v}, scheduling_strategy=strategy,
                        max_restarts=0, max_concurrency=8).remote()
                    self.workers[number] = [actor, None]
                    try:
                        facts = await asyncio.wait_for(actor.facts.remote(request["listens"]), max(0.0, end - loop.time()))
                    except asyncio.TimeoutError:
                        discard(actor)
                        raise RuntimeError(
                            "no node took it within %g s; free now: %s" % (self.patience, ray.available_resources()))
                    except RayActorError as error:
                        # Ray may choose a node that is gone, before it knows that.
                        if loop.time() > end or not (isinstance(error, ActorUnavailableError) or is_of_node(error)):
                            raise
                        discard(actor)
                        await asyncio.sleep(0.2)
                self.workers[number][1] = facts
                tell("placed", id=number, facts=facts)

            async def run(self, request):
                number = request["id"]
                actor, facts = self.workers[number]
                process = await actor.run.remote(request, facts["gpus"])
                tell("started", id=number, process=process)
                asyncio.ensure_future(self.follow(number, actor, facts))

            async def follow(self, number, actor, facts):
                taken = 0
                try:
                    while True:
                        lines, end = [], None
                        try:
                            events = await actor.next.remote(taken)
                        except ActorUnavailableError:
                            # Ray does not know yet whether it is gone, and says so then.
                            await asyncio.sleep(0.2)
                            continue
                        taken += 1
                        for event in events:
                            if event[0] == "line":
                                lines.append([event[1], event[2]])
                            else:
                                end = event
                        if lines:
                            tell("lines", id=number, lines=lines)
                        if end is not None:
                            tell("ended", id=number, code=end[1], tail=end[2])
                            return
                except BaseException as error:
                    tell("lost", id=number, message=short(error), node_lost=self.is_lost(facts, error))

            def is_lost(self, facts, error):
                if is_of_node(error):
                    return True
                try:
                    return not any(n["NodeID"] == facts["node_id"] and n["Alive"] for n in ray.nodes())
                except Exception:
                    return False

            async def signal(self, request):
                await self.workers[request["id"]][0].signal.remote(request["signal"])

            async def kill(self, request):
                await self.workers[request["id"]][0].kill.remote()

            async def release(self, request):
                discard(self.workers.pop(request["id"])[0])

            async def perform(self, request):
                work = request.get("op")
                try:
                    await getattr(self, {
                        "connect": "connect", "place": "place", "run": "run", "signal": "signal", "kill": "kill",
                        "release": "release"}[work])(request)
                except BaseException as error:
                    if work not in ("place", "run", "signal", "kill", "release"):
                        tell("failed", message=short(error) if work == "connect" else "there is no request " + shorten(work))
                    elif work in ("place", "run"):
                        cause = getattr(error, "cause", None)
                        tell("refused", id=request.get("id", -1), message=short(cause or error))
                    # A process that is gone needs no signal, nor to be killed.

            async def end(self):
                for actor, _ in list(self.workers.values()):
                    try:
                        await asyncio.wait_for(actor.kill.remote(), 2)
                    except BaseException:
                        pass
                    discard(actor)
                try:
                    if self.group is not None:
                        remove_placement_group(self.group)
                    ray.shutdown()
                except BaseException:
                    pass

        async def main():
            driver, loop, queue = Driver(), asyncio.get_running_loop(), asyncio.Queue()

            def read():
                for line in os.fdopen(requests.fileno(), "rb", closefd=False):
                    loop.call_soon_threadsafe(queue.put_nowait, line)
                loop.call_soon_threadsafe(queue.put_nowait, None)

            threading.Thread(target=read, daemon=True).start()
            running = set()
            while True:
                line = await queue.get()
                try:
                    request = {"op": "shutdown"} if line is None else json.loads(line)
                    work = request["op"]
                except (ValueError, TypeError, KeyError):
                    tell("failed", message="what came is no request: " + shorten(line))
                    continue
                if work == "shutdown":
                    await driver.end()
                    os._exit(0)
                # Not awaited: signals and a shutdown come through while others wait for room.
                running.add(task := asyncio.ensure_future(driver.perform(request)))
                task.add_done_callback(running.discard)

        asyncio.run(main())
        """#
}

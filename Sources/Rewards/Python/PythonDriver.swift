/// The program that a worker runs. Requests and replies are JSON behind a length of four bytes, over copies of the
/// standard input and output that only the driver knows; what the reward prints goes to standard error.
enum PythonDriver {
    /// Called as `python3 -c source PARENT FILE FUNCTION MEMORY CPU FILES`; a memory limit of 0 is none.
    static let source = #"""
        import os, sys

        requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.close(null)

        import asyncio, importlib.util, inspect, json, math, resource, struct, traceback

        parent, path, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
        memory, cpu, files = (int(text) for text in sys.argv[4:7])
        process = os.getpid()

        def die_with_parent():
            try:
                import ctypes
                ctypes.CDLL(None).prctl(1, 9)
            except (ImportError, OSError, AttributeError):
                return
            if os.getppid() != parent:
                os._exit(1)

        def limit(which, wanted):
            hard = resource.getrlimit(which)[1]
            if hard != resource.RLIM_INFINITY:
                wanted = min(wanted, hard)
            resource.setrlimit(which, (wanted, hard))

        def send(reply):
            body = json.dumps(reply, allow_nan=False).encode()
            data = memoryview(struct.pack(">I", len(body)) + body)
            while data:
                data = data[os.write(replies, data):]

        def receive():
            head = requests.read(4)
            if len(head) < 4:
                os._exit(0)
            return json.loads(requests.read(struct.unpack(">I", head)[0]))

        def report(error):
            try:
                whole = traceback.TracebackException.from_exception(error)
                own = ("<string>", "<frozen importlib")
                whole.stack[:] = [f for f in whole.stack if not f.filename.startswith(own)][-8:]
                whole.__cause__ = whole.__context__ = None
                return "".join(whole.format()).strip()[-4000:]
            except BaseException:
                return type(error).__name__

        def number(value):
            if isinstance(value, (bool, int, float)):
                return float(value)
            if hasattr(value, "item") and getattr(value, "shape", None) is not None:
                try:
                    value = value.item()
                except (TypeError, ValueError, RuntimeError):
                    return None
                if isinstance(value, (bool, int, float)):
                    return float(value)
            return None

        def shorten(value):
            text = repr(value)
            return text if len(text) <= 200 else text[:200] + "…"

        def outcome(result):
            details = []
            value = result
            if isinstance(result, dict):
                if "score" not in result:
                    return {"kind": "garbage", "message": "a dict without 'score': " + shorten(result)}
                value = result["score"]
                for key, extra in result.items():
                    extra = number(extra) if key != "score" else None
                    if extra is not None and math.isfinite(extra) and len(details) < 64:
                        details.append({"name": str(key)[:128], "value": extra})
            elif isinstance(result, (tuple, list)):
                if not result:
                    return {"kind": "garbage", "message": "an empty " + type(result).__name__}
                value = result[0]
            try:
                score = number(value)
            except OverflowError:
                score = math.inf
            if score is None:
                return {"kind": "garbage", "message": "not a number: " + shorten(value)}
            if not math.isfinite(score):
                return {"kind": "non_finite", "message": "the score is " + str(score)}
            return {"kind": "scored", "score": score, "details": details}

        def compute(function, request):
            truth, extra = request["ground_truth"], request.get("extra_info")
            if request.get("ground_truth_json") is not None:
                truth = json.loads(request["ground_truth_json"])
            result = function(
                data_source=request["data_source"], solution_str=request["solution_str"], ground_truth=truth,
                extra_info=None if extra is None else json.loads(extra))
            return asyncio.run(result) if inspect.iscoroutine(result) else result

        def load():
            folder = os.path.dirname(os.path.abspath(path))
            os.chdir(folder)
            sys.path[0] = folder
            sys.argv[:] = [path]
            spec = importlib.util.spec_from_file_location("fledge_reward", path)
            if spec is None:
                raise ImportError("'" + path + "' is not a Python file; its name must end in .py")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
            function = getattr(module, name, None)
            if not callable(function):
                known = [k for k, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == spec.name]
                raise AttributeError(
                    "'" + path + "' has no function '" + name + "'; it has: " + (", ".join(known) or "none"))
            return function

        def main():
            die_with_parent()
            limit(resource.RLIMIT_CORE, 0)
            limit(resource.RLIMIT_NOFILE, files)
            if memory:
                limit(resource.RLIMIT_AS, memory)
            try:
                function = load()
            except BaseException as error:
                send({"kind": "load_failed", "message": report(error)})
                os._exit(1)
            send({"kind": "ready"})
            while True:
                request = receive()
                send({"kind": "begun"})
                used = os.times()
                limit(resource.RLIMIT_CPU, int(used.user + used.system) + 1 + cpu)
                try:
                    reply = outcome(compute(function, request))
                except BaseException as error:
                    reply = {"kind": "raised", "message": report(error)}
                if os.getpid() != process:
                    os._exit(0)
                send(reply)

        main()
        """#
}

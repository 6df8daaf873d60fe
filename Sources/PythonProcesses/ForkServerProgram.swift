/// The part of a Python program that forks a child for each piece of work. What stands before it defines `child(channel,
/// body)`, which a child runs, and may define limits; what stands behind it calls `serve(…)`.
///
/// Frames to the server: child's number (4 bytes), a letter, a body. `O` opens a child, `S` sends to it, `K` kills it,
/// `Q` ends all. Frames from it: `R` all is ready, `L` it is not, `F` a child's frame, `E` a child's end as JSON.
public enum ForkServerProgram {
    public static let source = #"""
        import fcntl, selectors, signal, socket, time

        CHANNEL = 3
        tail_bytes = 2048
        kept_descriptors = 0

        class Child:
            def __init__(self, number, process, channel, output):
                self.number, self.process, self.channel, self.output = number, process, channel, output
                self.inbox, self.outbox, self.text, self.lost = b"", b"", b"", 0
                self.over = self.garbage = self.late = False
                self.begun = time.monotonic()

        def tell(number, letter, body=b""):
            write_all(replies, struct.pack(">IIc", 5 + len(body), number, letter) + body)

        def become_child(body, channel, output):
            server = os.getppid()
            os.setsid()
            die_with(server)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Behind every number that is in use, so that none of these is overwritten on the way.
            channel, output = fcntl.fcntl(channel, fcntl.F_DUPFD, 64), fcntl.fcntl(output, fcntl.F_DUPFD, 64)
            for place in range(kept_descriptors):
                kept[place] = fcntl.fcntl(kept[place], fcntl.F_DUPFD, 64)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.dup2(channel, CHANNEL)
            for place in range(kept_descriptors):
                os.dup2(kept[place], CHANNEL + 1 + place)
            os.closerange(CHANNEL + 1 + kept_descriptors, 65536)
            child(CHANNEL, body)

        kept = []

        class Server:
            def __init__(self, output_limit, frame_limit, time_limit):
                self.output_limit, self.frame_limit, self.time_limit = output_limit, frame_limit, time_limit
                self.children, self.processes = {}, {}
                self.selector = selectors.DefaultSelector()
                self.buffer = bytearray()

            def run(self):
                wake, woken = os.pipe()
                os.set_blocking(wake, False)
                os.set_blocking(woken, False)
                signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
                signal.signal(signal.SIGCHLD, lambda *_: None)
                self.selector.register(requests.fileno(), selectors.EVENT_READ, self.read_requests)
                self.selector.register(wake, selectors.EVENT_READ, lambda *_: os.read(wake, 4096))
                while True:
                    events = self.selector.select(self.end_late())
                    for key, mask in events:
                        if key.fd in self.selector.get_map():
                            key.data(mask)
                    self.reap()

            def end_late(self):
                """Ends children whose time is up; the seconds until the next one's is, None without any."""
                if not self.time_limit:
                    return None
                waits = [found.begun + self.time_limit - time.monotonic()
                         for found in self.children.values() if not found.late]
                if any(left <= 0 for left in waits):
                    for found in self.children.values():
                        if not found.late and found.begun + self.time_limit <= time.monotonic():
                            found.late = True
                            self.kill(found)
                return min((max(left, 0.001) for left in waits), default=None)

            def quit(self):
                for found in self.children.values():
                    self.kill(found)
                os._exit(0)

            def read_requests(self, mask):
                more = os.read(requests.fileno(), 1 << 20)
                if not more:
                    self.quit()
                self.buffer += more
                while len(self.buffer) >= 4:
                    length = struct.unpack_from(">I", self.buffer)[0]
                    if len(self.buffer) < 4 + length:
                        return
                    number, letter = struct.unpack_from(">Ic", self.buffer, 4)
                    body = bytes(self.buffer[9:4 + length])
                    del self.buffer[:4 + length]
                    self.obey(number, letter, body)

            def obey(self, number, letter, body):
                found = self.children.get(number)
                if letter == b"O":
                    self.open(number, body)
                elif letter == b"Q":
                    self.quit()
                elif found is None:
                    pass  # It has ended, and that was told.
                elif letter == b"K":
                    self.kill(found)
                elif letter == b"S":
                    found.outbox += struct.pack(">I", len(body)) + body
                    self.use_channel(found, selectors.EVENT_WRITE)

            def open(self, number, body):
                try:
                    ours, theirs = socket.socketpair()
                    output, written = os.pipe()
                    process = os.fork()
                except OSError as error:
                    tell(number, b"E", encode({"failed": "cannot start a process: " + str(error)}))
                    return
                if process == 0:
                    try:
                        become_child(body, theirs.fileno(), written)
                    except SystemExit:
                        pass
                    except BaseException:
                        traceback.print_exc()
                        os._exit(1)
                    finally:
                        os._exit(0)
                theirs.close()
                os.close(written)
                ours.setblocking(False)
                os.set_blocking(output, False)
                made = Child(number, process, ours, output)
                self.children[number] = self.processes[process] = made
                self.selector.register(ours, selectors.EVENT_READ, lambda mask: self.use_channel(made, mask))
                self.selector.register(output, selectors.EVENT_READ, lambda mask: self.read_output(made))

            def kill(self, found):
                for one in (os.killpg, os.kill):
                    try:
                        one(found.process, signal.SIGKILL)
                    except OSError:
                        pass

            def use_channel(self, found, mask):
                if found.channel is None:
                    return
                try:
                    if mask & selectors.EVENT_WRITE and found.outbox:
                        found.outbox = found.outbox[found.channel.send(found.outbox):]
                    if mask & selectors.EVENT_READ:
                        more = found.channel.recv(1 << 18)
                        if not more:
                            return self.close_channel(found)
                        self.take(found, more)
                except BlockingIOError:
                    pass
                except OSError:
                    return self.close_channel(found)
                if found.channel is not None:
                    wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if found.outbox else 0)
                    self.selector.modify(found.channel, wanted, self.selector.get_key(found.channel).data)

            def take(self, found, more):
                found.inbox += more
                while len(found.inbox) >= 4:
                    length = struct.unpack_from(">I", found.inbox)[0]
                    if length > self.frame_limit:
                        found.garbage = True
                        return self.kill(found)
                    if len(found.inbox) < 4 + length:
                        return
                    tell(found.number, b"F", found.inbox[4:4 + length])
                    found.inbox = found.inbox[4 + length:]

            def close_channel(self, found):
                if found.channel is not None:
                    self.selector.unregister(found.channel)
                    found.channel.close()
                    found.channel = None

            def read_output(self, found):
                """False when nothing is there now, or ever."""
                if found.output is None:
                    return False
                try:
                    more = os.read(found.output, 1 << 16)
                except BlockingIOError:
                    return False
                if not more:
                    self.selector.unregister(found.output)
                    os.close(found.output)
                    found.output = None
                    return False
                found.text += more
                if not self.output_limit:
                    found.text = found.text[-tail_bytes:]
                elif len(found.text) > self.output_limit:
                    found.text = found.text[:self.output_limit]
                    if not found.over:
                        found.over = True
                        self.kill(found)
                return not found.over

            def reap(self):
                while True:
                    try:
                        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    except ChildProcessError:
                        return
                    if ended is None:
                        return
                    found = self.processes.pop(ended.si_pid, None)
                    if found is not None:
                        # Its number is its group's until it is reaped.
                        self.kill(found)
                    _, status, used = os.wait4(ended.si_pid, 0)
                    if found is not None:
                        self.end(found, status, used)

            def end(self, found, status, used):
                while self.read_output(found):
                    pass
                if found.channel is not None:
                    try:
                        while found.channel is not None:
                            more = found.channel.recv(1 << 18)
                            if not more:
                                break
                            self.take(found, more)
                    except OSError:
                        pass
                    self.close_channel(found)
                if found.output is not None:
                    self.selector.unregister(found.output)
                    os.close(found.output)
                del self.children[found.number]
                tell(found.number, b"E", encode({
                    "exit": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
                    "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
                    "processor_seconds": used.ru_utime + used.ru_stime, "peak_kilobytes": used.ru_maxrss,
                    "output": found.text.decode("utf-8", "replace"), "over": found.over, "garbage": found.garbage,
                    "late": found.late}))

        def serve(hello, output_limit, frame_limit, time_limit=0):
            tell(0, b"R", encode(hello))
            Server(output_limit, frame_limit, time_limit).run()

        """#
}

/// What every Python program of ours begins with: frames over copies of the standard input and output that only it
/// knows (what other code prints goes to standard error), limits, and errors as text.
public enum PythonPrelude {
    /// `sys.argv[1]` is the parent's process id.
    public static let source = #"""
        import os, sys

        requests, replies = os.fdopen(os.dup(0), "rb", 0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.close(null)

        import importlib.util, inspect, json, math, resource, struct, traceback

        parent = int(sys.argv[1])
        libc = None
        try:
            import ctypes
            libc = ctypes.CDLL(None, use_errno=True)
        except (ImportError, OSError):
            pass

        def die_with(parent):
            try:
                libc.prctl(1, 9, 0, 0, 0)
            except AttributeError:
                return
            if os.getppid() != parent:
                os._exit(1)

        def limit(which, wanted, hard=None):
            old = resource.getrlimit(which)[1]
            if old != resource.RLIM_INFINITY:
                wanted = min(wanted, old)
            resource.setrlimit(which, (wanted, old if hard is None else hard))

        def write_all(file, data):
            data = memoryview(data)
            while data:
                data = data[os.write(file, data):]

        def read_exactly(file, count):
            data = b""
            while len(data) < count:
                more = os.read(file, min(1 << 20, count - len(data)))
                if not more:
                    os._exit(0)
                data += more
            return data

        def encode(value):
            return json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")

        def send(reply, file=replies):
            body = encode(reply)
            write_all(file, struct.pack(">I", len(body)) + body)

        def receive(file=requests.fileno()):
            return json.loads(read_exactly(file, struct.unpack(">I", read_exactly(file, 4))[0]))

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

        def details(mapping, leaving):
            found = []
            for key, extra in mapping.items():
                extra = number(extra) if key not in leaving else None
                if extra is not None and math.isfinite(extra) and len(found) < 64:
                    found.append({"name": str(key)[:128], "value": extra})
            return found

        def load(path, name, noun, fits):
            folder = os.path.dirname(os.path.abspath(path))
            os.chdir(folder)
            sys.path[0] = folder
            sys.argv[:] = [path]
            spec = importlib.util.spec_from_file_location("fledge_" + noun, path)
            if spec is None:
                raise ImportError("'" + path + "' is not a Python file; its name must end in .py")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
            found = getattr(module, name, None)
            if not callable(found):
                known = [k for k, v in vars(module).items() if fits(v) and v.__module__ == spec.name]
                raise AttributeError(
                    "'" + path + "' has no " + noun + " '" + name + "'; it has: " + (", ".join(known) or "none"))
            return found

        """#
}

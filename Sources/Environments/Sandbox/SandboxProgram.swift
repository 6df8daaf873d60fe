import PythonProcesses

/// The program that runs strangers' Python: it forks a process for each piece of code, which gives up its rights before it
/// runs that. Called with MEMORY CPU OUTPUT FILES SECONDS PRELOADED….
enum SandboxProgram {
    static let source =
        PythonPrelude.source + ForkServerProgram.source + SandboxFilter.source + #"""
            import ast, builtins, errno, linecache, random, tempfile

            memory, cpu, output, files = (int(text) for text in sys.argv[2:6])
            seconds = float(sys.argv[6])
            if sys.path and sys.path[0] == "":
                del sys.path[0]
            restrictions = {}

            def readable():
                paths = [sys.prefix, sys.base_prefix, sys.exec_prefix] + sys.path
                paths += [os.path.dirname(os.__file__), "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"]
                paths += ["/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"]
                return [p for p in dict.fromkeys(map(os.path.realpath, paths)) if os.path.exists(p) and p != "/"]

            def prepare():
                """What is made once, before any child; each part may be missing on a host."""
                try:
                    restrictions["files"] = landlock_ruleset(readable())
                    kept.append(restrictions["files"])
                except (OSError, AttributeError, NameError) as error:
                    restrictions["no_files"] = str(error)
                try:
                    restrictions["calls"] = call_filter()
                except (OSError, AttributeError, NameError) as error:
                    restrictions["no_calls"] = str(error)

            def confine():
                """Gives up this process's rights for good."""
                limit(resource.RLIMIT_CORE, 0, 0)
                limit(resource.RLIMIT_NOFILE, files, files)
                limit(resource.RLIMIT_FSIZE, 0, 0)
                limit(resource.RLIMIT_CPU, cpu, cpu + 1)
                if memory:
                    limit(resource.RLIMIT_AS, memory, memory)
                if libc is None:
                    return
                drop_capabilities()
                no_new_privileges()
                if "files" in restrictions:
                    landlock_restrict(CHANNEL + 1)
                    os.close(CHANNEL + 1)
                if "calls" in restrictions:
                    install_filter(restrictions["calls"])

            def run(code):
                sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
                sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
                name = "<code>"
                linecache.cache[name] = (len(code), None, code.splitlines(True), name)
                scope = {"__name__": "__main__", "__builtins__": builtins}
                try:
                    tree = ast.parse(code, name)
                    last = None
                    if tree.body and isinstance(tree.body[-1], ast.Expr):
                        last = ast.Expression(tree.body.pop().value)
                    exec(compile(tree, name, "exec"), scope)
                    if last is not None:
                        value = eval(compile(last, name, "eval"), scope)
                        if value is not None:
                            print(repr(value))
                    status = 0
                except SystemExit as error:
                    status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
                    if isinstance(error.code, str):
                        print(error.code, file=sys.stderr)
                except BaseException as error:
                    whole = traceback.TracebackException.from_exception(error)
                    whole.stack[:] = [f for f in whole.stack if f.filename == name][-8:]
                    sys.stderr.write("".join(whole.format())[-4000:])
                    status = 1
                for stream in (sys.stdout, sys.stderr):
                    try:
                        stream.flush()
                    except (OSError, ValueError):
                        pass
                os._exit(status & 255)

            def child(channel, body):
                request = json.loads(body)
                os.close(channel)
                os.environ.clear()
                os.chdir("/")
                sys.argv[:] = ["code"]
                random.seed(0)
                # Nothing of the program that forked us is for the code to see.
                for name in ("requests", "replies"):
                    globals().pop(name, None)
                confine()
                run(request["code"])

            # What is tried in a confined child before any work: each gives True if it was possible.

            def reaches_network():
                try:
                    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
                except OSError:
                    return False
                return True

            def starts_processes():
                try:
                    process = os.fork()
                except OSError:
                    return False
                if process == 0:
                    os._exit(0)
                return True

            def writes_files():
                try:
                    os.close(os.open(probe_path, os.O_WRONLY))
                except OSError:
                    return False
                return True

            def reads_files():
                try:
                    os.close(os.open(probe_path, os.O_RDONLY))
                except OSError:
                    return False
                return True

            def signals_others():
                try:
                    os.kill(probe_parent, 0)
                except OSError:
                    return False
                return True

            def takes_memory():
                if not memory:
                    return True
                try:
                    mmap.mmap(-1, memory + (1 << 20)).close()
                except (OSError, MemoryError, ValueError):
                    return False
                return True

            def raises_limits():
                try:
                    resource.setrlimit(resource.RLIMIT_CPU, (cpu + 60, cpu + 60))
                except (OSError, ValueError):
                    return resource.getrlimit(resource.RLIMIT_CPU)[0] > cpu
                return True

            probes = {
                "network": reaches_network, "processes": starts_processes, "file_writes": writes_files,
                "file_reads": reads_files, "signals": signals_others, "memory": takes_memory,
                "processor_time": raises_limits}

            def enforced(probe):
                process = os.fork()
                if process == 0:
                    try:
                        for place, file in enumerate(kept):
                            os.dup2(file, CHANNEL + 1 + place)
                        confine()
                        os._exit(1 if probe() else 0)
                    except BaseException:
                        traceback.print_exc()
                    finally:
                        os._exit(2)
                return os.waitpid(process, 0)[1] == 0

            die_with(parent)
            try:
                import mmap
                for name in sys.argv[7:]:
                    importlib.import_module(name)
                # Numbers below this are the children's own.
                while True:
                    spare = os.dup(0)
                    if spare > CHANNEL + 2:
                        break
                prepare()
                kept_descriptors = len(kept)
                handle, probe_path = tempfile.mkstemp()
                probe_parent = os.getpid()
                try:
                    held = [name for name, probe in probes.items() if enforced(probe)]
                finally:
                    os.close(handle)
                    os.unlink(probe_path)
            except BaseException as error:
                tell(0, b"L", report(error).encode("utf-8", "replace"))
                os._exit(1)
            serve({
                "enforced": held, "no_files": restrictions.get("no_files", ""), "no_calls": restrictions.get("no_calls", ""),
            }, output, 1 << 16, seconds)
            """#
}

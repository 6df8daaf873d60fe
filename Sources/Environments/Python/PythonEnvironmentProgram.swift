import PythonProcesses

/// The program that Python environments run in: it loads the file once and forks a process for each episode. Called with
/// FILE CLASS MEMORY CPU FILES FRAME.
enum PythonEnvironmentProgram {
    static let source =
        PythonPrelude.source + ForkServerProgram.source + #"""
            import asyncio

            path, name = sys.argv[2], sys.argv[3]
            memory, cpu, files, frame = (int(text) for text in sys.argv[4:8])
            made = None

            class Garbage(Exception):
                pass

            def settle(value):
                return asyncio.run(value) if inspect.iscoroutine(value) else value

            def finite(value, what):
                try:
                    found = number(value)
                except OverflowError:
                    found = math.inf
                if found is None:
                    raise Garbage(what + " is not a number: " + shorten(value))
                if not math.isfinite(found):
                    raise Garbage(what + " is " + str(found))
                return found

            def observation(value):
                if value is None:
                    return []
                if isinstance(value, str):
                    return value
                messages = [value] if isinstance(value, dict) else value
                if isinstance(messages, (list, tuple)) and all(
                        isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
                    return list(messages)
                raise Garbage("the observation is no text, message or list of messages: " + shorten(value))

            def step(result):
                seen, reward, done, info = None, 0.0, None, {}
                if isinstance(result, dict):
                    unknown = [k for k in result if k not in ("observation", "reward", "done", "info")]
                    if unknown or "done" not in result:
                        raise Garbage("step gives 'observation', 'reward', 'done' and 'info', not " + shorten(result))
                    seen, reward = result.get("observation"), result.get("reward", 0.0)
                    done, info = result["done"], result.get("info") or {}
                elif isinstance(result, tuple) and len(result) in (3, 4):
                    seen, reward, done = result[:3]
                    info = result[3] if len(result) == 4 else {}
                elif isinstance(result, tuple) and len(result) == 5:
                    seen, reward, ended, truncated, info = result
                    done = bool(ended) or bool(truncated)
                else:
                    raise Garbage("step gives (observation, reward, done), not " + shorten(result))
                if not isinstance(info, dict):
                    raise Garbage("the info is no dict: " + shorten(info))
                if done is not True and done is not False and type(done).__name__ not in ("bool_", "bool"):
                    raise Garbage("done is neither True nor False: " + shorten(done))
                return {
                    "kind": "step", "observation": observation(seen), "reward": finite(reward, "the reward"),
                    "done": bool(done), "details": details(info, ())}

            def answer(request):
                global made
                if request["op"] == "reset":
                    task = request["task"]
                    for key in ("ground_truth", "extra_info"):
                        text = task.pop(key + "_json", None)
                        if text is not None:
                            task[key] = json.loads(text)
                    made = wanted()
                    return {"kind": "reset", "observation": observation(settle(made.reset(task)))}
                if request["op"] == "step":
                    return step(settle(made.step(request["reply"])))
                if request["op"] == "cut_off":
                    ending = getattr(made, "cut_off", None)
                    worth = settle(ending(request["ending"], request["reply"])) if ending else 0.0
                    return {"kind": "step", "observation": [], "reward": finite(worth, "the reward"), "done": True,
                            "details": []}
                closing = getattr(made, "close", None)
                if closing:
                    settle(closing())
                return {"kind": "closed"}

            def child(channel, body):
                limit(resource.RLIMIT_CORE, 0)
                limit(resource.RLIMIT_NOFILE, files)
                if memory:
                    limit(resource.RLIMIT_AS, memory)
                process = os.getpid()
                while True:
                    request = receive(channel)
                    used = os.times()
                    limit(resource.RLIMIT_CPU, int(used.user + used.system) + 1 + cpu)
                    try:
                        reply = answer(request)
                        body = encode(reply)
                        if len(body) > frame:
                            raise Garbage("the observation is longer than " + str(frame) + " bytes")
                    except Garbage as error:
                        body = encode({"kind": "garbage", "message": str(error)})
                    except BaseException as error:
                        body = encode({"kind": "raised", "message": report(error)})
                    if os.getpid() != process:
                        os._exit(0)
                    write_all(channel, struct.pack(">I", len(body)) + body)

            die_with(parent)
            try:
                wanted = load(path, name, "class", inspect.isclass)
                for method in ("reset", "step"):
                    if not callable(getattr(wanted, method, None)):
                        raise AttributeError("'" + name + "' has no method '" + method + "'")
                hello = {"tools": list(getattr(wanted, "tools", None) or [])}
                encode(hello)
            except BaseException as error:
                tell(0, b"L", report(error).encode("utf-8", "replace"))
                os._exit(1)
            serve(hello, 0, frame)
            """#
}

import PythonProcesses

/// The program that a worker runs, called with FILE FUNCTION MEMORY CPU FILES; a memory limit of 0 is none. Requests and
/// replies are JSON.
enum PythonDriver {
    static let source =
        PythonPrelude.source + #"""
            import asyncio

            path, name = sys.argv[2], sys.argv[3]
            memory, cpu, files = (int(text) for text in sys.argv[4:7])
            process = os.getpid()

            def outcome(result):
                extra = []
                value = result
                if isinstance(result, dict):
                    if "score" not in result:
                        return {"kind": "garbage", "message": "a dict without 'score': " + shorten(result)}
                    value = result["score"]
                    extra = details(result, ("score",))
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
                return {"kind": "scored", "score": score, "details": extra}

            def compute(function, request):
                truth, extra = request["ground_truth"], request.get("extra_info")
                if request.get("ground_truth_json") is not None:
                    truth = json.loads(request["ground_truth_json"])
                result = function(
                    data_source=request["data_source"], solution_str=request["solution_str"], ground_truth=truth,
                    extra_info=None if extra is None else json.loads(extra))
                return asyncio.run(result) if inspect.iscoroutine(result) else result

            def main():
                die_with(parent)
                limit(resource.RLIMIT_CORE, 0)
                limit(resource.RLIMIT_NOFILE, files)
                if memory:
                    limit(resource.RLIMIT_AS, memory)
                try:
                    function = load(path, name, "function", inspect.isfunction)
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

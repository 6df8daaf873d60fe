import ChatTemplates
import ChatTestSupport
import Conversations
import Environments
import Foundation
import OrderedCollections
import Testing

@Suite struct PythonEnvironmentTests {
    static let guessing = """
        import json, random

        class Environment:
            tools = [{"type": "function", "function": {"name": "guess", "description": "Guesses.",
                      "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}}]

            def reset(self, task):
                self.secret = random.Random(task["seed"]).randrange(10)
                self.tries = 0
                assert task["ground_truth"] == {"a": [1]} and task["extra_info"] is None and task["data_source"] == "games"
                return task["messages"] + [{"role": "user", "content": "Guess!"}]

            async def step(self, reply):
                self.tries += 1
                if not reply["tool_calls"]:
                    return "Call the tool.", 0.0, False
                n = reply["tool_calls"][0]["arguments"]["n"]
                if n == self.secret:
                    return None, 1.0, True, {"tries": self.tries, "note": "text is left out"}
                return {"observation": "no", "reward": -0.25, "done": False, "info": {"wrong": 1}}

            def cut_off(self, ending, reply):
                assert ending == "turn_limit" and reply is None
                return -1
        """

    static func task(_ id: Int) -> EpisodeTask {
        EpisodeTask(
            id: id, seed: UInt64(id), messages: [.system("Play.")], dataSource: "games", groundTruth: "",
            groundTruthJSON: "{\"a\": [1]}")
    }

    @Test func playsEpisodesInProcessesOfTheirOwn() async throws {
        let results = try await EnvironmentFile(Self.guessing).run { environment in
            #expect(environment.tools.map(\.name) == ["guess"])
            let (rollout, _) = try MultiTurnRolloutTests.rollout(environment, limits: EpisodeLimits(turns: 11)) {
                request in
                request.turn == 0
                    ? "hm<|im_end|>"
                    : "<tool_call>{\"name\": \"guess\", \"arguments\": {\"n\": \(request.turn - 1)}}</tool_call><|im_end|>"
            }
            return try await rollout.run((0..<8).map(Self.task), seed: 1)
        }
        #expect(results.allSatisfy { $0.ending == .done }, "\(results.map(\.ending))")
        for result in results {
            let wrong = result.details["wrong"] ?? 0
            #expect(result.details["tries"] == wrong + 2 && result.score == 1 - 0.25 * wrong)
            #expect(result.details["note"] == nil)
            #expect(result.text.contains("<|im_start|>user\nCall the tool.<|im_end|>"))
            if wrong > 0 { #expect(result.text.contains("<|im_start|>tool\nno<|im_end|>")) }
        }
        #expect(Set(results.compactMap(\.score)).count > 1)
    }

    @Test func anEpisodeThatIsCutOffHasItsSay() async throws {
        let results = try await EnvironmentFile(Self.guessing).run { environment in
            let (rollout, _) = try MultiTurnRolloutTests.rollout(environment, limits: EpisodeLimits(turns: 2)) { _ in
                "hm<|im_end|>"
            }
            return try await rollout.run([Self.task(0)], seed: 1)
        }
        #expect(results[0].ending == .turnLimit && results[0].score == -1)
    }

    /// One file with every kind of trouble, chosen by the task's id.
    static let trouble = """
        import os, sys, time, signal, subprocess, threading

        class Environment:
            def reset(self, task):
                self.id = task["id"]
                if self.id == 1: raise KeyError("lost key")
                if self.id == 2: time.sleep(1000)
                if self.id == 3: return 5
                return "go"

            def step(self, reply):
                if self.id == 4: raise ValueError("bad move")
                if self.id == 5:
                    print("last words", file=sys.stderr, flush=True)
                    time.sleep(1000)
                if self.id == 6:
                    print("dying", flush=True)
                    os._exit(7)
                if self.id == 7: os.kill(os.getpid(), signal.SIGKILL)
                if self.id == 8: return "x", float("nan"), False
                if self.id == 9: return "x", "much", False
                if self.id == 10: return "x", 1.0
                if self.id == 11: return {1, 2}, 1.0, True
                if self.id == 12: return "x", 1.0, "yes"
                if self.id == 13: return "x" * (1 << 21), 1.0, True
                if self.id == 14: return bytearray(1 << 40)
                if self.id == 15: signal.raise_signal(signal.SIGSTOP)
                if self.id == 16: return "\\ud800", 10 ** 400, True
                if self.id == 17: os.write(3, b"\\xff" * 64); time.sleep(1000)
                if self.id == 18: sys.exit(3)
                if self.id == 19:
                    while True: pass
                return "ok \\ud800", 1.0, True
        """

    @Test func troubleCostsItsOwnEpisodeOnly() async throws {
        let file = try EnvironmentFile(Self.trouble)
        func play(_ ids: [Int], _ deadline: Duration) async throws -> [EpisodeResult] {
            try await file.run({ $0.deadline = deadline }) { environment in
                let (rollout, _) = try MultiTurnRolloutTests.rollout(environment) { _ in "a<|im_end|>" }
                let results = try await rollout.run(tasks(24).filter { ids.contains($0.id) }, seed: 1)
                #expect(await environment.starts == 1, "the file was loaded again")
                return results
            }
        }
        // Those that hang have little time, the others all that they need.
        let hanging = [2, 5, 15, 17, 19]
        let late = try await play(hanging, .seconds(2))
        let others = try await play((0..<24).filter { !hanging.contains($0) }, .seconds(600))
        let results = (late + others).sorted { $0.task.id < $1.task.id }
        let names = results.map { String($0.ending.name.trimmingPrefix("failed_")) }
        #expect(
            names == [
                "done", "raised", "timed_out", "garbage", "raised", "timed_out", "died", "died", "garbage", "garbage",
                "garbage",
                "garbage", "garbage", "garbage", "raised", "timed_out", "garbage", "garbage", "raised", "timed_out",
                "done",
                "done", "done", "done",
            ])
        func message(_ index: Int) -> String { results[index].ending.failure?.message ?? "" }
        #expect(message(1).contains("KeyError: 'lost key'") && message(1).contains("world.py"))
        #expect(message(4).contains("ValueError: bad move"))
        #expect(message(6).contains("exit code 7") && message(6).contains("dying"))
        #expect(message(14).contains("MemoryError"))
        #expect(message(18).contains("SystemExit"))
    }

    /// The processor time of one step, whatever the clock says.
    @Test func processorTimeIsLimited() async throws {
        let results = try await EnvironmentFile(Self.trouble).run({ $0.cpuSeconds = 1 }) { environment in
            let (rollout, _) = try MultiTurnRolloutTests.rollout(environment) { _ in "a<|im_end|>" }
            return try await rollout.run([EpisodeTask(id: 19, messages: [])], seed: 1)
        }
        #expect(results[0].ending.name == "failed_died")
        #expect(results[0].ending.failure?.message.contains("processor time") == true)
    }

    /// The server that all episodes fork from: stopped, it is noticed by the deadline; killed, at once. Either way the next
    /// episode gets a new one.
    @Test(arguments: [SIGSTOP, SIGKILL]) func aHurtServerIsReplaced(_ signal: Int32) async throws {
        try await EnvironmentFile(Self.guessing).run({
            $0.deadline = signal == SIGSTOP ? .seconds(1) : .seconds(600)
            $0.killGrace = .seconds(1)
        }) { environment in
            let opening = try await environment.reset(Self.task(0))
            let server = try #require(await environment.serverProcess)
            kill(server, signal)
            do {
                _ = try await opening.episode.step(ToolEnvironmentTests.reply(content: "hm"))
                Issue.record("a step went on without its server")
            } catch let failure as EpisodeFailure {
                #expect(failure.kind == (signal == SIGSTOP ? .timedOut : .died))
            }
            await opening.episode.close()
            // A stopped server is ended once it has not obeyed for a while; until then new episodes fail by their deadline.
            while true {
                guard let next = try? await environment.reset(Self.task(1)) else { continue }
                #expect(next.messages.last == .user("Guess!"))
                await next.episode.close()
                break
            }
            #expect(await environment.starts >= 2)
            #expect(!isRunning(Int(server)))
        }
    }

    /// What an episode starts goes with it.
    @Test func leavesNoProcesses() async throws {
        let file = try EnvironmentFile(
            """
            import os, subprocess, time
            class Environment:
                def reset(self, task):
                    child = subprocess.Popen(["sleep", "1000"])
                    open("new", "w").write(f"{os.getpid()} {child.pid}")
                    os.rename("new", "pids")
                    return "go"
                def step(self, reply):
                    time.sleep(1000)
            """)
        let pids = try await file.run { environment in
            let limits = EpisodeLimits(resetTime: .seconds(600), stepTime: .milliseconds(500))
            let (rollout, _) = try MultiTurnRolloutTests.rollout(environment, limits: limits) { _ in "a<|im_end|>" }
            let result = try await rollout.run(tasks(1), seed: 1)
            #expect(result[0].ending.name == "failed_timed_out")
            return try await file.text(of: "pids").split(separator: " ").compactMap { Int($0) }
        }
        #expect(pids.count == 2)
        while pids.contains(where: isRunning) { try await Task.sleep(for: .milliseconds(5)) }
    }

    @Test(arguments: [
        ("import nothing_like_this", "nothing_like_this"),
        ("class Other: pass", "no class 'Environment'; it has: Other"),
        ("class Environment:\n    def reset(self, task): pass", "no method 'step'"),
        ("class Environment(:", "SyntaxError"),
        (
            "class Environment:\n    tools = [{'name': 1}]\n    def reset(self, t): pass\n    def step(self, r): pass",
            "no \"name\""
        ),
        ("raise SystemExit(3)", "SystemExit"), ("import os; os._exit(3)", "exit code 3"),
    ]) func filesThatDoNotLoadAreNamed(_ source: String, _ words: String) async throws {
        let file = try EnvironmentFile(source)
        do {
            _ = try await PythonEnvironment(PythonEnvironmentConfiguration(file: file.path))
            Issue.record("it loaded")
        } catch {
            #expect("\(error)".contains(words), "\(error)")
        }
    }

    @Test func filesAndInterpretersMustBeThere() async throws {
        var configuration = PythonEnvironmentConfiguration(file: "/nonexistent.py")
        await #expect(throws: EnvironmentError.self) { try await PythonEnvironment(configuration) }
        let file = try EnvironmentFile(Self.guessing)
        configuration.file = file.path
        configuration.interpreter = "python-nonexistent"
        await #expect(throws: EnvironmentError.self) { try await PythonEnvironment(configuration) }
        configuration.interpreter = "python3"
        configuration.openFiles = 1
        await #expect(throws: EnvironmentError.self) { try await PythonEnvironment(configuration) }
    }
}

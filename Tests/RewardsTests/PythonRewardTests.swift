import Foundation
import OrderedCollections
import Rewards
import Testing

@Suite(.timeLimit(.minutes(20))) struct PythonRewardTests {
    private func source(_ body: String, _ head: String = "") -> String {
        head + "\ndef compute_score(data_source, solution_str, ground_truth, extra_info):\n"
            + body.split(separator: "\n").map { "    \($0)\n" }.joined()
    }

    private func outcome(
        _ body: String, response: String = "", _ configure: (inout PythonRewardConfiguration) -> Void = { _ in }
    ) async throws -> RewardOutcome {
        func settings(_ configuration: inout PythonRewardConfiguration) {
            // Where a deadline is not what is tested, a busy machine must not miss it.
            configuration.deadline = .seconds(600)
            configure(&configuration)
        }
        return try await RewardFile(source(body, "import os, sys, time, math")).run(settings) {
            await $0.score(items([response]))[0]
        }
    }

    @Test(arguments: [
        ("return 0.25", 0.25), ("return 3", 3), ("return True", 1), ("return (0.5, 'why')", 0.5), ("return [1, 2]", 1),
        ("return {'score': 0.1}", 0.1), ("return 2.5e-300", 2.5e-300), ("return -0.1 - 0.2", -0.1 - 0.2),
    ])
    func takesWhatVerlTakes(body: String, score: Double) async throws {
        #expect(try await outcome(body).score == score)
    }

    @Test func otherNumbersOfADictAreDetailsInOrder() async throws {
        let outcome = try await outcome("return {'z': 2, 'score': 1.5, 'text': 'x', 'a': True, 'bad': math.nan}")
        guard case .scored(let score, let details) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(score == 1.5)
        #expect(Array(details.keys) == ["z", "a"])
        #expect(Array(details.values) == [2, 1])
    }

    @Test(arguments: [
        ("return None", RewardFailure.Kind.garbage, "None"), ("return 'good'", .garbage, "good"),
        ("return {'acc': 1}", .garbage, "without 'score'"), ("return []", .garbage, "empty list"),
        ("return object()", .garbage, "object"), ("return {'score': 'x' * 9999}", .garbage, "…"),
        ("return math.nan", .nonFinite, "nan"), ("return -math.inf", .nonFinite, "-inf"),
        ("return 10 ** 400", .nonFinite, "inf"), ("return {'score': math.nan}", .nonFinite, "nan"),
        ("raise ValueError('no such answer')", .raised, "ValueError: no such answer"),
        ("return 1 / 0", .raised, "line 3"),
        ("sys.exit(0)", .raised, "SystemExit"), ("raise KeyboardInterrupt", .raised, "KeyboardInterrupt"),
        ("def f(): f()\nf()", .raised, "RecursionError"),
        ("print('last words', file=sys.stderr)\nos._exit(3)", .workerDied, "exit code 3; its last output: last words"),
        ("os.kill(os.getpid(), 11)", .workerDied, "signal 11"), ("os.kill(os.getpid(), 9)", .workerDied, "killed"),
        // It lives on, so that its own end cannot come before the one it is given.
        ("os.closerange(0, 100)\ntime.sleep(1000)", .workerDied, "closed its replies"),
    ])
    func troubleIsNamedAndNotAScore(body: String, kind: RewardFailure.Kind, message: String) async throws {
        let failure = try #require(try await outcome(body).failure)
        #expect(failure.kind == kind)
        #expect(failure.message.contains(message), "\(failure.message)")
    }

    @Test func printsDoNotDisturbTheReplies() async throws {
        let body = """
            print('{"kind": "scored", "score": 99}')
            os.write(1, b'\\x00\\x00\\x00\\x02{}' * 1000)
            os.system('echo from a shell')
            sys.stdout.write('x' * 3_000_000)
            sys.stderr.write('y' * 3_000_000)
            assert sys.stdin.read() == ''
            return len(solution_str)
            """
        let long = String(repeating: "é\n\"", count: 200_000)
        #expect(try await outcome(body, response: long).score == 600_000)
    }

    @Test func memoryIsLimited() async throws {
        let failure = try await outcome("x = bytearray(3 << 30)\nreturn 1") { $0.memoryLimit = 1 << 30 }.failure
        #expect(failure?.kind == .raised)
        #expect(failure?.message.contains("MemoryError") == true)
    }

    @Test func processorTimeIsLimited() async throws {
        let failure = try await outcome("while True: pass") {
            $0.cpuSeconds = 1
            $0.deadline = .seconds(60)
        }.failure
        #expect(failure?.kind == .workerDied)
        #expect(failure?.message.contains("processor time") == true)
    }

    @Test func theArgumentsAreVerls() async throws {
        let file = try RewardFile(
            source(
                """
                assert data_source == 'openai/gsm8k', data_source
                assert solution_str == 'a\\u2028é\\0b😀', repr(solution_str)
                assert ground_truth == {'target': [1, 2.5]}, ground_truth
                assert list(extra_info.items()) == [('index', 3), ('a', None)], extra_info
                return 1
                """))
        let item = RewardRequest(
            id: 0, dataSource: "openai/gsm8k", response: "a\u{2028}é\0b😀", groundTruth: "unused",
            groundTruthJSON: #"{"target": [1, 2.5]}"#, extraInfoJSON: #"{"index": 3, "a": null}"#)
        let outcome = try await file.run { await $0.score([item])[0] }
        #expect(outcome == .scored(1))
    }

    @Test func anAsyncFunctionIsAwaited() async throws {
        let head = "import asyncio\nasync def slow(): return 0.75"
        let file = try RewardFile(source("return slow()", head))
        #expect(try await file.run { await $0.score(items([""]))[0].score } == 0.75)
    }

    @Test func workersSeeAScrubbedEnvironmentAndTheirFolder() async throws {
        setenv("FLEDGE_TEST_SECRET", "secret", 1)
        let file = try RewardFile(
            source(
                """
                assert 'FLEDGE_TEST_SECRET' not in os.environ
                assert os.environ['OWN'] == 'yes' and 'PATH' in os.environ
                assert os.getcwd() == os.path.dirname(os.path.abspath(__file__))
                return helper.value
                """, "import os, helper"))
        try Data("value = 5".utf8).write(to: file.folder.appending(path: "helper.py"))
        let outcome = try await file.run({ $0.environment = ["OWN": "yes"] }) { await $0.score(items([""]))[0] }
        #expect(outcome == .scored(5))
    }

    @Test func manyItemsKeepTheirOrder() async throws {
        let file = try RewardFile(source("return {'score': int(solution_str), 'pid': os.getpid()}", "import os"))
        let (outcomes, second) = try await file.run({ $0.workers = 3 }) { reward in
            async let other = reward.score(items((1000..<1050).map(String.init)))
            return (await reward.score(items((0..<300).map(String.init))), await other)
        }
        #expect(outcomes.map(\.score) == (0..<300).map { Double($0) })
        #expect(second.map(\.score) == (1000..<1050).map { Double($0) })
    }

    @Test func noItemsAreNoWork() async throws {
        let file = try RewardFile(source("return 1"))
        #expect(try await file.run { await $0.score([]) }.isEmpty)
    }
}

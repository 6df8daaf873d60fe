import Foundation
import Testing

@testable import Rewards

/// Workers that hang, die or never come up.
@Suite(.timeLimit(.minutes(20))) struct PythonWorkerTroubleTests {
    private let stubborn = """
        import os, signal, subprocess, time

        def compute_score(data_source, solution_str, ground_truth, extra_info):
            if solution_str == 'hang':
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                child = subprocess.Popen(['sleep', '1000'])
                with open('pids.part', 'w') as file:
                    file.write(f'{os.getpid()} {child.pid}')
                os.rename('pids.part', 'pids')
                while True:
                    try:
                        time.sleep(1000)
                    except BaseException:
                        pass
            if solution_str == 'die':
                os._exit(1)
            if solution_str == 'die once':
                try:
                    os.mkdir('died')
                except FileExistsError:
                    return 7
                os._exit(1)
            if solution_str == 'die later':
                import threading
                threading.Thread(target=lambda: (time.sleep(0.05), os._exit(0))).start()
                return os.getpid()
            return float(solution_str)
        """

    @Test func aHungWorkerIsKilledAndReplacedAndOthersGoOn() async throws {
        let file = try RewardFile(stubborn)
        let configure = { (configuration: inout PythonRewardConfiguration) in
            configuration.workers = 2
            configuration.deadline = .seconds(6)
        }
        let (outcomes, replaced) = try await file.run(configure) { reward in
            (await reward.score(items(["1", "hang", "2", "3", "die", "4"])), await reward.replacedWorkers)
        }
        #expect(outcomes.map(\.score) == [1, nil, 2, 3, nil, 4])
        #expect(outcomes[1].failure?.kind == .timedOut)
        #expect(outcomes[1].failure?.message.contains("6.0 seconds") == true)
        #expect(outcomes[4].failure?.kind == .workerDied)
        #expect(replaced >= 1)
        // A killed process ends when the system comes to it, its child after it.
        let processes = try await file.text(of: "pids").split(separator: " ").compactMap { Int($0) }
        while processes.contains(where: isRunning) { try await Task.sleep(for: .milliseconds(5)) }
    }

    @Test func anItemIsTriedAgainWhenAskedFor() async throws {
        let outcomes = try await RewardFile(stubborn).run({ $0.retries = 1 }) {
            await $0.score(items(["die once", "die", "1"]))
        }
        #expect(outcomes.map(\.score) == [7, nil, 1])
        #expect(try await RewardFile(stubborn).run { await $0.score(items(["die once"]))[0].score } == nil)
    }

    @Test func aWorkerThatDiedIdleCostsNoItem() async throws {
        let score = try await RewardFile(stubborn).run { reward in
            let process = Int(await reward.score(items(["die later"]))[0].score ?? 0)
            while isRunning(process) { try await Task.sleep(for: .milliseconds(5)) }
            return await reward.score(items(["5"]))[0].score
        }
        #expect(score == 5)
    }

    @Test func cancellationEndsTheWorkAndTheProcesses() async throws {
        let file = try RewardFile(stubborn)
        try await file.run({ $0.deadline = .seconds(1000) }) { reward in
            let scoring = Task { await reward.score(items(["hang", "1", "2"])) }
            let processes = try await file.text(of: "pids").split(separator: " ").compactMap { Int($0) }
            #expect(processes.count == 2 && processes.allSatisfy(isRunning))
            scoring.cancel()
            let outcomes = await scoring.value
            #expect(outcomes.map { $0.failure?.kind } == [.cancelled, .cancelled, .cancelled])
            while processes.contains(where: isRunning) { try await Task.sleep(for: .milliseconds(5)) }
            #expect(await reward.score(items(["3"]))[0].score == 3, "the pool goes on")
            let cancelledBefore = Task {
                withUnsafeCurrentTask { $0?.cancel() }
                return await reward.score(items(["hang"]))
            }
            #expect(await cancelledBefore.value[0].failure?.kind == .cancelled)
        }
    }

    @Test func shutdownEndsWhatRuns() async throws {
        let file = try RewardFile(stubborn)
        var configuration = PythonRewardConfiguration(file: file.path)
        configuration.workers = 1
        configuration.deadline = .seconds(1000)
        let reward = try await PythonReward(configuration)
        let scoring = Task { await reward.score(items(["hang", "1"])) }
        let processes = try await file.text(of: "pids").split(separator: " ").compactMap { Int($0) }
        await reward.shutdown()
        #expect(await scoring.value.map { $0.failure?.kind } == [.cancelled, .cancelled])
        while processes.contains(where: isRunning) { try await Task.sleep(for: .milliseconds(5)) }
        #expect(await reward.score(items(["1"]))[0].failure?.kind == .cancelled)
    }

    @Test func aRewardThatIsDroppedEndsItsWorkers() async throws {
        let file = try RewardFile(
            "import os\ndef compute_score(data_source, solution_str, ground_truth, extra_info): return os.getpid()")
        func processOfADroppedReward() async throws -> Int {
            let reward = try await PythonReward(PythonRewardConfiguration(file: file.path))
            return Int(await reward.score(items([""]))[0].score ?? 0)
        }
        let process = try await processOfADroppedReward()
        #expect(process > 0)
        while isRunning(process) { try await Task.sleep(for: .milliseconds(5)) }
    }

    /// The parent dies of SIGKILL while the reward hangs: nobody reads, writes or waits any more.
    @Test func workersDieWithTheirParent() async throws {
        let file = try RewardFile(stubborn)
        let parent = Process()
        parent.executableURL = URL(filePath: "/usr/bin/env")
        parent.arguments = [
            "python3", "-c",
            """
            import json, os, struct, subprocess, sys
            worker = subprocess.Popen(
                ['python3', '-c', sys.argv[1], str(os.getpid()), sys.argv[2], 'compute_score', '0', '9', '99'],
                stdin=subprocess.PIPE)
            body = json.dumps({'data_source': '', 'solution_str': 'hang', 'ground_truth': ''}).encode()
            worker.stdin.write(struct.pack('>I', len(body)) + body)
            worker.stdin.flush()
            while not os.path.exists(os.path.dirname(sys.argv[2]) + '/pids'): pass
            os.kill(os.getpid(), 9)
            """, PythonDriver.source, file.path,
        ]
        parent.standardOutput = FileHandle.nullDevice
        try parent.run()
        let processes = try await file.text(of: "pids").split(separator: " ").compactMap { Int($0) }
        while isRunning(processes[0]) { try await Task.sleep(for: .milliseconds(5)) }
        kill(pid_t(processes[1]), SIGKILL)
    }
}

/// Files that cannot be used are errors before any work.
@Suite(.timeLimit(.minutes(20))) struct PythonRewardStartTests {
    @Test(arguments: [
        ("def compute_score(:\n    pass", ["SyntaxError", "reward.py", "line 1"]),
        ("import no_such_module_of_anyone", ["ModuleNotFoundError", "no_such_module_of_anyone", "line 1"]),
        ("def score(a): return 1", ["has no function 'compute_score'", "it has: score"]),
        ("compute_score = 5", ["has no function 'compute_score'", "it has: none"]),
        ("import sys\nsys.exit('not today')", ["SystemExit", "not today"]),
        ("import os, sys\nprint('why', file=sys.stderr)\nos._exit(9)", ["exit code 9", "why"]),
        ("raise BaseException('odd')", ["BaseException: odd"]),
    ])
    func pythonsMessageIsShown(source: String, parts: [String]) async throws {
        let error = try #require(await RewardFile(source).startError { $0.workers = 2 })
        #expect(error.code == .badRewardFile)
        for part in parts { #expect(error.message.contains(part), "\(error.message)") }
        #expect(!error.message.contains("<string>"), "the driver's own frames are nobody's business: \(error.message)")
    }

    @Test func aFileThatNeverLoadsIsAnError() async throws {
        let file = try RewardFile("import time\ntime.sleep(1000)")
        let error = await file.startError { $0.startDeadline = .milliseconds(500) }
        #expect(error?.code == .badRewardFile)
        #expect(error?.message.contains("did not load within") == true)
    }

    @Test func aMissingFileAndInterpreterAreErrors() async throws {
        let missing = await #expect(throws: RewardError.self) {
            _ = try await PythonReward(PythonRewardConfiguration(file: "/nonexistent/reward.py"))
        }
        #expect(missing?.message.contains("/nonexistent/reward.py") == true)
        let file = try RewardFile("def compute_score(**all): return 1")
        #expect(await file.startError { $0.interpreter = "python-of-nobody" }?.code == .noInterpreter)
        #expect(await file.startError { $0.interpreter = "/nonexistent/python" }?.code == .noInterpreter)
        #expect(await file.startError { $0.interpreter = "/bin/true" }?.code == .badRewardFile)
        #expect(await file.startError { $0.workers = 0 }?.code == .badSetting)
    }

    @Test func aFileThatBreaksLaterFailsItemsAndDoesNotHang() async throws {
        let file = try RewardFile("import os\ndef compute_score(**all): os._exit(1)")
        let outcomes = try await file.run { reward in
            try Data("raise ValueError('broken since')".utf8).write(to: URL(filePath: file.path))
            return await reward.score(items(["a", "b", "c"]))
        }
        #expect(outcomes.map { $0.failure?.kind } == [.workerDied, .workerDied, .workerDied])
        #expect(outcomes[2].failure?.message.contains("broken since") == true)
    }

    @Test func cancellingTheStartEndsIt() async throws {
        let file = try RewardFile(
            "import os, time\nopen('p', 'w').write(str(os.getpid()))\nos.rename('p', 'pid')\ntime.sleep(1000)")
        var configuration = PythonRewardConfiguration(file: file.path)
        configuration.workers = 1
        let starting = Task { [configuration] in try await PythonReward(configuration) }
        let process = try #require(Int(try await file.text(of: "pid")))
        starting.cancel()
        await #expect(throws: CancellationError.self) { _ = try await starting.value }
        while isRunning(process) { try await Task.sleep(for: .milliseconds(5)) }
    }
}

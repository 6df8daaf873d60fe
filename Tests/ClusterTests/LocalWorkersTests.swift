import Cluster
import Flow
import Foundation
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// Workers in processes of their own, and what becomes of them.
@Suite(.timeLimit(.minutes(20))) struct LocalWorkersTests {
    private func withProcesses<Result: Sendable>(
        _ count: Int, lostAfter: Duration = .seconds(60),
        _ body: ([RemoteWorker], WorkerLines) async throws -> Result
    ) async throws -> Result {
        var settings = TransportSettings()
        settings.beat = .milliseconds(100)
        settings.lostAfter = lostAfter
        let registry = WorkerRegistry(settings), lines = WorkerLines(), host = try parrotHost(lines)
        let result: Swift.Result<Result, any Error>
        do {
            result = .success(
                try await registry.run(host: "127.0.0.1") { controller in
                    let workers = try await registry.start(
                        (0..<count).map { parrotPlan("parrot \($0)") }, on: host, at: controller,
                        deadline: .seconds(120))
                    defer { for worker in workers { worker.stop() } }
                    return try await body(workers, lines)
                })
        } catch { result = .failure(error) }
        await host.shutdown()
        return try result.get()
    }

    private func isRunning(_ process: Int32) -> Bool {
        guard let status = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8) else { return false }
        let state = status.split(separator: ")").last?.split(separator: " ").first
        return state != "Z" && state != "X"
    }

    @Test func processesCarryOutCallsAndNoneIsLeft() async throws {
        let processes = try await withProcesses(2) { workers, _ in
            #expect(try await group(workers).call(Repeat(text: "x")) == ["x", "x"])
            let kept = try await group(workers).call(Keep(count: 3, size: 100), .only(0), .first)
            #expect(try await group(workers).call(Pull(reference: kept), .only(1), .first)[0] == 303)
            return workers.map(\.processID)
        }
        #expect(Set(processes).count == 2 && !processes.contains(getpid()))
        #expect(!processes.contains(where: isRunning))
    }

    @Test func aKilledWorkerIsNamed() async throws {
        try await withProcesses(2) { workers, _ in
            let pending = try group(workers).issue(Wait(seconds: 1000), .broadcast, .nothing)
            while workers[1].lastPulse?.call != "Wait" { try await Task.sleep(for: .milliseconds(10)) }
            kill(workers[1].processID, SIGKILL)
            let failure = await #expect(throws: WorkerCallError.self) { try await pending.value }
            let error = try #require(failure)
            #expect(error.code == .lost && error.worker == "parrot 1")
            #expect(error.message.contains("parrot 1 (process \(workers[1].processID)) was killed by SIGKILL"))
            // The other one goes on.
            #expect(try await group([workers[0]]).call(Repeat(text: "x")) == ["x"])
        }
    }

    @Test(arguments: [false, true]) func aCrashComesWithItsExitAndLastWords(aborts: Bool) async throws {
        try await withProcesses(1) { workers, lines in
            let failure = await #expect(throws: WorkerCallError.self) {
                _ = try await group(workers).call(Die(aborts: aborts, code: 7))
            }
            let error = try #require(failure)
            #expect(error.code == .lost && error.message.contains("these are my last words"))
            #expect(error.message.contains(!aborts ? "ended with exit code 7" : "was killed by SIGABRT"))
            #expect(error.exitCode == (aborts ? nil : 7))
            #expect(lines.text.contains("parrot 0: these are my last words"))
        }
    }

    @Test func aStoppedWorkerIsLostWithinItsTime() async throws {
        try await withProcesses(1, lostAfter: .seconds(45)) { workers, _ in
            #expect(try await group(workers).call(Repeat(text: "x")) == ["x"])
            let pending = try group(workers).issue(Wait(seconds: 1000), .broadcast, .nothing)
            while workers[0].lastPulse?.call != "Wait" { try await Task.sleep(for: .milliseconds(10)) }
            kill(workers[0].processID, SIGSTOP)
            let failure = await #expect(throws: WorkerCallError.self) { try await pending.value }
            let error = try #require(failure)
            #expect(error.message.contains("is stopped and has shown no life for 45 s; it was doing Wait"))
        }
    }

    @Test func aWorkerThatEndsBeforeItRegistersIsAnError() async throws {
        let registry = WorkerRegistry(TransportSettings())
        let host = try LocalWorkers(executable: "/bin/sh", environment: [:]) { _, _, _ in }
        try await registry.run(host: "127.0.0.1") { controller in
            let plans = [
                WorkerProcessPlan(name: "good", arguments: ["-c", "sleep 1000"]),
                WorkerProcessPlan(name: "bad", arguments: ["-c", "echo no luck >&2; exit 3"]),
            ]
            let failure = await #expect(throws: WorkerCallError.self) {
                _ = try await registry.start(plans, on: host, at: controller, deadline: .seconds(60))
            }
            let error = try #require(failure)
            #expect(error.worker == "bad" && error.message.contains("exit code 3") && error.message.contains("no luck"))
            let late = await #expect(throws: WorkerCallError.self) {
                _ = try await registry.start([plans[0]], on: host, at: controller, deadline: .milliseconds(200))
            }
            #expect(late?.message.contains("has not registered") == true)
        }
        await host.shutdown()
        let none = try LocalWorkers(executable: "/no/such/program", environment: [:]) { _, _, _ in }
        await #expect(throws: ClusterError.self) { _ = try await none.start(parrotPlan("x")) }
        await none.shutdown()
        await #expect(throws: ClusterError.self) { _ = try await none.start(parrotPlan("x")) }
    }

    @Test func aWorkerWithoutControllerEnds() async throws {
        // One whose controller says nothing more: it registers, and hears no heartbeat.
        var settings = TransportSettings()
        settings.lostAfter = .milliseconds(300)
        let registry = WorkerRegistry(settings), host = try parrotHost(WorkerLines())
        let process = try await registry.run(host: "127.0.0.1") { controller in
            var plan = parrotPlan("parrot")
            plan.environment = WorkerPlace(name: "parrot", controller: controller, settings: settings).variables
            async let waiting = registry.await(["parrot"], deadline: .seconds(120))
            let process = try await host.start(plan)
            for worker in try await waiting { worker.stop() }
            return process
        }
        #expect(await process.ended().exit == .exited(0))
        await host.shutdown()
    }
}

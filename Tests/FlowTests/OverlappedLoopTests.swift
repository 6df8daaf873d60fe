import Flow
import Synchronization
import Telemetry
import Testing

@Suite struct OverlappedLoopTests {
    static let modes = OverlapSettings.Mode.allCases

    @Test(arguments: modes) func `Every mode learns from each prompt once, within its staleness`(
        _ mode: OverlapSettings.Mode
    ) async throws {
        let run = FakeRun(batch: 4)
        let overlap = OverlapSettings(mode: mode, groupsPerStep: 4, groupsPerUpdate: 2, maxStaleness: 3)
        let state = try await run.loop(6, overlap).run(from: nil)
        #expect(state.step == 6)
        let prompts = run.learnedPrompts.flatMap { $0 }
        #expect(prompts.count == 24 && Set(prompts).count == 24)
        if mode != .fullyAsync { #expect(Set(prompts) == Set((0..<24).map(String.init))) }
        for (index, staleness) in run.values("async/staleness/max").enumerated() {
            #expect((staleness ?? 99) <= Double(overlap.maxStaleness), "step \(index + 1)")
        }
        if mode == .synchronous || mode == .streaming {
            #expect(run.values("async/staleness/max") == Array(repeating: 0, count: 6))
        }
        #expect(run.notes.withLock { $0.learned.count } == (mode == .streaming ? 12 : 6))
    }

    @Test func `Streaming learns while the step's last prompts are still being answered`() async throws {
        // Prompt 3 is answered only once the first two have been learned from.
        let run = FakeRun(batch: 4, slow: ["3"]) { run, update in if update == 1 { run.release("3") } }
        let overlap = OverlapSettings(mode: .streaming, groupsPerStep: 4, groupsPerUpdate: 2)
        _ = try await run.loop(1, overlap).run(from: nil)
        #expect(run.learnedPrompts.map { $0.count } == [2, 2])
        #expect(run.learnedPrompts[1].contains("3"))
    }

    @Test func `One step off answers the next prompts before this step has learned, and its weights wait for them`()
        async throws
    {
        // Were prompts 2 and 3 begun only after the first update, nobody would ever let them go.
        let run = FakeRun(batch: 2, slow: ["2", "3"]) { run, update in
            guard update == 1 else { return }
            while run.notes.withLock({ $0.slow.count }) < 2 { await Task.yield() }
            run.release("2")
            run.release("3")
        }
        _ = try await run.loop(3, OverlapSettings(mode: .oneStepOff, groupsPerStep: 2)).run(from: nil)
        #expect(run.learnedPrompts == [["0", "1"], ["2", "3"], ["4", "5"]])
        #expect(run.notes.withLock { $0.installs.map(\.underWay) } == [0, 0])
    }

    @Test func `Fully asynchronous learning does not wait for a straggler, and gives it up when it is too old`()
        async throws
    {
        let run = FakeRun(batch: 2, slow: ["0"]) { run, update in
            guard update == 4 else { return }
            run.release("0")
            while run.notes.withLock({ $0.underWay.contains("0") }) { await Task.yield() }
        }
        let overlap = OverlapSettings(mode: .fullyAsync, groupsPerStep: 2, maxStaleness: 1)
        let state = try await run.loop(7, overlap).run(from: nil)
        #expect(state.step == 7)
        #expect(!run.learnedPrompts.joined().contains("0"))
        #expect(run.values("async/stale_groups").last == 1)
    }

    @Test func `The slowest of over-sampled prompts are given up and counted`() async throws {
        let run = FakeRun(batch: 3, slow: ["1"])
        let overlap = OverlapSettings(mode: .synchronous, groupsPerStep: 2, overSampling: 0.5)
        _ = try await run.loop(2, overlap).run(from: nil)
        #expect(Set(run.learnedPrompts[0]) == ["0", "2"])
        #expect(run.values("async/cut_groups").last == 2)
    }

    @Test func `Groups without a score are left out, and steps go on`() async throws {
        let run = FakeRun(batch: 2, unscored: ["1", "2", "3"])
        let state = try await run.loop(
            3, OverlapSettings(mode: .streaming, groupsPerStep: 2, groupsPerUpdate: 2)
        ).run(from: nil)
        #expect(run.learnedPrompts == [["0"], ["4", "5"]])
        #expect(state.step == 3)
        #expect(run.values("async/unscored_groups").last == 3)
    }

    @Test(arguments: modes) func `What goes wrong among the answers ends the run`(_ mode: OverlapSettings.Mode) async {
        let run = FakeRun(batch: 2, slow: ["5"], broken: "4")
        await #expect(throws: FakeRun.Broken.self) {
            try await run.loop(9, OverlapSettings(mode: mode, groupsPerStep: 2)).run(from: nil)
        }
        #expect(run.notes.withLock { $0.underWay.isEmpty })
    }

    @Test(arguments: modes) func `A run that was stopped goes on without losing a prompt or taking one twice`(
        _ mode: OverlapSettings.Mode
    ) async throws {
        let overlap = OverlapSettings(mode: mode, groupsPerStep: 2, maxStaleness: 2)
        let first = FakeRun(batch: 2, stopsAfter: 3)
        let state = try await first.loop(6, overlap).run(from: nil)
        #expect(state.step == 3 && first.saves.last == state)
        let second = FakeRun(batch: 2)
        _ = try await second.loop(6, overlap).run(from: state)
        let prompts = (first.learnedPrompts + second.learnedPrompts).flatMap { $0 }
        #expect(prompts.count == 12 && Set(prompts).count == 12)
        // The draws of a group are those of its number, whoever asks and when.
        let whole = FakeRun(batch: 2)
        _ = try await whole.loop(6, overlap).run(from: nil)
        func seeds(_ runs: FakeRun...) -> [String: String] {
            runs.reduce(into: [:]) { all, run in
                for trajectory in run.notes.withLock({ $0.learned }).joined() {
                    all[trajectory.prompt.text] = trajectory.text
                }
            }
        }
        let interrupted = seeds(first, second), one = seeds(whole)
        for (prompt, seed) in interrupted where one[prompt] != nil { #expect(one[prompt] == seed) }
    }

    /// Of groups that ended before the stop and are learned from after it too.
    @Test(arguments: modes) func `What rewards say of a step's groups is told once, in its step`(
        _ mode: OverlapSettings.Mode
    ) async throws {
        let overlap = OverlapSettings(mode: mode, groupsPerStep: 2, groupsPerUpdate: 1, maxStaleness: 9)
        let first = FakeRun(batch: 2, stopsAfter: 3), second = FakeRun(batch: 2)
        let state = try await first.loop(6, overlap).run(from: nil)
        _ = try await second.loop(6, overlap).run(from: state)
        for run in [first, second] {
            #expect(run.values("reward/groups") == [2, 2, 2])
            #expect(run.values("reward/baseline/mean") == [0.25, 0.25, 0.25])
        }
    }
}

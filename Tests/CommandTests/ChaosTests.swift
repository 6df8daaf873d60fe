import Foundation
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// A run of two ranks among faults that come at random, by a seed: ranks killed and stopped, the controller killed. It must end with
    /// every step done once, and numbers that are those of a run that nothing befell.
    ///
    /// `FLEDGE_CHAOS_SECONDS=600` has a longer run, with a fault every `FLEDGE_CHAOS_PERIOD` (20) seconds.
    @Suite struct ChaosTests {
        enum Fault: String, CaseIterable, Sendable {
            case killRank, stopRank, killController, killRankWhileSaving
        }

        static let settings = [
            "trainer.n_gpus_per_node=2", "trainer.save_freq=1", "trainer.test_freq=-1", "trainer.nccl_timeout=3",
            "trainer.max_restarts=1000", "trainer.max_actor_ckpt_to_keep=2",
        ]

        @Test func aRunAmongFaultsEndsAsOneWithoutThem() async throws {
            let variables = ProcessInfo.processInfo.environment
            let seconds = variables["FLEDGE_CHAOS_SECONDS"].flatMap(Double.init)
            let period = variables["FLEDGE_CHAOS_PERIOD"].flatMap(Double.init) ?? 20
            var generator = SeededGenerator(state: variables["FLEDGE_CHAOS_SEED"].flatMap(UInt64.init) ?? 7)

            // So many steps that the run lasts as long as is asked for: measured on the undisturbed one.
            let whole = try Workspace()
            let short = seconds == nil
            var steps = 10
            if let seconds {
                let start = ContinuousClock.now
                let probe = try await whole.train(Self.settings + ["trainer.total_training_steps=40"])
                #expect(probe.exitCode == 0, "\(probe)")
                steps = max(20, Int(40 * seconds / ((ContinuousClock.now - start) / .seconds(1))))
                try whole.removeRun()
            }
            let length = ["trainer.total_training_steps=\(steps)"]
            let undisturbed = try await whole.train(Self.settings + length)
            #expect(undisturbed.exitCode == 0, "\(undisturbed)")

            let workspace = try Workspace()
            var faults: [Fault] = []
            var left = short ? Fault.allCases.shuffled(using: &generator) : []
            var attempts = 0
            while attempts < steps * 4 {
                attempts += 1
                let plan = short ? left : Array(repeating: Fault.killRank, count: 1 << 16)
                let seeds = generator
                let told = Told()
                let outcome = try await workspace.train(Self.settings + length) { process in
                    var generator = seeds
                    for next in plan {
                        let fault = short ? next : Fault.allCases.randomElement(using: &generator) ?? next
                        if short {
                            // At a step that is decided, not at a time.
                            let step = workspace.stepsWritten + 1
                            guard
                                try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= step })
                            else { return }
                        } else {
                            try await Task.sleep(for: .seconds(period))
                            guard FledgeProcess.isRunning(process) else { return }
                        }
                        if fault == .killRankWhileSaving {
                            _ = try await FledgeProcess.wait(process) { !workspace.checkpoints("tmp-step").isEmpty }
                        }
                        let ranks = children(of: process)
                        guard let rank = ranks.randomElement(using: &generator) else { return }
                        told.note(fault)
                        switch fault {
                        case .killRank, .killRankWhileSaving: Glibc.kill(rank, SIGKILL)
                        case .stopRank: Glibc.kill(rank, SIGSTOP)
                        case .killController:
                            Glibc.kill(process, SIGKILL)
                            return
                        }
                        // Until the ranks that were there are gone, another fault would be of the same loss.
                        _ = try await FledgeProcess.wait(process) { !ranks.contains(where: FledgeProcess.isRunning) }
                    }
                }
                faults += told.all
                left = Array(left.dropFirst(told.all.count))
                _ = generator.next()
                if outcome.exitCode == 0 { break }
                // The controller's own death is the one thing that somebody else has to heal.
                #expect(outcome.wasKilled, "\(outcome)")
                guard outcome.wasKilled else { return }
            }
            #expect(!faults.isEmpty && (!short || faults.count == Fault.allCases.count), "\(faults)")
            #expect(try workspace.history().map(\.step) == Array(1...steps))
            #expect(try workspace.metrics() == whole.metrics(), "after \(faults)")
            #expect(try workspace.run.readSummary()?.status == .finished)
            if !short { print("chaos: \(faults.count) faults in \(steps) steps, \(attempts) starts of the controller") }
        }

        private final class Told: @unchecked Sendable {
            private let lock = NSLock()
            private var faults: [Fault] = []
            func note(_ fault: Fault) { lock.withLock { faults.append(fault) } }
            var all: [Fault] { lock.withLock { faults } }
        }
    }
}

private struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

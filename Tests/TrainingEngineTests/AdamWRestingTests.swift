import Models
import TensorCore
import Testing

@testable import TrainingEngine

/// An optimizer whose states lie in host memory between steps does what one does that keeps them.
@Suite struct AdamWRestingTests {
    private static let storages = [
        (MomentType.float32, true), (.float32, false), (.bfloat16, true), (.bfloat16, false), (.int8, true),
        (.int8, false),
    ]

    private func trainer(_ type: MomentType, _ masters: Bool) throws -> PolicyTrainer {
        try EightBitMomentTests().trainer(type, masters: masters)
    }

    private func step(_ trainer: PolicyTrainer) throws {
        _ = try trainer.update(PolicyTrainerTests.samples, loss: PolicyTrainerTests.loss)
    }

    private func expectEqual(_ a: PolicyTrainer, _ b: PolicyTrainer) throws {
        for (a, b) in zip(try a.optimizer.state(), try b.optimizer.state()) {
            #expect(try a.name == b.name && a.tensor.equals(b.tensor), "\(a.name)")
        }
        for (a, b) in zip(a.model.parameters, b.model.parameters) { #expect(try a.tensor.equals(b.tensor)) }
        #expect(a.optimizer.stepCount == b.optimizer.stepCount)
    }

    /// Before the first step there are no moments; a step brings back what rests by itself.
    @Test(arguments: storages)
    func restingChangesNoBit(type: MomentType, masters: Bool) throws {
        let stays = try trainer(type, masters), rests = try trainer(type, masters), optimizer = rests.optimizer
        try optimizer.rest()
        for count in 1...3 {
            for trainer in [stays, rests] { try step(trainer) }
            #expect(!optimizer.isResting)
            try optimizer.rest()
            try optimizer.rest()
            // The test's model has tensors too small for codes, and all states rest.
            #expect(optimizer.isResting && optimizer.restingBytes == optimizer.stateBytes)
            try expectEqual(rests, stays)
            #expect(optimizer.isResting && optimizer.stepCount == count)
        }
        #expect(optimizer.restingTraffic.bytes > 0)
        try optimizer.wake()
        try expectEqual(rests, stays)
    }

    /// Saved while they rest, and put back where others rest; before any step too.
    @Test(arguments: storages)
    func restingStatesAreSavedAndPutBack(type: MomentType, masters: Bool) throws {
        for steps in [0, 2] {
            let first = try trainer(type, masters), second = try trainer(type, masters)
            for _ in 0..<steps { try step(first) }
            try first.optimizer.rest()
            var saved: [String: Tensor] = [:]
            for (name, tensor) in try first.optimizer.state() { saved[name] = try tensor.cloned() }
            #expect(first.optimizer.isResting)
            try step(second)
            try second.optimizer.rest()
            try second.optimizer.restore(stepCount: steps) { try #require(saved[$0]) }
            #expect(second.optimizer.isResting)
            try expectEqual(second, first)
            for trainer in [first, second] { try step(trainer) }
            try expectEqual(second, first)
        }
    }

    /// States whose weights are away are not read as if they were there.
    @Test func statesOfRestingWeightsAreRefused() throws {
        let trainer = try trainer(.float32, true)
        try step(trainer)
        let weights = RestingTensors(trainer.model.parameters.map(\.tensor))
        try weights.rest()
        #expect(throws: TorchError.self) { try trainer.optimizer.state() }
        _ = try weights.awake { try trainer.optimizer.state() }
    }
}

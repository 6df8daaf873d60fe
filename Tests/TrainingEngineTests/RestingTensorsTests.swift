import TensorCore
import Testing
import TrainingEngine

@Suite struct RestingTensorsTests {
    private struct Broken: Error {}

    private func tensors() throws -> [Tensor] {
        let generator = try RandomGenerator(seed: 3)
        return try [[5, 7], [11], [1, 1]].map { try Tensor.randomNormal($0, generator: generator) }
    }

    @Test func theMemoryIsGivenBackAndTheWeightsComeAgain() throws {
        let weights = try tensors(), before = try weights.map { try $0.digest() }
        let bytes = weights.reduce(0) { $0 + $1.storageByteCount }
        let resting = RestingTensors(weights)
        #expect(resting.byteCount == bytes && !resting.isResting)
        for _ in 0..<2 {
            try resting.rest()
            try resting.rest()
            #expect(resting.isResting && weights.allSatisfy { $0.storageByteCount == 0 })
            let found = try resting.awake { try weights.map { try $0.digest() } }
            #expect(found == before && resting.isResting)
        }
        try resting.wake()
        #expect(try weights.map { try $0.digest() } == before)
    }

    @Test func theyRestAgainWhateverHappens() throws {
        let weights = try tensors(), resting = RestingTensors(weights)
        try resting.rest()
        #expect(throws: Broken.self) { try resting.awake { throw Broken() } }
        #expect(resting.isResting && weights.allSatisfy { $0.storageByteCount == 0 })
    }

    /// A view of what rests comes with it: a model's layers hold such.
    @Test func viewsSeeWhatComes() throws {
        let whole = try tensors()[0], view = try whole.detached(), before = try whole.digest()
        let resting = RestingTensors([whole])
        try resting.rest()
        #expect(view.storageByteCount == 0)
        #expect(try resting.awake { try view.digest() } == before)
    }

    /// What was written to goes back once; what was not is only let go.
    @Test func whatChangesGoesBack() throws {
        let all = try tensors(), resting = RestingTensors(all), bytes = resting.byteCount
        try resting.rest()
        #expect(resting.traffic.bytes == bytes)
        try resting.awake {}
        #expect(resting.traffic.bytes == 2 * bytes)
        try resting.awake {
            resting.change()
            for tensor in all { try tensor.scale(by: 3) }
        }
        #expect(resting.traffic.bytes == 4 * bytes)
        let expected = try tensors()
        for (tensor, other) in zip(all, expected) {
            try other.scale(by: 3)
            #expect(try resting.current(tensor).equals(other) && tensor.storageByteCount == 0)
        }
        try resting.wake()
        for (tensor, other) in zip(all, expected) {
            #expect(try tensor.equals(other) && resting.current(tensor).isSame(as: tensor))
        }
    }

    /// The memory of others is not given away, and a tensor of two names goes once.
    @Test func whatIsNotAloneInItsMemoryStays() throws {
        let whole = try tensors()[0], part = try whole.narrowed(0, 0..<2), own = try tensors()[1]
        let resting = RestingTensors([part, own, try own.detached()])
        #expect(resting.byteCount == own.byteCount)
        try resting.rest()
        #expect(whole.storageByteCount == whole.byteCount && own.storageByteCount == 0)
    }
}

import TensorCore
import Testing
import TrainingEngine

@Suite struct RestingWeightsTests {
    private struct Broken: Error {}

    private func tensors() throws -> [Tensor] {
        let generator = try RandomGenerator(seed: 3)
        return try [[5, 7], [11], [1, 1]].map { try Tensor.randomNormal($0, generator: generator) }
    }

    @Test func theMemoryIsGivenBackAndTheWeightsComeAgain() throws {
        let weights = try tensors(), before = try weights.map { try $0.digest() }
        let bytes = weights.reduce(0) { $0 + $1.storageByteCount }
        let resting = try RestingWeights(weights)
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
        let weights = try tensors(), resting = try RestingWeights(weights)
        try resting.rest()
        #expect(throws: Broken.self) { try resting.awake { throw Broken() } }
        #expect(resting.isResting && weights.allSatisfy { $0.storageByteCount == 0 })
    }

    /// A view of what rests comes with it: a model's layers hold such.
    @Test func viewsSeeWhatComes() throws {
        let whole = try tensors()[0], view = try whole.detached(), before = try whole.digest()
        let resting = try RestingWeights([whole])
        try resting.rest()
        #expect(view.storageByteCount == 0)
        #expect(try resting.awake { try view.digest() } == before)
    }
}

import Collectives
import Models
import RolloutCore
import RolloutEngine
import TensorCore
import TestSupport
import Testing

/// Ranks that share a model draw, each for itself and in step with the others, what one process draws.
@Suite struct ParallelRolloutTests {
    private static func model(_ parallel: ParallelContext = ParallelContext()) throws -> LlamaModel {
        let config = LlamaConfig(
            shape: ModelShape(
                vocabulary: 61, hidden: 32, layers: 2, queryHeads: 4, keyValueHeads: 2, headDim: 16, maxPositions: 128),
            intermediate: 48, normEps: 1e-5, rotary: RotaryFrequencies(headDim: 16, theta: 10000), tiedEmbeddings: true)
        return try LlamaModel(
            config,
            ParameterBuilder(
                source: RandomWeights(seed: 3, standardDeviation: 0.3, byName: true), dtype: .float32, device: .cpu,
                parallel: parallel))
    }

    @Test(arguments: [2, 4], [RolloutEngine.Options(), .init(maxRows: 3, maxStepTokens: 8, prefillChunk: 4)])
    func tokensAreThoseOfOneProcess(size: Int, options: RolloutEngine.Options) throws {
        let requests = [[3], [7, 9, 11], [3], [50, 1]].enumerated().map { index, tail in
            RolloutRequest(
                prompt: (0..<12).map { Int32($0 * 5 % 61) } + tail,
                sampling: SamplingParameters(
                    n: 3, temperature: index == 0 ? 0 : 0.9, topP: index == 1 ? 0.9 : 1, maxTokens: 9,
                    stopTokenIDs: [4],
                    seed: UInt64(index)))
        }
        let expected = try RolloutEngine(model: Self.model(), options: options).generate(requests)
        let wanted = expected.map { $0.map(\.tokens) }, logProbs = expected.flatMap { $0.flatMap(\.logProbs) }
        let store = try RendezvousStore.local()
        try onRanks(size) { rank in
            let mesh = DeviceMesh(MeshShape([.tensor: size]), rank: rank, store: store)
            let model = try Self.model(ParallelContext(mesh, sequenceParallel: true))
            let engine = RolloutEngine(model: model, options: options)
            let samples = try engine.generate(requests)
            #expect(samples.map { $0.map(\.tokens) } == wanted)
            for (own, other) in zip(samples.flatMap({ $0.flatMap(\.logProbs) }), logProbs) {
                #expect(abs(own - other) < 2e-5)
            }
            #expect(KeyValueCache.bytesPerToken(model) == 2 * max(1, 2 / size) * 2 * 16 * 4)
        }
    }
}

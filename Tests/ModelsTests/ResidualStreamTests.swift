import TensorCore
import Testing

@testable import Models

/// The residual stream is the plain sum, however late it is added up.
@Suite struct ResidualStreamTests {
    let generator: RandomGenerator
    init() throws { generator = try RandomGenerator(seed: 3) }

    func random(_ shape: [Int] = [3, 16]) throws -> Tensor { try Tensor.randomNormal(shape, generator: generator) }

    func norm(_ convention: RMSNorm.Convention = .plain) throws -> RMSNorm {
        let builder = ParameterBuilder(
            source: try RandomWeights(seed: 4, standardDeviation: 0.5), dtype: .float32, device: .cpu)
        let norm = try RMSNorm(builder, "a", size: 16, eps: 1e-5, convention: convention)
        _ = try builder.finish()
        return norm
    }

    @Test func sumsAndNormsAreThoseOfSeparateSteps() throws {
        let before = try norm(.unitOffset), after = try norm()
        let x = try random(), deltas = try (0..<4).map { _ in try random() }
        var stream = ResidualStream(x)
        #expect(try stream.normed(by: after).equals(after(x)))
        // Added twice without being read between, once scaled, once normed.
        try stream.add(deltas[0])
        try stream.add(deltas[1], multiplier: 0.5)
        var sum = try x.adding(deltas[0]).adding(deltas[1].multiplied(by: 0.5))
        #expect(try stream.normed(by: after).equals(after(sum)))
        #expect(try stream.sum().equals(sum))
        try stream.add(deltas[2], norm: before)
        sum = try sum.adding(before(deltas[2]))
        #expect(try stream.sum().equals(sum))
        try stream.add(deltas[3])
        #expect(try stream.finished(by: after).equals(after(sum.adding(deltas[3]))))
    }

    @Test(arguments: FamilyTests.families) func observersChangeNothing(family: FamilyTests.Family) throws {
        let model = try family.model()
        let ids = try Tensor((0..<10).map { Int64($0 * 7 % 61) }), positions = try Tensor.arange(0..<10)
        let attention = PackedAttention(segments: [PackedSegment(start: 0, length: 10)])
        var seen: [Int: Tensor] = [:]
        let (watched, alone) = try withNoGrad {
            (
                try model.hiddenStates(ids: ids, positions: positions, attention: attention) { seen[$0] = $1 },
                try model.hiddenStates(ids: ids, positions: positions, attention: attention)
            )
        }
        #expect(try watched.equals(alone))
        #expect(seen.keys.sorted() == Array(0...model.shape.layers))
        #expect(try #require(seen[model.shape.layers]).equals(alone))
    }

    /// Where no kernel stores keys and values, `attend` does, whatever places the backend names.
    @Test func targetsAreForKernelsOnly() throws {
        struct Named: AttentionBackend {
            let inner: PackedAttention
            func attend(
                layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind
            ) throws -> Tensor {
                try inner.attend(layer: layer, query: query, key: key, value: value, kind: kind)
            }
            func extents() -> [SequenceExtent] { inner.extents() }
            func target(layer: Int) -> KeyValueTarget? {
                guard let pool = try? Tensor.zeros([10, 2, 8]), let slots = try? Tensor((0..<10).map(Int32.init)) else {
                    return nil
                }
                return KeyValueTarget(keys: pool, values: pool, slots: slots)
            }
            func attendStored(
                layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind
            ) throws -> Tensor {
                Issue.record("nothing was stored")
                return query
            }
        }
        let model = try FamilyTests.families[0].model()
        let ids = try Tensor((0..<10).map { Int64($0 * 5 % 61) }), positions = try Tensor.arange(0..<10)
        let packed = PackedAttention(segments: [PackedSegment(start: 0, length: 10)])
        let (named, plain) = try withNoGrad {
            (
                try model.hiddenStates(ids: ids, positions: positions, attention: Named(inner: packed)),
                try model.hiddenStates(ids: ids, positions: positions, attention: packed)
            )
        }
        #expect(try named.equals(plain))
    }
}

import Models
import RolloutCore
import RolloutEngine
import TensorCore
import Testing

/// New weights from elsewhere, bucket by bucket.
@Suite struct WeightUpdateTests {
    typealias Bucket = [RolloutEngine.NamedTensor]

    let requests = (0..<4).map { seed in
        RolloutRequest(
            prompt: (0..<Int32(5 + 3 * seed)).map { $0 * 5 % 61 },
            sampling: SamplingParameters(n: 2, maxTokens: 10, seed: UInt64(seed)))
    }

    /// Another model's tensors in buckets of `size`, in an order of their own.
    func buckets(_ model: LlamaModel, size: Int) throws -> [Bucket] {
        let tensors = try Array(model.namedTensors().reversed())
        return stride(from: 0, to: tensors.count, by: size).map {
            Array(tensors[$0..<min($0 + size, tensors.count)])
        }
    }

    func addresses(_ model: LlamaModel) throws -> [UnsafeRawPointer?] {
        try model.parameters.map { try $0.tensor.detached().withUnsafeBytes { $0.baseAddress } }
    }

    @Test(arguments: [1, 2, 3, 7, 1000], [nil, WeightQuantization.int8PerChannel])
    func whatIsSampledThenIsAFreshEngines(size: Int, quantization: WeightQuantization?) throws {
        let (model, other) = (try tinyModel(seed: 3), try tinyModel(seed: 8))
        let engine = RolloutEngine(model: model, options: .init(quantization: quantization))
        let old = try engine.generate(requests)
        let places = try addresses(model), sent = try buckets(other, size: size)
        // The projections that the model holds as one come by their parts.
        let names = Set(sent.joined().map(\.name))
        #expect(names.contains("model.layers.1.self_attn.k_proj.weight"))
        #expect(names.contains("model.layers.0.mlp.up_proj.weight"))
        let update = try engine.updateWeights(version: 5, from: sent)
        #expect(update.version == 5 && engine.weightVersion == 5 && update.buckets == sent.count)
        #expect(update.tensors == names.count && update.bytes == other.parameterCount * 4)
        #expect(try addresses(model) == places)
        for (mine, theirs) in zip(model.parameters, other.parameters) { #expect(try mine.tensor.equals(theirs.tensor)) }

        let fresh = RolloutEngine(model: other, options: .init(quantization: quantization))
        fresh.weightVersion = 5
        let samples = try engine.generate(requests)
        #expect(try samples == fresh.generate(requests))
        #expect(samples.map { $0.map(\.tokens) } != old.map { $0.map(\.tokens) })
        #expect(samples.joined().allSatisfy { $0.weightVersions.allSatisfy { $0 == 5 } })
    }

    /// The sender's digest is the receiver's, however the tensors were put into buckets, and one bit shows.
    @Test func theDigestIsTheSenders() throws {
        let other = try tinyModel(seed: 8)
        var digest = WeightDigest()
        for (name, tensor) in try other.namedTensors() { try digest.add(name, tensor) }
        for (version, size) in [1, 4, 99].enumerated() {
            let engine = RolloutEngine(model: try tinyModel())
            let update = try engine.updateWeights(version: version + 1, from: buckets(other, size: size))
            #expect(update.digest == digest)
            #expect(update.digest?.description.utf8.count == 16)
        }
        var swapped = WeightDigest(), all = try other.namedTensors()
        let first = try #require(all.firstIndex { $0.name.hasSuffix("0.input_layernorm.weight") })
        let second = try #require(all.firstIndex { $0.name.hasSuffix("1.self_attn.k_proj.weight") })
        let third = try #require(all.firstIndex { $0.name.hasSuffix("1.self_attn.v_proj.weight") })
        (all[second].tensor, all[third].tensor) = (all[third].tensor, all[second].tensor)
        for (name, tensor) in all { try swapped.add(name, tensor) }
        #expect(swapped != digest)
        try withNoGrad { try all[first].tensor.scale(by: 1.0000002) }
        var changed = WeightDigest()
        for (name, tensor) in try other.namedTensors() { try changed.add(name, tensor) }
        #expect(changed != digest)
        let engine = RolloutEngine(model: try tinyModel())
        #expect(try engine.updateWeights(version: 1, from: buckets(other, size: 3), digests: false).digest == nil)
    }

    /// Weights of another type are converted.
    @Test func typesAreConverted() throws {
        let (model, other) = (try tinyModel(dtype: .bfloat16), try tinyModel(seed: 8))
        try RolloutEngine(model: model).updateWeights(version: 1, from: buckets(other, size: 2))
        for (mine, theirs) in zip(model.parameters, other.parameters) {
            #expect(try mine.tensor.equals(theirs.tensor.to(dtype: .bfloat16)))
        }
    }

    struct Fault: CustomTestStringConvertible {
        let testDescription: String
        let message: String
        let change: @Sendable (inout [Bucket]) throws -> Void
    }

    static let faults = [
        Fault(testDescription: "missing", message: "'model.norm.weight' is missing") { buckets in
            for place in buckets.indices { buckets[place].removeAll { $0.name == "model.norm.weight" } }
        },
        Fault(testDescription: "unknown", message: "'model.layers.2.x' is not part of the architecture") {
            $0[$0.count - 1].append(("model.layers.2.x", try Tensor.zeros([2])))
        },
        Fault(testDescription: "twice", message: "'model.norm.weight' came before") {
            $0.append([("model.norm.weight", try Tensor.zeros([32]))])
        },
        Fault(testDescription: "twice in one bucket", message: "'model.norm.weight' came before") { buckets in
            let last = buckets.count - 1
            guard let norm = buckets.joined().first(where: { $0.name == "model.norm.weight" }) else { return }
            for place in buckets.indices { buckets[place].removeAll { $0.name == norm.name } }
            buckets[last] += [norm, norm]
        },
        Fault(testDescription: "misshapen", message: "has shape [31]; the configuration asks for [32]") { buckets in
            for place in buckets.indices { buckets[place].removeAll { $0.name == "model.norm.weight" } }
            buckets[buckets.count - 1].append(("model.norm.weight", try Tensor.zeros([31])))
        },
        Fault(testDescription: "integers", message: "holds int64, no floating-point numbers") { buckets in
            for place in buckets.indices { buckets[place].removeAll { $0.name == "model.norm.weight" } }
            buckets[buckets.count - 1].append(("model.norm.weight", try Tensor.zeros([32], dtype: .int64)))
        },
    ]

    @Test(arguments: faults) func aBrokenUpdateIsNeverSampledFrom(fault: Fault) throws {
        let (model, other) = (try tinyModel(seed: 3), try tinyModel(seed: 8))
        let engine = RolloutEngine(model: model)
        _ = try engine.generate(requests)
        var sent = try buckets(other, size: 4)
        try fault.change(&sent)
        let error = #expect(throws: RolloutError.self) { try engine.updateWeights(version: 1, from: sent) }
        #expect(error?.code == .badUpdate && error?.message.contains(fault.message) == true, "\(error?.message ?? "")")
        #expect(engine.weightVersion == 0)
        for _ in 0..<2 {
            let refusal = #expect(throws: RolloutError.self) { try engine.generate(requests) }
            #expect(refusal?.code == .mixedWeights && refusal?.message.contains("version 1") == true)
            // Another number makes them no better.
            engine.weightVersion += 1
        }
        try engine.updateWeights(version: 1, from: buckets(other, size: 5))
        let fresh = RolloutEngine(model: other)
        fresh.weightVersion = 1
        #expect(try engine.generate(requests) == fresh.generate(requests))
    }

    @Test func aFaultInTheFirstBucketChangesNothing() throws {
        let model = try tinyModel(seed: 3)
        let engine = RolloutEngine(model: model)
        let before = try engine.generate(requests)
        var sent = try buckets(tinyModel(seed: 8), size: 4)
        sent[0].append(("x", try Tensor.zeros([2])))
        #expect(throws: RolloutError.self) { try engine.updateWeights(version: 1, from: sent) }
        #expect(throws: RolloutError.self) { try engine.updateWeights(version: 1, from: [Bucket]()) }
        #expect(throws: RolloutError.self) { try engine.updateWeights(version: 0, from: buckets(model, size: 4)) }
        #expect(try engine.generate(requests) == before)
    }

    struct Lost: Error {}

    /// The sender dies half way, while sequences run; after a whole update they go on, each token stamped.
    @Test func aSenderThatFailsStopsTheSession() throws {
        let (model, other) = (try tinyModel(seed: 3), try tinyModel(seed: 8))
        let engine = RolloutEngine(model: model)
        let session = try engine.session(wantedBlocks: 40, longest: 64)
        var samples: [GeneratedSample] = []
        session.onSample = { samples.append($2) }
        try session.add(requests[0], id: 0)
        for _ in 0..<4 { _ = try session.advance() }
        var sent = try buckets(other, size: 4).prefix(2).makeIterator()
        #expect(throws: Lost.self) {
            try engine.updateWeights(version: 1) {
                guard let next = sent.next() else { throw Lost() }
                return next
            }
        }
        let refusal = #expect(throws: RolloutError.self) { _ = try session.advance() }
        #expect(refusal?.code == .mixedWeights)
        try engine.updateWeights(version: 1, from: buckets(other, size: 4))
        while try session.advance() {}
        #expect(samples.count == 2)
        for sample in samples {
            #expect(sample.weightVersions == Array(repeating: 0, count: 4) + Array(repeating: 1, count: 6))
        }
    }

    /// Of an adapter's models the matrices alone differ, and they alone come.
    @Test(arguments: [nil, WeightQuantization.int8PerChannel], [false, true])
    func anAdaptersMatricesComeAlone(quantization: WeightQuantization?, merges: Bool) throws {
        func adapted(seed: UInt64) throws -> LlamaModel {
            let model = try tinyModel(seed: 3), generator = try RandomGenerator(seed: seed)
            try model.addAdapter(LoRASettings(rank: 2)) { try Tensor.randomNormal($1, generator: generator) }
            return model
        }
        let options = RolloutEngine.Options(mergesAdapter: merges, quantization: quantization)
        let (model, other) = (try adapted(seed: 1), try adapted(seed: 2))
        let engine = RolloutEngine(model: model, options: options)
        let old = try engine.generate(requests)
        let update = try engine.updateWeights(version: 1, from: [other.changingTensors()])
        #expect(update.tensors == 2 * (try #require(model.adapter)).modules.count)
        let new = try engine.generate(requests), expected = RolloutEngine(model: other, options: options)
        #expect(new.map { $0.map(\.tokens) } != old.map { $0.map(\.tokens) })
        #expect(try expected.generate(requests).map { $0.map(\.logProbs) } == new.map { $0.map(\.logProbs) })
    }

    @Test func anAdapterIsNotLeftOnOtherWeights() throws {
        let model = try tinyModel()
        try model.addAdapter(LoRASettings(rank: 2))
        let error = #expect(throws: RolloutError.self) {
            try RolloutEngine(model: model).updateWeights(version: 1, from: buckets(tinyModel(seed: 8), size: 4))
        }
        #expect(error?.message.contains("adapter") == true)
    }
}

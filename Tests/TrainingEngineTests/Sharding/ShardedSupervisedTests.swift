import PolicyAlgorithms
import Checkpoints
import Collectives
import Foundation
import Models
import Synchronization
import TensorCore
import TestSupport
import Testing

@testable import TrainingEngine

/// However ranks share a model and its rows out, they learn from rows what one process learns.
@Suite(.serialized) struct ShardedSupervisedTests {
    enum Kind: String, CaseIterable, Sendable {
        /// Its gradient is known beforehand, and dft's is not.
        case imitation, weighted
        case preference, reward

        var examples: [SupervisedExample] {
            switch self {
            case .imitation, .weighted: SupervisedTrainerTests.conversations
            case .preference: SupervisedTrainerTests.pairs(references: true)
            case .reward: RewardTrainingTests.pairs()
            }
        }

        var objective: any SupervisedObjective {
            switch self {
            case .imitation: ImitationObjective()
            case .weighted: ImitationObjective(SFTLoss(.dft))
            case .preference: PreferenceObjective(DPOLoss([.init(.sigmoid), .init(.sft)], beta: 0.2))
            case .reward: RewardObjective(RewardModelLoss(centerCoefficient: 0.1))
            }
        }
    }

    /// A tiny model's folder.
    final class Folder: Sendable {
        let path = NSTemporaryDirectory() + "fledge-sharded-\(UUID().uuidString)"
        deinit { try? FileManager.default.removeItem(atPath: path) }

        init(_ family: TinyFamily) throws {
            try HuggingFaceExporter.write(
                tensors: family.model().namedTensors().map { ($0.name, try $0.tensor.contiguous()) },
                config: family.config, to: path)
        }

        func network(_ kind: Kind, _ parallel: ParallelContext = ParallelContext()) throws -> SupervisedNetwork {
            let source = try ModelSource.open(path)
            guard kind == .reward else { return .language(try ModelRegistry.load(source, parallel: parallel)) }
            return .scoring(
                try ModelRegistry.loadScoring(
                    source, newHead: .init(standardDeviation: 0.1, seed: 4, reading: .lastToken), parallel: parallel))
        }
    }

    /// What a few steps come to.
    struct Outcome: Sendable {
        var steps: [[Double]] = []
        var names: [String] = []
        var evaluated: [Double] = []
        var references: [[Float]] = []
        /// After the last step: of a rank its parts of each.
        var weights: [(box: ShardBox, values: [Float])] = []
    }

    static let steps = 3
    static let schedule = LearningRateSchedule(peak: 2e-2)
    /// Adam divides by a gradient's size: one that is nothing but rounding must not become a step.
    static let optimizer = AdamW.Settings(epsilon: 1e-2)

    private static func settings(_ budget: Int) -> SupervisedTrainer.Settings {
        .init(microBatchTokens: budget, gradClip: 0.5, logitsChunk: 4)
    }

    private static func learn(_ trainer: SupervisedTrainer, _ kind: Kind) throws -> Outcome {
        var outcome = Outcome()
        let examples = kind.examples
        if kind == .preference { outcome.references = try trainer.referenceLogProbs(examples) }
        for _ in 0..<steps {
            let report = try trainer.update(examples)
            #expect(report.stepped && report.learntTokens == examples.reduce(0) { $0 + $1.learntTokens })
            outcome.names = report.metrics.map(\.name)
            outcome.steps.append(report.metrics.map(\.value) + [report.gradNorm])
        }
        outcome.evaluated = try trainer.evaluate(examples).map(\.value)
        return outcome
    }

    private static func addAdapter(to network: SupervisedNetwork, _ adapter: LoRASettings?) throws {
        guard let adapter else { return }
        let generator = try RandomGenerator(seed: 4)
        try network.model.addAdapter(adapter) { _, shape in
            try Tensor.randomNormal(shape, generator: generator).multiplied(by: 0.1)
        }
    }

    static func alone(_ folder: Folder, _ kind: Kind, budget: Int, adapter: LoRASettings? = nil) throws -> Outcome {
        let network = try folder.network(kind)
        try addAdapter(to: network, adapter)
        let trainer = SupervisedTrainer(
            network: network, objective: kind.objective,
            optimizer: try AdamW(parameters: network.model.trainableParameters, settings: optimizer),
            schedule: schedule, settings: settings(budget))
        var outcome = try learn(trainer, kind)
        let adapted = network.model.adapter?.parameters ?? []
        for parameter in network.model.parameters + adapted {
            for shard in try parameter.shards() {
                outcome.weights.append((shard.box, try shard.tensor.contiguous().values(Float.self)))
            }
        }
        return outcome
    }

    static func ranks(
        _ folder: Folder, _ kind: Kind, _ layout: Layout, budget: Int, splitsTokens: Bool = true,
        adapter: LoRASettings? = nil
    ) throws -> [Outcome] {
        let store = try RendezvousStore.local(), count = layout.shape.rankCount, all = Outcomes()
        try onRanks(count) { rank in
            // Ranks are threads here, and share the processor.
            Torch.threadCount = 1
            let mesh = DeviceMesh(layout.shape, rank: rank, store: store)
            let network = try folder.network(
                kind, ParallelContext(mesh, sequenceParallel: splitsTokens && layout.shape[.tensor] > 1))
            try addAdapter(to: network, adapter)
            let trainer = try SupervisedTrainer.sharded(
                network, over: mesh, sharding: .init(mode: layout.mode), objective: kind.objective,
                optimizer: optimizer, schedule: schedule, settings: settings(budget))
            var outcome = try learn(trainer, kind)
            for shard in try #require(trainer.parallel).parameters.localShards() {
                outcome.weights.append((shard.box, try shard.tensor.contiguous().values(Float.self)))
            }
            all.outcomes.withLock { $0[rank] = outcome }
        }
        return all.outcomes.withLock { all in (0..<count).compactMap { all[$0] } }
    }

    private final class Outcomes: Sendable {
        let outcomes = Mutex<[Int: Outcome]>([:])
    }

    private final class Taken: Sendable {
        let micros = Mutex<[Int: [[Int]]]>([:])
    }

    private func expectSame(_ ranks: [Outcome], _ alone: Outcome, _ tolerance: Double = 1e-5) throws {
        func norm(_ values: some Sequence<Float>) -> Double {
            values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
        }
        func close(_ found: [Double], _ wanted: [Double], _ what: String) {
            #expect(found.count == wanted.count, "\(what)")
            for (index, (a, b)) in zip(found, wanted).enumerated() {
                #expect(abs(a - b) <= tolerance * max(0.1, abs(b)), "\(what), number \(index): \(a), alone \(b)")
            }
        }
        let whole = Dictionary(alone.weights.map { ($0.box.name, $0) }) { first, _ in first }
        for (rank, outcome) in ranks.enumerated() {
            #expect(outcome.names == alone.names)
            for (step, (found, wanted)) in zip(outcome.steps, alone.steps).enumerated() {
                close(found, wanted, "step \(step) of rank \(rank)")
            }
            close(outcome.evaluated, alone.evaluated, "evaluation of rank \(rank)")
            #expect(outcome.references.count == alone.references.count)
            for (found, wanted) in zip(outcome.references, alone.references) {
                close(found.map(Double.init), wanted.map(Double.init), "references of rank \(rank)")
            }
            for (box, values) in outcome.weights {
                let other = try #require(whole[box.name], "\(box.name)")
                var tensor = try Tensor(other.values, shape: other.box.shape)
                for (dim, range) in box.ranges.enumerated() { tensor = try tensor.narrowed(dim, range) }
                let wanted = try tensor.contiguous().values(Float.self)
                let error = norm(zip(values, wanted).map { $0 - $1 }), scale = norm(other.values)
                #expect(
                    values.count == wanted.count && error <= tolerance * scale,
                    "\(box.name) of rank \(rank): \(error) of \(scale)")
            }
        }
    }

    static let layouts: [Layout] = [
        Layout(.fullShard, [.shard: 2]), Layout(.shardGradOp, [.shard: 2]), Layout(.noShard, [.replicate: 2]),
        Layout(.fullShard, [.replicate: 2, .shard: 2]), Layout(.noShard, [.tensor: 2]),
        Layout(.fullShard, [.shard: 2, .tensor: 2]), Layout(.noShard, [.sequence: 2]),
        Layout(.fullShard, [.shard: 2, .sequence: 2]),
        // More ranks than some batches have micro-batches.
        Layout(.noShard, [.replicate: 4]),
    ]
    /// Its embedding is its head, which is what learning both at once is hardest for.
    static let family = TinyFamily.llama

    @Test(arguments: Kind.allCases, [40, 100_000])
    func ranksLearnWhatOneProcessLearns(kind: Kind, budget: Int) throws {
        let folder = try Folder(Self.family), alone = try Self.alone(folder, kind, budget: budget)
        for layout in Self.layouts {
            try expectSame(Self.ranks(folder, kind, layout, budget: budget), alone)
        }
        try expectSame(
            Self.ranks(folder, kind, Layout(.noShard, [.tensor: 2]), budget: budget, splitsTokens: false), alone)
    }

    @Test(arguments: Kind.allCases) func expertsAreSharedOut(kind: Kind) throws {
        let folder = try Folder(TinyFamily(name: "Mixtral", settings: ["num_local_experts": .int(4)]))
        let alone = try Self.alone(folder, kind, budget: 60)
        for layout in [
            Layout(.noShard, [.expert: 2]), Layout(.fullShard, [.shard: 2, .expert: 2]),
            Layout(.fullShard, [.shard: 2]),
        ] {
            try expectSame(Self.ranks(folder, kind, layout, budget: 60), alone)
        }
    }

    @Test(arguments: Kind.allCases.filter { $0 != .reward }) func layersAreSharedOut(kind: Kind) throws {
        for family in [Self.family, TinyFamily(name: "Qwen2")] {
            let folder = try Folder(family), alone = try Self.alone(folder, kind, budget: 40)
            for layout in [
                Layout(.noShard, [.pipeline: 2]), Layout(.fullShard, [.pipeline: 2, .shard: 2]),
                Layout(.noShard, [.pipeline: 3]),
            ] {
                try expectSame(Self.ranks(folder, kind, layout, budget: 40), alone)
            }
        }
    }

    /// A head of its own, that no checkpoint holds, is trained beside the adapter.
    @Test(arguments: Kind.allCases) func adaptersAreSharedOut(kind: Kind) throws {
        let folder = try Folder(TinyFamily(name: "Qwen2")), adapter = LoRASettings(rank: 4)
        let alone = try Self.alone(folder, kind, budget: 60, adapter: adapter)
        for layout in [
            Layout(.fullShard, [.shard: 2]), Layout(.shardGradOp, [.shard: 2]), Layout(.noShard, [.sequence: 2]),
        ] {
            try expectSame(Self.ranks(folder, kind, layout, budget: 60, adapter: adapter), alone)
        }
    }

    /// Each example is computed by one rank, and no rank has much more to do than another.
    @Test(arguments: [2, 3, 5]) func examplesAreDividedByWork(ranks: Int) throws {
        let store = try RendezvousStore.local(), taken = Taken()
        let examples = SupervisedTrainerTests.pairs(references: false) + SupervisedTrainerTests.pairs(references: false)
        try onRanks(ranks) { rank in
            let mesh = DeviceMesh(MeshShape([.replicate: ranks]), rank: rank, store: store)
            let model = try Self.family.model()
            let parallel = try DataParallel(model, trained: model.parameters, mesh: mesh)
            let micros = try MicroBatches.ofShare(examples, tokenBudget: 60, sharesPrefixes: true, over: parallel)
            taken.micros.withLock { $0[rank] = micros }
        }
        let all = taken.micros.withLock { all in (0..<ranks).map { all[$0] ?? [] } }
        #expect(all.joined().joined().sorted() == Array(examples.indices))
        let work = SequenceWork(try Self.family.model())
        let sums = all.map { $0.joined().reduce(0) { $0 + examples[$1].cost(work, sharesPrefixes: true) } }
        #expect(sums.max() ?? 0 <= 1.5 * sums.reduce(0, +) / Double(ranks))
        for micro in all.joined() where micro.count > 1 {
            #expect(micro.reduce(0) { $0 + examples[$1].computedTokens(sharesPrefixes: true) } <= 60)
        }
    }
}

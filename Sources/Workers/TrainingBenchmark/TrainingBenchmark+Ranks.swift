public import Collectives
import Models
public import TensorCore
public import TrainingEngine

extension TrainingBenchmark {
    /// How several devices train one model together.
    public struct Sharing: Sendable, Hashable {
        public var mesh: MeshShape
        public var options: ShardingOptions
        /// Whether tensor ranks share the tokens too where layers work on each token for itself.
        public var sequenceParallel = false
        /// Whether each device does its share of the work alone first, with a whole model of its own.
        public var measuresAlone = false

        /// - Parameters:
        ///   - tensor: devices that share the matrices; each such set has rows of its own.
        ///   - size: sets that share one copy of weights and states; nil: all.
        /// - Throws: ``WorkerError`` where the devices do not divide so.
        public init(
            devices: Int, mode: ShardingMode = .fullShard, size: Int? = nil, tensor: Int = 1,
            reduceDType: DType = .float32
        ) throws(WorkerError) {
            guard devices > 0, tensor > 0, devices % tensor == 0 else {
                throw WorkerError(.badSetting, "\(devices) devices do not divide into sets of \(tensor) along tp")
            }
            let sets = devices / tensor, size = mode == .noShard ? 1 : size ?? sets
            guard size > 0, sets % size == 0 else {
                throw WorkerError(.badSetting, "\(sets) sets of devices do not divide into \(size) along fsdp")
            }
            mesh = MeshShape([.replicate: sets / size, .shard: size, .tensor: tensor])
            options = ShardingOptions(mode: size == 1 ? .noShard : mode, reduceDType: reduceDType)
        }
    }

    /// What several devices came to, rank by rank.
    public struct RankReport: Sendable {
        public var sharing: Sharing
        /// The most that was allocated on each device.
        public var peakBytes: [Int]
        /// The same with what the allocator kept for later.
        public var peakReservedBytes: [Int]
        /// Each rank's mean step.
        public var stepSeconds: [Double]
        /// Tokens a second of each device alone, where that was measured.
        public var aloneTokensPerSecond: [Double]

        /// Their mean; nil: not measured.
        public var aloneMean: Double? {
            aloneTokensPerSecond.isEmpty
                ? nil : aloneTokensPerSecond.reduce(0, +) / Double(aloneTokensPerSecond.count)
        }
    }

    /// This rank's part; all members call it. Every set of ranks along the data axes has `settings.rows` of its own.
    public static func run(
        _ shape: BenchmarkShape, dtype: DType, device: Device, settings: Settings, sharing: Sharing,
        members: RankMembership
    ) throws -> Report {
        try device.makeCurrent()
        return try run(
            shape, dtype: dtype, settings: settings, sharing: sharing, mesh: members.mesh(sharing.mesh, device: device)
        ) { members.progress.enter(.init(step: $0, phase: $1)) }
    }

    static func run(
        _ shape: BenchmarkShape, dtype: DType, settings: Settings, sharing: Sharing, mesh: DeviceMesh,
        enter: (_ step: Int, _ phase: String) -> Void
    ) throws -> Report {
        let device = mesh.device, world = try mesh.group(MeshAxis.all)
        var alone: Double?
        if sharing.measuresAlone {
            alone = try single(shape, dtype, device, settings) { enter($0 + 1, "alone") }.tokensPerSecond
            try device.emptyCache()
        }
        enter(0, "weights")
        // Each parameter is drawn when it is shared out: no rank has all of them whole, in whatever memory.
        let model = try shape.model(
            dtype: dtype, device: device, seed: settings.seed, byName: true,
            parallel: ParallelContext(mesh, sequenceParallel: sharing.sequenceParallel), defersLoading: true)
        let count = wholeCount(model)
        var options = sharing.options
        options.gradDType = settings.states.optimizer?.gradDType ?? options.gradDType
        let parallel = try DataParallel(
            model, trained: settings.objective == .score ? [] : model.parameters, mesh: mesh, sharding: options,
            axes: GradientAxes.init)
        try device.emptyCache()
        var report = try measure(model, shape, settings, parallel: parallel) { step in
            enter(step + 1, "step")
            try world?.barrier()
        }
        enter(0, "report")
        report.parameterCount = count
        return try joined(&report, sharing, parallel.count, alone, world, device)
    }

    /// Of all ranks' parts of the model.
    private static func wholeCount(_ model: any CausalLanguageModel) -> Int {
        let parts = model.parameters.flatMap(\.parts).map { ($0.box.name, $0.box.shape.reduce(1, *)) }
        return Dictionary(parts) { first, _ in first }.values.reduce(0, +)
    }

    /// A whole model of this device's own, which is gone afterwards.
    private static func single(
        _ shape: BenchmarkShape, _ dtype: DType, _ device: Device, _ settings: Settings, _ prepare: (Int) -> Void
    ) throws -> Report {
        var settings = settings
        settings.profile = false
        let model = try shape.model(dtype: dtype, device: device, seed: settings.seed)
        return try measure(model, shape, settings, prepare: prepare)
    }

    /// What the other ranks must know of one.
    private struct Share: Codable {
        var seconds: [Double]
        var alone: Double?
        /// JSON knows no NaN.
        var lossBits: UInt64
        var peakBytes, peakReservedBytes, computedTokens: Int
    }

    private static func joined(
        _ report: inout Report, _ sharing: Sharing, _ count: Int, _ alone: Double?, _ world: ProcessGroup?,
        _ device: Device
    ) throws -> Report {
        let own = Share(
            seconds: report.seconds, alone: alone, lossBits: report.lastLoss.bitPattern, peakBytes: report.peakBytes,
            peakReservedBytes: report.peakReservedBytes, computedTokens: report.computedTokens)
        let all = try world?.exchange(own, device: device) ?? [own]
        // Ranks along the other axes have the same sequences.
        let different = all.indices.filter { rank in
            MeshAxis.all.allSatisfy { MeshAxis.data.contains($0) || sharing.mesh.coordinate($0, of: rank) == 0 }
        }.map { all[$0] }
        report.seconds = report.seconds.indices.map { step in all.map { $0.seconds[step] }.max() ?? 0 }
        report.lastLoss = different.reduce(0) { $0 + Double(bitPattern: $1.lossBits) }
        report.computedTokens = different.reduce(0) { $0 + $1.computedTokens }
        report.peakBytes = all.map(\.peakBytes).max() ?? report.peakBytes
        report.peakReservedBytes = all.map(\.peakReservedBytes).max() ?? report.peakReservedBytes
        report.cost = report.cost.multiplied(by: count)
        report.ranks = RankReport(
            sharing: sharing, peakBytes: all.map(\.peakBytes), peakReservedBytes: all.map(\.peakReservedBytes),
            stepSeconds: all.map { $0.seconds.reduce(0, +) / Double($0.seconds.count) },
            aloneTokensPerSecond: all.compactMap(\.alone))
        return report
    }
}

public import Collectives
import Foundation
import Synchronization
public import TensorCore

/// How long a model of a known shape takes from one layout to another, and what it moves.
public struct ReshardBenchmark: Sendable {
    public var shape: BenchmarkShape
    public var from, to: MeshShape
    public var fromType, toType: DType
    public var options = ReshardPlan.Options()
    /// Whether ranks take the places of the target layout that they hold most of.
    public var places = false
    /// Whether what arrived is compared with what it must be.
    public var checks = true

    public init(shape: BenchmarkShape, from: MeshShape, to: MeshShape, fromType: DType, toType: DType) {
        self.shape = shape
        self.from = from
        self.to = to
        self.fromType = fromType
        self.toType = toType
    }

    /// One rank's runs, those of the slowest rank.
    public struct Measurement: Sendable {
        /// Seconds of each run, the device waited for; the first is not among them.
        public var seconds: [Double] = []
        /// Of the rank that needs most.
        public var peakExtraBytes = 0
        public var messages = 0
    }

    /// The plan and the seconds that it took to make; needs no device and no other rank.
    /// - Throws: ``ReshardError``; ``WorkerError`` when the layouts have different numbers of ranks.
    public func plan() throws -> (plan: ReshardPlan, seconds: Double) {
        guard from.rankCount == to.rankCount else {
            throw WorkerError(
                .badSetting,
                "\(from) has \(from.rankCount) ranks and \(to) has \(to.rankCount): give both layouts all ranks")
        }
        let rules = shape.rules.parameters, start = ContinuousClock.now
        let held = ShardLayout(rules, mesh: from, dtype: fromType)
        var wanted = ShardLayout(rules, mesh: to, dtype: toType)
        if places { wanted = wanted.ordered(ReshardPlacement.order(held: held, wanted: wanted)) }
        let plan = try ReshardPlan(held: held, wanted: wanted, options: options)
        return (plan, (ContinuousClock.now - start) / .seconds(1))
    }

    /// This rank's part; every rank of `group` calls it.
    /// - Throws: ``WorkerError`` when a tensor that arrived is not the one that was sent.
    public func run(
        _ plan: ReshardPlan, group: ProcessGroup?, device: Device, repeats: Int,
        makeGroup: (([Int]) throws -> ProcessGroup)? = nil
    ) throws -> Measurement {
        let resharder = Resharder(plan, group: group, makeGroup: makeGroup)
        let held = try plan.held.ranks[resharder.rank].map { spec in
            LocalShard(box: spec.box, tensor: try Self.pattern(spec, device))
        }
        let wanted = try resharder.targets(for: held, device: device)
        var result = Measurement()
        for run in 0...repeats {
            try device.synchronize()
            try group?.barrier()
            let report = try resharder.run(from: held, into: wanted)
            if run > 0 { result.seconds.append(report.seconds) }
            result.peakExtraBytes = max(result.peakExtraBytes, report.peakExtraBytes)
            result.messages = report.messages
        }
        if checks {
            for shard in wanted {
                guard try shard.tensor.equals(Self.pattern(shard.spec, device)) else {
                    throw WorkerError(.badSetting, "rank \(resharder.rank): \(shard.box.summary) is not what was sent")
                }
            }
        }
        guard let group else { return result }
        let all = try group.exchange(
            [result.seconds, [Double(result.peakExtraBytes), Double(result.messages)]], device: device)
        result.seconds = result.seconds.indices.map { index in all.map { $0[0][index] }.max() ?? 0 }
        result.peakExtraBytes = Int(all.map { $0[1][0] }.max() ?? 0)
        result.messages = Int(all.map { $0[1][1] }.max() ?? 0)
        return result
    }

    /// All ranks as threads of this process, on the CPU.
    public func runThreads(_ plan: ReshardPlan, repeats: Int) throws -> Measurement {
        let store = try RendezvousStore.local()
        let results = Mutex<[Result<Measurement, any Error>]>([])
        let threads = DispatchGroup()
        let threadCount = Torch.threadCount
        Torch.threadCount = 1
        defer { Torch.threadCount = threadCount }
        for rank in 0..<plan.rankCount {
            DispatchQueue(label: "fledge.rank.\(rank)").async(group: threads) {
                let result = Result {
                    Torch.threadCount = 1
                    let connect = { (name: String, rank: Int, size: Int) in
                        try ProcessGroup.gloo(store, name: name, rank: rank, size: size, timeout: .seconds(600))
                    }
                    return try run(
                        plan, group: plan.rankCount == 1 ? nil : connect("world", rank, plan.rankCount), device: .cpu,
                        repeats: repeats
                    ) { ranks in try connect("\(ranks)", ranks.firstIndex(of: rank) ?? 0, ranks.count) }
                }
                results.withLock { $0.append(result) }
            }
        }
        threads.wait()
        let all = results.withLock { $0 }
        guard let last = all.last else { return Measurement() }
        for result in all { if case .failure(let error) = result { throw error } }
        return try last.get()
    }

    /// Numbers of each element's place in the whole tensor, exact in every type.
    private static func pattern(_ spec: ShardSpec, _ device: Device) throws -> Tensor {
        var sum = try Tensor.zeros([], dtype: spec.dtype, device: device)
        for (dim, range) in spec.box.ranges.enumerated() {
            var sizes = [Int](repeating: 1, count: spec.box.ranges.count)
            sizes[dim] = range.count
            // Sums below 256, which bfloat16 holds exactly: rows differ from the next 126, columns from the next 110.
            let values = range.map { Float($0 % (dim == 0 ? 127 : 111)) }
            let index = try Tensor(values, shape: sizes, device: device).to(dtype: spec.dtype)
            sum = try sum.adding(index)
        }
        return sum
    }
}

extension BenchmarkShape {
    var rules: DecoderRules {
        var rules = DecoderRules(
            vocabulary: vocabulary, hidden: hidden, layers: layers, heads: heads, keyValueHeads: keyValueHeads,
            headDim: hidden / heads, intermediate: intermediate, tiedEmbeddings: tiedEmbeddings)
        rules.attentionBias = architecture == "Qwen2ForCausalLM"
        return rules
    }
}

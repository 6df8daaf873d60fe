public import Collectives
import Foundation
import RolloutCore
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
    /// Whether gathering every tensor on every rank, and cutting it there, is measured too.
    public var measuresGathering = true

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
        /// The same of gathering all, where that was measured.
        public var gatheringSeconds: [Double] = []
        public var gatheringPeakExtraBytes = 0
        /// Of all that each rank has got, rank by rank; the same as what they must be, where that was looked at.
        public var digests: [UInt64] = []

        public static func median(_ seconds: [Double]) -> Double { seconds.sorted()[seconds.count / 2] }
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
        var known: [[Int]: ProcessGroup] = [:]
        let makeGroup = makeGroup.map { make in
            { (ranks: [Int]) throws -> ProcessGroup in
                if let made = known[ranks] { return made }
                let made = try make(ranks)
                known[ranks] = made
                return made
            }
        }
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
        var gathered: [LocalShard] = []
        if measuresGathering, group != nil {
            let baseline = try GatheringBaseline(plan, rank: resharder.rank, group: group, makeGroup: makeGroup)
            gathered = try resharder.targets(for: held, device: device, aliasing: false)
            for run in 0...repeats {
                try device.synchronize()
                try group?.barrier()
                let (seconds, extra) = try baseline.run(from: held, into: gathered, device: device)
                if run > 0 { result.gatheringSeconds.append(seconds) }
                result.gatheringPeakExtraBytes = max(result.gatheringPeakExtraBytes, extra)
            }
        }
        let digest = try checks ? check(wanted, gathered, rank: resharder.rank, device) : 0
        guard let group else {
            result.digests = [digest]
            return result
        }
        let own = Share(
            seconds: result.seconds, gatheringSeconds: result.gatheringSeconds, peakExtraBytes: result.peakExtraBytes,
            gatheringPeakExtraBytes: result.gatheringPeakExtraBytes, messages: result.messages, digest: digest)
        let all = try group.exchange(own, device: device)
        result.seconds = result.seconds.indices.map { index in all.map { $0.seconds[index] }.max() ?? 0 }
        result.gatheringSeconds = result.gatheringSeconds.indices.map { index in
            all.map { $0.gatheringSeconds[index] }.max() ?? 0
        }
        result.peakExtraBytes = all.map(\.peakExtraBytes).max() ?? 0
        result.gatheringPeakExtraBytes = all.map(\.gatheringPeakExtraBytes).max() ?? 0
        result.messages = all.map(\.messages).max() ?? 0
        result.digests = all.map(\.digest)
        return result
    }

    /// What the other ranks must know of one.
    private struct Share: Codable {
        var seconds, gatheringSeconds: [Double]
        var peakExtraBytes, gatheringPeakExtraBytes, messages: Int
        var digest: UInt64
    }

    /// Compares what has arrived with what it must be, bit by bit; gives its digest.
    private func check(
        _ wanted: [LocalShard], _ gathered: [LocalShard], rank: Int, _ device: Device
    ) throws -> UInt64 {
        var digest: UInt64 = 0
        for (index, shard) in wanted.enumerated() {
            let expected = try Self.pattern(shard.spec, device).digest(), found = try shard.tensor.digest()
            guard found == expected else {
                throw WorkerError(.badSetting, "rank \(rank): \(shard.box.summary) is not what was sent")
            }
            if index < gathered.count, try gathered[index].tensor.digest() != expected {
                throw WorkerError(.badSetting, "rank \(rank): \(shard.box.summary) is not what was gathered")
            }
            digest = SplitMix64.mix(digest ^ found)
        }
        return digest
    }

    /// This rank's part among processes; all members call it.
    public func run(
        _ plan: ReshardPlan, members: RankMembership, device: Device, repeats: Int
    ) throws -> Measurement {
        try device.makeCurrent()
        members.progress.enter(.init(step: 0, phase: "reshard"))
        let connect = { (ranks: [Int]) in try members.group(ranks, device: device) }
        return try run(
            plan, group: members.size == 1 ? nil : connect(Array(0..<members.size)), device: device, repeats: repeats,
            makeGroup: connect)
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

extension RankMembership {
    /// A group of some of the members, of which this is one; all of these ask for it at the same point.
    func group(_ ranks: [Int], device: Device, name: String = "reshard") throws -> ProcessGroup {
        let name = "\(name):" + ranks.map(String.init).joined(separator: ","), place = ranks.firstIndex(of: rank) ?? 0
        let watch = GroupWatch(watch, ranks: ranks)
        if device == .cpu {
            return try .gloo(
                store, name: name, rank: place, size: ranks.count, timeout: max(self.watch.deadline, .seconds(60)),
                watch: watch)
        }
        return try .nccl(store, name: name, rank: place, size: ranks.count, device: device, watch: watch)
    }
}

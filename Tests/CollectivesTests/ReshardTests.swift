import Collectives
import TensorCore
import TestSupport
import Testing

@Suite struct ReshardTests {
    static let dense: DecoderRules = {
        var rules = DecoderRules(
            vocabulary: 37, hidden: 16, layers: 2, heads: 8, keyValueHeads: 4, headDim: 2, intermediate: 24,
            tiedEmbeddings: false)
        rules.attentionBias = true
        return rules
    }()
    static let mixture: DecoderRules = {
        var rules = dense
        rules.experts = 4
        return rules
    }()

    /// The value of a tensor's element: of its place in the whole tensor, exact in bfloat16's 8 bits only after rounding.
    static func whole(_ name: String, _ shape: [Int]) throws -> Tensor {
        let seed = name.utf8.reduce(UInt64(7)) { ($0 &* 31) &+ UInt64($1) }
        return try Tensor.randomNormal(shape, generator: RandomGenerator(seed: seed))
    }

    static func shard(_ spec: ShardSpec) throws -> LocalShard {
        let whole = LocalShard(
            box: ShardBox(whole: spec.box.name, shape: spec.box.shape), tensor: try whole(spec.box.name, spec.box.shape)
        )
        return LocalShard(
            box: spec.box, tensor: try whole.view(of: spec.box).to(dtype: spec.dtype, copy: true).contiguous())
    }

    /// Every layout of the list into every other, with all of its ranks as threads; the result is that of cutting the whole tensors.
    static func check(
        _ layouts: [String], _ rules: DecoderRules, from: DType, to: DType, options: ReshardPlan.Options, gathers: Bool
    ) throws {
        let meshes = try layouts.map { try MeshShape(parsing: $0) }
        let ranks = meshes[0].rankCount
        let store = try RendezvousStore.local()
        try onRanks(ranks) { rank in
            Torch.threadCount = 1
            let world =
                ranks == 1
                ? nil : try ProcessGroup.gloo(store, name: "world", rank: rank, size: ranks, timeout: .seconds(60))
            let sources = meshes.map { ShardLayout(rules.parameters, mesh: $0, dtype: from) }
            let wishes = meshes.map { ShardLayout(rules.parameters, mesh: $0, dtype: to) }
            for (i, held) in sources.enumerated() {
                let holding = try held.ranks[rank].map(shard)
                for (j, wanted) in wishes.enumerated() {
                    let resharder = try Resharder(
                        held: held.ranks[rank], wanted: wanted.ranks[rank], group: world, device: .cpu,
                        options: options,
                        makeGroup: !gathers
                            ? nil
                            : { members in
                                try ProcessGroup.gloo(
                                    store, name: "\(i)>\(j) \(members)", rank: members.firstIndex(of: rank)!,
                                    size: members.count, timeout: .seconds(60))
                            })
                    #expect(resharder.plan.held == held)
                    let targets = try resharder.targets(for: holding, device: .cpu)
                    let report = try resharder.run(from: holding, into: targets)
                    let traffic = resharder.plan.traffic
                    #expect(report.sentBytes == traffic.sent[rank])
                    #expect(report.receivedBytes == traffic.received[rank])
                    #expect(report.peakExtraBytes <= 5 * options.bucketBytes, "\(layouts[i]) to \(layouts[j])")
                    if i == j, from == to {
                        #expect(report.copiedBytes == 0)
                        #expect(report.aliasedBytes == wanted.byteCount(of: rank))
                        #expect(zip(holding, targets).allSatisfy { $0.tensor.sharesStorage(with: $1.tensor) })
                    }
                    for target in targets {
                        let right = try shard(ShardSpec(box: target.box, dtype: from)).tensor.to(dtype: to)
                        #expect(try target.tensor.equals(right), "\(layouts[i]) to \(layouts[j]): \(target.box)")
                    }
                }
            }
        }
    }

    static let layouts: [[String]] = [
        ["1"],
        ["fsdp2", "tp2", "dp2", "pp2"],
        ["fsdp4", "tp4", "dp4", "fsdp2×tp2", "dp2×fsdp2", "dp2×tp2", "pp2×tp2"],
        ["fsdp8", "fsdp2×tp4", "dp2×fsdp2×tp2", "tp8", "dp8", "pp2×fsdp4"],
    ]

    @Test(arguments: layouts)
    func everyLayoutBecomesEveryOther(_ layouts: [String]) throws {
        var options = ReshardPlan.Options()
        options.bucketBytes = 4000
        options.messageBytes = 300
        try Self.check(layouts, Self.dense, from: .float32, to: .float32, options: options, gathers: false)
    }

    @Test func typesAreConvertedOnTheNarrowSide() throws {
        for (from, to) in [(DType.float32, DType.bfloat16), (.bfloat16, .float32)] {
            try Self.check(
                ["fsdp4", "dp2×tp2", "fsdp2×tp2"], Self.dense, from: from, to: to, options: .init(), gathers: false)
        }
        let held = ShardLayout(Self.dense.parameters, mesh: MeshShape([.shard: 2]), dtype: .float32)
        let wanted = ShardLayout(Self.dense.parameters, mesh: MeshShape([.replicate: 2]), dtype: .bfloat16)
        let narrow = try ReshardPlan(held: wanted, wanted: wanted), wide = try ReshardPlan(held: held, wanted: wanted)
        #expect(narrow.traffic.total == 0)
        #expect(wide.traffic.total == held.ranks.reduce(0) { $0 + $1.reduce(0) { $0 + $1.box.count * 2 } })
    }

    @Test func expertsMove() throws {
        var options = ReshardPlan.Options()
        options.bucketBytes = 8000
        try Self.check(
            ["ep4", "ep2×tp2", "fsdp2×ep2", "dp4", "dp2×ep2"], Self.mixture, from: .float32, to: .float32,
            options: options,
            gathers: false)
    }

    @Test func allGathersGiveTheSame() throws {
        for dtype in [DType.float32, .bfloat16] {
            try Self.check(
                ["fsdp4", "dp2×fsdp2", "dp4", "fsdp2×tp2", "dp2×tp2"], Self.dense, from: .float32, to: dtype,
                options: .init(), gathers: true)
        }
    }

    /// Buckets start as parameters are stepped, in whatever order each rank steps them, and nothing is sent before it is ready.
    @Test func bucketsStartAsTheirTensorsAreReady() throws {
        var options = ReshardPlan.Options()
        options.bucketBytes = 1500
        let store = try RendezvousStore.local(), rules = Self.dense
        let held = ShardLayout(rules.parameters, mesh: MeshShape([.shard: 4]), dtype: .float32)
        let wanted = ShardLayout(rules.parameters, mesh: MeshShape([.replicate: 2, .tensor: 2]), dtype: .float32)
        let settings = options
        try onRanks(4) { rank in
            Torch.threadCount = 1
            let world = try ProcessGroup.gloo(store, name: "world", rank: rank, size: 4, timeout: .seconds(60))
            let resharder = Resharder(
                try ReshardPlan(
                    held: held, wanted: wanted,
                    options: {
                        var options = settings
                        options.gathers = false
                        return options
                    }()), group: world)
            #expect(resharder.plan.buckets.count > 5)
            let holding = try held.ranks[rank].map { try Self.shard($0) }
            // Not yet stepped: what goes out now would be wrong.
            let values = try holding.map { try $0.tensor.cloned() }
            for shard in holding { try shard.tensor.fill(-1) }
            let targets = try resharder.targets(for: holding, device: .cpu)
            let run = try resharder.begin(from: holding, into: targets)
            let order = rank % 2 == 0 ? Array(holding.indices) : holding.indices.reversed()
            for index in order {
                try holding[index].tensor.copy(from: values[index])
                try run.ready([holding[index].box.name])
            }
            var complete: [Int] = []
            while let done = try run.next() { complete += done.complete }
            _ = try run.finish()
            #expect(complete.count == Set(complete).count)
            for target in targets {
                #expect(try target.tensor.equals(Self.shard(ShardSpec(box: target.box, dtype: .float32)).tensor))
            }
        }
    }

    @Test func nextSaysWhatIsComplete() throws {
        let store = try RendezvousStore.local(), rules = Self.dense
        let held = ShardLayout(rules.parameters, mesh: MeshShape([.shard: 2]), dtype: .float32)
        let wanted = ShardLayout(rules.parameters, mesh: MeshShape([.tensor: 2]), dtype: .float32)
        try onRanks(2) { rank in
            var options = ReshardPlan.Options()
            options.bucketBytes = 2000
            options.gathers = false
            let world = try ProcessGroup.gloo(store, name: "world", rank: rank, size: 2, timeout: .seconds(60))
            let resharder = Resharder(try ReshardPlan(held: held, wanted: wanted, options: options), group: world)
            let holding = try held.ranks[rank].map { try Self.shard($0) }
            let targets = try resharder.targets(for: holding, device: .cpu, aliasing: false)
            let run = try resharder.begin(from: holding, into: targets)
            var seen = 0
            while let done = try run.next() {
                for index in done.complete {
                    seen += 1
                    #expect(
                        try targets[index].tensor.equals(
                            Self.shard(ShardSpec(box: targets[index].box, dtype: .float32)).tensor))
                }
            }
            #expect(seen == targets.count)
        }
    }

    @Test func otherTensorsThanPlannedAreRefused() throws {
        let rules = Self.dense
        let layout = ShardLayout(rules.parameters, mesh: MeshShape(), dtype: .float32)
        let resharder = Resharder(try ReshardPlan(held: layout, wanted: layout), group: nil)
        let holding = try layout.ranks[0].map(Self.shard)
        let error = #expect(throws: ReshardError.self) {
            _ = try resharder.begin(from: Array(holding.dropFirst()), into: holding)
        }
        #expect(error?.code == .mismatch)
        let narrow = try holding.map { LocalShard(box: $0.box, tensor: try $0.tensor.to(dtype: .bfloat16)) }
        let type = #expect(throws: ReshardError.self) { _ = try resharder.begin(from: holding, into: narrow) }
        #expect(type?.message.contains("bfloat16") == true)
    }

    /// A gap is found by the plan, on every rank, before anything is sent.
    @Test func aGapIsAnErrorOnEveryRank() throws {
        let store = try RendezvousStore.local()
        try onRanks(2) { rank in
            let world = try ProcessGroup.gloo(store, name: "world", rank: rank, size: 2, timeout: .seconds(30))
            let box = ShardBox(whole: "w", shape: [8, 4])
            let error = #expect(throws: ReshardError.self) {
                _ = try Resharder(
                    held: rank == 0 ? [ShardSpec(box: box.rows(0..<6), dtype: .float32)] : [],
                    wanted: [ShardSpec(box: box, dtype: .float32)], group: world, device: .cpu)
            }
            #expect(error?.message.contains("'w'[6..<8, 0..<4] of [8, 4]") == true)
        }
    }

    // MARK: - Random boxes

    struct SplitMix: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
    }

    /// Tensors of 0 to 3 dimensions, held in random overlapping pieces that cover them, wanted in random boxes, strided in memory.
    @Test(arguments: 0..<12)
    func randomBoxes(_ seed: UInt64) throws {
        var random = SplitMix(state: seed)
        let ranks = 4
        var held = [[ShardSpec]](repeating: [], count: ranks), wanted = held
        for number in 0..<8 {
            let shape = (0..<Int.random(in: 0...3, using: &random)).map { _ in Int.random(in: 1...9, using: &random) }
            let whole = ShardBox(whole: "t\(number)", shape: shape)
            // Cut in two again and again; each piece to one rank or two.
            var pieces = [whole]
            for _ in 0..<Int.random(in: 0...4, using: &random) {
                let piece = pieces.remove(at: Int.random(in: pieces.indices, using: &random))
                guard
                    let dim = piece.ranges.indices.filter({ piece.ranges[$0].count > 1 }).randomElement(using: &random)
                else {
                    pieces.append(piece)
                    continue
                }
                let cut = Int.random(
                    in: piece.ranges[dim].lowerBound + 1..<piece.ranges[dim].upperBound, using: &random)
                var (low, high) = (piece, piece)
                low.ranges[dim] = piece.ranges[dim].lowerBound..<cut
                high.ranges[dim] = cut..<piece.ranges[dim].upperBound
                pieces += [low, high]
            }
            let types: [DType] = [.float32, .bfloat16]
            for piece in pieces {
                for _ in 0..<Int.random(in: 1...2, using: &random) {
                    held[Int.random(in: 0..<ranks, using: &random)].append(ShardSpec(box: piece, dtype: .float32))
                }
            }
            for rank in 0..<ranks where Bool.random(using: &random) {
                var box = whole
                for dim in box.ranges.indices {
                    let low = Int.random(in: 0..<shape[dim], using: &random)
                    box.ranges[dim] = low..<Int.random(in: low + 1...shape[dim], using: &random)
                }
                wanted[rank].append(ShardSpec(box: box, dtype: types.randomElement(using: &random)!))
            }
        }
        var options = ReshardPlan.Options()
        options.bucketBytes = 64
        options.messageBytes = Int.random(in: 1...64, using: &random)
        options.gathers = false
        options.ranksPerNode = 2
        let plan = try ReshardPlan(held: ShardLayout(ranks: held), wanted: ShardLayout(ranks: wanted), options: options)
        ReshardPlanTests.checkCover(plan)
        ReshardPlanTests.checkBuckets(plan)
        let store = try RendezvousStore.local()
        try onRanks(ranks) { rank in
            Torch.threadCount = 1
            let world = try ProcessGroup.gloo(store, name: "world", rank: rank, size: ranks, timeout: .seconds(60))
            let resharder = Resharder(plan, group: world)
            let sources = try plan.held.ranks[rank].map { try Self.strided(Self.shard($0)) }
            let targets = try plan.wanted.ranks[rank].map { spec in
                try Self.strided(LocalShard(box: spec.box, tensor: Tensor.zeros(spec.box.sizes, dtype: spec.dtype)))
            }
            try resharder.run(from: sources, into: targets)
            for target in targets {
                let right = try Self.shard(ShardSpec(box: target.box, dtype: .float32)).tensor.to(
                    dtype: target.tensor.dtype)
                #expect(try target.tensor.contiguous().equals(right), "\(target.box)")
            }
        }
    }

    /// The same values in memory of another order.
    private static func strided(_ shard: LocalShard) throws -> LocalShard {
        guard shard.tensor.rank > 1 else { return shard }
        let turned = try shard.tensor.transposed().contiguous().transposed()
        return LocalShard(box: shard.box, tensor: turned)
    }
}

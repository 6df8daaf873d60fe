import Collectives
import TensorCore
import Testing

@Suite struct ReshardPlanTests {
    /// 7B and 8B class sizes, two layers of them: the ratios are the whole model's but for the embeddings' share.
    static let dense: DecoderRules = {
        var rules = DecoderRules(
            vocabulary: 1024, hidden: 256, layers: 4, heads: 8, keyValueHeads: 4, headDim: 32, intermediate: 512,
            tiedEmbeddings: false)
        rules.attentionBias = true
        return rules
    }()

    static func layout(_ text: String, _ rules: DecoderRules = dense, _ dtype: DType = .bfloat16) throws -> ShardLayout
    {
        ShardLayout(rules.parameters, mesh: try MeshShape(parsing: text), dtype: dtype)
    }

    /// The same ranks, all of them, in another layout: `tp2` on eight ranks is `tp2×dp4`.
    static func plan(_ from: String, _ to: String, _ options: ReshardPlan.Options = .init()) throws -> ReshardPlan {
        try ReshardPlan(held: layout(from), wanted: layout(to), options: options)
    }

    @Test(arguments: [("fsdp2×tp4", "dp4×tp2"), ("fsdp4×tp4", "dp8×tp2"), ("fsdp8", "dp4×tp2"), ("fsdp2×tp4", "dp8")])
    func movesFarFewerBytesThanGatheringAll(_ pair: (from: String, to: String)) throws {
        let traffic = try Self.plan(pair.from, pair.to).traffic
        print(
            "reshard \(pair.from) to \(pair.to): \(traffic.total) bytes, gathering all \(traffic.gatheringAll), "
                + "\((traffic.saving * 1000).rounded() / 10) % fewer")
        if pair.to != "dp8" { #expect(traffic.saving >= 0.4, "\(pair): \(traffic)") }
        #expect(traffic.total <= traffic.gatheringAll)
    }

    /// Qwen2-7B's own shape. The first pair is the promise: TP2 rollout from TP4×FSDP training.
    @Test func savesTheSameOnAWholeModel() throws {
        var rules = DecoderRules(
            vocabulary: 152_064, hidden: 3584, layers: 28, heads: 28, keyValueHeads: 4, headDim: 128,
            intermediate: 18944,
            tiedEmbeddings: false)
        rules.attentionBias = true
        var saved: [Double] = []
        for (from, to) in [
            ("fsdp2×tp4", "dp4×tp2"), ("fsdp4×tp4", "dp8×tp2"), ("fsdp4", "dp2×tp2"), ("fsdp8", "dp4×tp2"),
            ("fsdp8", "tp8"),
            ("fsdp2×tp4", "dp2×tp4"), ("fsdp4", "dp4"),
        ] {
            let held = try Self.layout(from, rules), wanted = try Self.layout(to, rules)
            let plan = try ReshardPlan(held: held, wanted: wanted)
            let traffic = plan.traffic
            let places = ReshardPlacement.order(held: held, wanted: wanted)
            let placed = try ReshardPlan(held: held, wanted: wanted.ordered(places)).traffic.total
            saved.append(traffic.saving)
            let (moved, all) = (Double(traffic.total) / 1e9, Double(traffic.gatheringAll) / 1e9)
            print(
                "| `\(from)` | `\(to)` | \((moved * 100).rounded() / 100) GB | \((all * 100).rounded() / 100) GB | "
                    + "\((traffic.saving * 1000).rounded() / 10) % | placed \(Double(placed) / 1e9), \(plan.buckets.count) buckets, to each "
                    + "\(traffic.received.map { ($0 + 5_000_000) / 10_000_000 })")
        }
        #expect(saved[0] >= 0.4 && saved[1] >= 0.4)
    }

    @Test func theSameLayoutMovesNothingAndMayAliasAll() throws {
        let plan = try Self.plan("fsdp2×tp4", "fsdp2×tp4")
        #expect(plan.traffic.total == 0)
        for rank in 0..<8 {
            #expect(plan.aliases(of: rank).count == plan.wanted.ranks[rank].count)
            #expect(plan.traffic.aliasable[rank] == plan.wanted.byteCount(of: rank))
        }
    }

    @Test func aSmallerSliceOfTheSameTypeMayBeAView() throws {
        let plan = try Self.plan("1", "1")
        #expect(plan.aliases(of: 0).count == plan.wanted.ranks[0].count)
        let other = try ReshardPlan(held: Self.layout("1"), wanted: Self.layout("1", Self.dense, .float32))
        #expect(other.aliases(of: 0).isEmpty)
    }

    /// What a receiver gets covers what it wants once, and lies within what the sender holds.
    @Test func everyElementComesOnce() throws {
        for (from, to) in [("fsdp4×tp2", "dp4×tp2"), ("dp2×fsdp2×tp2", "tp8"), ("tp8", "fsdp8"), ("pp2×fsdp4", "dp8")] {
            for gathers in [false, true] {
                var options = ReshardPlan.Options()
                options.gathers = gathers
                options.bucketBytes = 40_000
                let plan = try Self.plan(from, to, options)
                Self.checkCover(plan)
                Self.checkBuckets(plan)
            }
        }
    }

    static func checkCover(_ plan: ReshardPlan) {
        var count: [[Int]: Int] = [:], boxes: [[Int]: [ShardBox]] = [:]
        for bucket in plan.buckets {
            for move in bucket.moves {
                let target = plan.wanted.ranks[move.to][move.wanted].box
                #expect(target.intersection(move.box) == move.box)
                #expect(plan.held.ranks[move.from][move.held].box.intersection(move.box) == move.box)
                count[[move.to, move.wanted], default: 0] += move.box.count
                boxes[[move.to, move.wanted], default: []].append(move.box)
            }
            for gather in bucket.gathers {
                for (rank, wanted) in zip(gather.ranks, gather.wanted) {
                    #expect(plan.wanted.ranks[rank][wanted].box == gather.box)
                    count[[rank, wanted], default: 0] += gather.box.count
                }
            }
        }
        for (rank, specs) in plan.wanted.ranks.enumerated() {
            for (index, spec) in specs.enumerated() {
                #expect(count[[rank, index], default: 0] == spec.box.count, "rank \(rank) \(spec)")
            }
        }
        for list in boxes.values {
            for (index, box) in list.enumerated() {
                for other in list[(index + 1)...] { #expect(box.intersection(other) == nil) }
            }
        }
    }

    static func checkBuckets(_ plan: ReshardPlan) {
        for bucket in plan.buckets where bucket.gathers.isEmpty {
            for rank in 0..<plan.rankCount {
                let sent = bucket.moves.filter { $0.from == rank && !$0.isLocal }.reduce(0) { $0 + $1.byteCount }
                let received = bucket.moves.filter { $0.to == rank && !$0.isLocal }.reduce(0) { $0 + $1.byteCount }
                #expect(max(sent, received) <= plan.options.bucketBytes)
            }
        }
    }

    @Test func copiesShareTheWork() throws {
        // Two copies of everything, four ranks of which none has all of its own half.
        let traffic = try Self.plan("dp2×fsdp4", "tp8").traffic
        let most = traffic.sent.max() ?? 0, mean = traffic.total / 8
        #expect(Double(most) < 1.6 * Double(mean), "\(traffic.sent)")
    }

    @Test func nearCopiesComeFirst() throws {
        var options = ReshardPlan.Options()
        options.ranksPerNode = 4
        // Each node holds all of it.
        let traffic = try Self.plan("dp2×fsdp4", "dp4×tp2", options).traffic
        #expect(traffic.links.allSatisfy { $0.from / 4 == $0.to / 4 })
        #expect(traffic.total > 0)
    }

    @Test func gathersWhereGroupsWantTheSame() throws {
        let plan = try Self.plan("fsdp4", "dp4")
        #expect(plan.traffic.gathered > 0)
        // Fused projections are cut across their parts: not everything is an equal share.
        #expect(plan.traffic.gathered > plan.traffic.total / 3 && plan.traffic.gathered < plan.traffic.total)
        var options = ReshardPlan.Options()
        options.gathers = false
        #expect(try Self.plan("fsdp4", "dp4", options).traffic.total == plan.traffic.total)
        // Of two shard groups each gathers among its own.
        let hybrid = try Self.plan("dp2×fsdp2", "dp4")
        #expect(Set(hybrid.buckets.flatMap { $0.gathers.map(\.ranks) }) == [[0, 1], [2, 3]])
    }

    @Test func ranksTakeThePlacesThatTheyHoldMostOf() throws {
        for (from, to) in [("fsdp4", "dp2×tp2"), ("fsdp2×tp4", "dp4×tp2"), ("fsdp8", "dp4×tp2"), ("tp4", "tp4")] {
            let held = try Self.layout(from), wanted = try Self.layout(to)
            let order = ReshardPlacement.order(held: held, wanted: wanted)
            #expect(order.sorted() == Array(0..<held.rankCount))
            let before = try ReshardPlan(held: held, wanted: wanted).traffic.total
            let after = try ReshardPlan(held: held, wanted: wanted.ordered(order)).traffic.total
            print("placement \(from) to \(to): \(before) bytes, placed \(after), \(order)")
            #expect(after <= before)
            if from == to { #expect(order == Array(0..<held.rankCount)) }
            if from == "fsdp2×tp4" { #expect(Double(after) < 0.9 * Double(before)) }
        }
    }

    @Test func aGapIsNamed() throws {
        var held = try Self.layout("fsdp4")
        let name = "model.layers.1.mlp.down_proj.weight"
        held.ranks[2].removeAll { $0.box.name == name }
        let wanted = try Self.layout("dp2×tp2")
        let error = #expect(throws: ReshardError.self) { try ReshardPlan(held: held, wanted: wanted) }
        #expect(error?.code == .gap)
        #expect(error?.message.contains("'\(name)'[128..<192, 0..<256] of [256, 512]") == true, "\(error as Any)")
        held.ranks = held.ranks.map { $0.filter { $0.box.name != name } }
        let none = #expect(throws: ReshardError.self) { try ReshardPlan(held: held, wanted: wanted) }
        #expect(none?.message.contains("held nowhere") == true)
    }

    @Test func disagreementIsNamed() throws {
        let box = ShardBox(whole: "w", shape: [4, 4]), other = ShardBox(whole: "w", shape: [4, 5])
        let shape = #expect(throws: ReshardError.self) {
            try ReshardPlan(
                held: ShardLayout(ranks: [[.init(box: box, dtype: .float32)]]),
                wanted: ShardLayout(ranks: [[.init(box: other, dtype: .float32)]]))
        }
        #expect(shape?.code == .shape)
        let type = #expect(throws: ReshardError.self) {
            try ReshardPlan(
                held: ShardLayout(ranks: [[.init(box: box, dtype: .int64)]]),
                wanted: ShardLayout(ranks: [[.init(box: box, dtype: .float32)]]))
        }
        #expect(type?.code == .type)
    }

    @Test func layoutsAreRead() throws {
        #expect(try MeshShape(parsing: "tp2×dp2") == MeshShape([.tensor: 2, .replicate: 2]))
        #expect(try MeshShape(parsing: "fsdp4xtp2").description == "fsdp4×tp2")
        #expect(try MeshShape(parsing: "1").rankCount == 1)
        for bad in ["", "4", "tp", "tp0", "tp2×tp2", "zz3", "tp-1"] {
            #expect(throws: ReshardError.self) { try MeshShape(parsing: bad) }
        }
    }
}

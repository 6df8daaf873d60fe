/// How many devices share what of a training step.
public struct PlanLayout: Sendable, Hashable {
    /// What is split over the `fsdp` axis.
    public enum Sharding: String, Sendable, Hashable, CaseIterable {
        /// Nothing: every device has all of it.
        case noShard = "NO_SHARD"
        /// Gradients, masters and moments.
        case gradOp = "SHARD_GRAD_OP"
        /// The weights too, gathered layer by layer.
        case full = "FULL_SHARD"
    }

    /// Replicas; devices that shard parameters; parts of each matrix; parts of each sequence; parts of the experts; stages.
    public var dp = 1, fsdp = 1, tp = 1, sp = 1, ep = 1, pp = 1
    public var sharding = Sharding.full

    public init() {}

    public var devices: Int { dp * fsdp * tp * sp * pp }
    /// Ranks that work on batches of their own.
    public var dataRanks: Int { dp * fsdp }
    var shards: Int { fsdp * sp }

    public var description: String {
        let axes = [("dp", dp), ("fsdp", fsdp), ("tp", tp), ("sp", sp), ("ep", ep), ("pp", pp)].filter { $0.1 > 1 }
        guard !axes.isEmpty else { return "one device" }
        return axes.map { "\($0.0)=\($0.1)" }.joined(separator: " ") + (fsdp > 1 ? " \(sharding.rawValue)" : "")
    }

    /// `tp=2,fsdp=4`, of the axes above; nil for anything else.
    public init?(_ text: String) {
        for pair in text.split(separator: ",", omittingEmptySubsequences: false) {
            let parts = pair.split(separator: "=", omittingEmptySubsequences: false)
            guard parts.count == 2, let value = Int(parts[1]), (1...65_536).contains(value) else { return nil }
            switch parts[0] {
            case "dp": dp = value
            case "fsdp": fsdp = value
            case "tp": tp = value
            case "sp": sp = value
            case "ep": ep = value
            case "pp": pp = value
            default: return nil
            }
        }
    }

    /// Why the model cannot be split so; nil when it can.
    func problem(_ model: PlanModel) -> String? {
        if model.keyValueHeads % tp != 0 || model.queryHeads % tp != 0 {
            return "tp=\(tp) does not divide \(model.queryHeads) heads over \(model.keyValueHeads) key-value heads"
        }
        if model.queryHeads % (tp * sp) != 0 { return "sp=\(sp) does not divide \(model.queryHeads / tp) heads" }
        if ep > 1, model.experts == 0 || model.experts % ep != 0 {
            return model.experts == 0
                ? "there are no experts for ep=\(ep)" : "ep=\(ep) does not divide \(model.experts) experts"
        }
        if ep > 1, (dp * fsdp * sp) % ep != 0 { return "ep=\(ep) does not divide the data ranks" }
        return model.layers < pp ? "\(model.layers) layers make no \(pp) stages" : nil
    }

    /// Every layout of `count` devices that is worth a look, the simplest first.
    static func candidates(_ count: Int, _ model: PlanModel) -> [PlanLayout] {
        var all: [PlanLayout] = []
        func divisors(_ n: Int) -> [Int] { (1...max(1, n)).filter { n % $0 == 0 } }
        for tp in divisors(count) where tp <= 8 {
            for sp in divisors(count / tp) where sp <= 8 {
                let rest = count / tp / sp
                for sharding in Sharding.allCases where rest > 1 || sharding == .full {
                    for ep in [1, min(model.experts, rest)] where ep == 1 || model.experts > 0 && ep > 1 {
                        var layout = PlanLayout()
                        (layout.tp, layout.sp, layout.ep, layout.sharding) = (tp, sp, ep, sharding)
                        if sharding == .noShard { layout.dp = rest } else { layout.fsdp = rest }
                        all.append(layout)
                    }
                }
            }
        }
        return all
    }
}

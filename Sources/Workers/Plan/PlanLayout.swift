public import Collectives
import TrainingEngine

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
    /// Parts of each matrix in sampling.
    public var rollout = 1

    public init() {}

    /// As a configuration shares a number of ranks out.
    public init(_ plan: ShardingPlan) {
        (dp, fsdp, tp) = (plan.mesh[.replicate], plan.mesh[.shard], plan.mesh[.tensor])
        (sp, ep, pp) = (plan.mesh[.sequence], plan.mesh[.expert], plan.mesh[.pipeline])
        rollout = plan.rollout[.tensor]
        sharding =
            switch plan.options.mode {
            case .fullShard: .full
            case .shardGradOp: .gradOp
            case .noShard: .noShard
            }
    }

    public var devices: Int { dp * fsdp * ep * tp * sp * pp }
    /// Ranks that work on batches of their own.
    public var dataRanks: Int { dp * fsdp * ep }
    /// Ranks among which a tensor's rows are shared out.
    var shards: Int { sharding == .noShard ? 1 : fsdp }
    /// Ranks that hold the same rows and add their gradients up.
    var copies: Int { dataRanks * sp / shards }
    /// Whether sampling reads the tensors that are trained, brought together along `fsdp`; else it has a model of its own.
    var samplesFromTrained: Bool { tp * ep * pp * rollout == 1 }

    public var description: String {
        let axes = [("dp", dp), ("fsdp", fsdp), ("tp", tp), ("sp", sp), ("ep", ep), ("pp", pp), ("rollout", rollout)]
            .filter { $0.1 > 1 }
        guard !axes.isEmpty else { return "one device" }
        return axes.map { "\($0.0)=\($0.1)" }.joined(separator: " ") + (fsdp > 1 ? " \(sharding.rawValue)" : "")
    }

    /// What a recipe says for it.
    public var settings: [String] {
        let sizes = [
            ("trainer.n_gpus_per_node", devices), ("actor.megatron.tensor_model_parallel_size", tp),
            ("actor.ulysses_sequence_parallel_size", sp), ("actor.megatron.expert_model_parallel_size", ep),
            ("actor.megatron.pipeline_model_parallel_size", pp), ("rollout.tensor_model_parallel_size", rollout),
            ("actor.fsdp_config.fsdp_size", shards),
        ]
        return sizes.filter { $0.1 > 1 }.map { "\($0.0)=\($0.1)" }
            + (shards > 1 && sharding == .gradOp ? ["actor.fsdp_config.reshard_after_forward=false"] : [])
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
            case "rollout": rollout = value
            default: return nil
            }
        }
    }

    /// Whether so many ranks can share each matrix. Where there are fewer key-value heads than ranks, several hold the same one.
    private static func shares(_ model: PlanModel, _ ranks: Int) -> Bool {
        model.queryHeads % ranks == 0 && (model.keyValueHeads % ranks == 0 || ranks % model.keyValueHeads == 0)
    }

    /// Why the model cannot be split so; nil when it can.
    func problem(_ model: PlanModel) -> String? {
        for (axis, size) in [("tp", tp), ("rollout", rollout)] where !Self.shares(model, size) {
            return
                "\(axis)=\(size) does not divide \(model.queryHeads) heads over \(model.keyValueHeads) key-value heads"
        }
        if model.queryHeads % (tp * sp) != 0 { return "sp=\(sp) does not divide \(model.queryHeads / tp) heads" }
        if devices % rollout != 0 { return "rollout=\(rollout) does not divide \(devices) devices" }
        if ep > 1, model.experts == 0 || model.experts % ep != 0 {
            return model.experts == 0
                ? "there are no experts for ep=\(ep)" : "ep=\(ep) does not divide \(model.experts) experts"
        }
        return model.layers < pp ? "\(model.layers) layers make no \(pp) stages" : nil
    }

    /// Every layout of `count` devices that is worth a look, the simplest first.
    static func candidates(_ count: Int, _ model: PlanModel) -> [PlanLayout] {
        var all: [PlanLayout] = []
        func divisors(_ n: Int) -> [Int] { (1...max(1, n)).filter { n % $0 == 0 } }
        for tp in divisors(count) where tp <= 8 {
            for sp in divisors(count / tp) where sp <= 8 {
                let rest = count / tp / sp
                // Stages are for many devices, where a wider cut of every matrix costs more than waiting for the first micro-batch.
                for pp in [2, 4] where count >= 16 && sp == 1 && rest % pp == 0 && model.layers >= 2 * pp {
                    var layout = PlanLayout()
                    (layout.tp, layout.pp, layout.fsdp) = (tp, pp, rest / pp)
                    all.append(layout)
                }
                for ep in divisors(rest) where ep == 1 || (model.experts > 0 && model.experts % ep == 0) {
                    let sets = rest / ep
                    for sharding in Sharding.allCases where sets > 1 || sharding == .full {
                        for rollout in divisors(count) where rollout <= 8 && shares(model, rollout) {
                            var layout = PlanLayout()
                            (layout.tp, layout.sp, layout.ep, layout.sharding) = (tp, sp, ep, sharding)
                            layout.rollout = rollout
                            if sharding == .noShard { layout.dp = sets } else { layout.fsdp = sets }
                            all.append(layout)
                        }
                    }
                }
            }
        }
        return all
    }
}

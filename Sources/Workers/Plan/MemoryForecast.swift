import Collectives
import Models
import TensorCore
import TrainingEngine

/// Bytes of one device in each phase of a step, by what they are for.
///
/// P elements of the device's share of the model, w bytes a value, T tokens of a micro-batch on the device:
/// - weights `P·w`; masters `4·P` and moments as AdamW stores them, exactly, tensor by tensor; gradients `4·P` or `2·P`; where ranks
///   share tensors out, their rows of each, and what passes bring together;
/// - activations as `ActivationBytes` says, with the final norm's `2·T·C·w`; the layer that backward is in once more;
/// - the logits' chunk, `rows·V·w`, and the gradient of its hidden states;
/// - the cache of keys and values in whole blocks, as the engine asks for, or as much as its share of free memory gives.
public struct MemoryForecast: Sendable, Hashable {
    public enum Kind: String, Sendable, Hashable, CaseIterable {
        case weights, reference, critic
        case masters = "master weights"
        case moments
        case gradients
        case gradientInFlight = "gradient in flight"
        case activations
        case layer = "one layer's work"
        case logits = "logits chunk"
        case cache = "KV cache"
        case graphs = "CUDA graphs"
        case engine = "engine's step"
        case copies = "packed weights"
        case gathered = "gathered layers"
        case rolloutWeights = "rollout weights"
        case bucket = "resharding bucket"
        case slabs = "optimizer's slabs"
        case communication = "NCCL"
        case context = "context"

        /// Whether it is tensors, which the allocator counts.
        var isTensor: Bool { self != .context && self != .communication && self != .graphs }
    }

    public struct Phase: Sendable, Hashable {
        public var name: String
        public var parts: [(kind: Kind, bytes: Int)]
        public var total: Int { parts.reduce(0) { $0 &+ $1.bytes } }
        /// What an allocator reports as its peak.
        public var tensors: Int { parts.reduce(0) { $0 &+ ($1.kind.isTensor ? $1.bytes : 0) } }
        public subscript(kind: Kind) -> Int { parts.first { $0.kind == kind }?.bytes ?? 0 }

        public static func == (a: Phase, b: Phase) -> Bool {
            a.name == b.name && a.parts.map(\.kind) == b.parts.map(\.kind)
                && a.parts.map(\.bytes) == b.parts.map(\.bytes)
        }
        public func hash(into hasher: inout Hasher) { hasher.combine(name) }
    }

    public private(set) var phases: [Phase] = []
    /// States that wait in pinned host memory, of one device.
    public private(set) var hostBytes = 0
    /// Weights and states that wait there between two uses.
    public private(set) var restingBytes = 0
    /// Tokens that a micro-batch has at the most on a device, and micro-batches of an optimizer step.
    public let microTokens, microBatches: Int

    /// The phase with the most.
    public var worst: Phase { phases.max { $0.total < $1.total } ?? Phase(name: "none", parts: []) }
    public var peak: Int { worst.total }
    /// The most that an allocator reports.
    public var peakTensors: Int { phases.map(\.tensors).max() ?? 0 }

    /// Whose memory lies in the host's but for its turn: as asked for, or else the least that leaves room enough.
    public private(set) var rests = RestingRoles()
    /// Bytes that come and go for that in a step, both ways together.
    public private(set) var restingTraffic = 0

    /// Whether the sampler's cache and graphs stay while others compute: as asked for, or else where there is room for all of it.
    public private(set) var keepsCache = false
    /// Of the sampler.
    public var cacheBytes: Int { phases.first { $0.name == "generate" }?[.cache] ?? 0 }

    init(_ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout, device: PlanDevice) {
        let levels = RestingChoices(work, isCUDA: device.isCUDA).levels
        self.init(model, work, layout, device: device, rests: levels[0], keepsCache: work.keepsCache)
        func forecast(_ rests: RestingRoles, keepsCache: Bool) -> MemoryForecast {
            MemoryForecast(model, work, layout, device: device, rests: rests, keepsCache: keepsCache)
        }
        for level in levels.dropFirst() where !fits(device) {
            let resting = forecast(level, keepsCache: work.keepsCache)
            // In vain where the peak is the turn's own.
            if resting.peak < peak { self = resting }
        }
        if work.mayKeepCache, fits(device) {
            let awake = forecast(rests, keepsCache: true)
            // One that is cut to the memory that there is takes all of it.
            if awake.fits(device), cacheBytes == DeviceShare(model, work, layout).neededCache { self = awake }
        }
    }

    private init(
        _ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout, device: PlanDevice, rests: RestingRoles,
        keepsCache: Bool
    ) {
        self.rests = rests
        self.keepsCache = keepsCache
        let share = DeviceShare(model, work, layout)
        let perStep = work.batchTokens * min(work.miniBatch, work.prompts) / max(1, work.prompts * layout.dataRanks)
        let budget = min(work.microBatchTokens * layout.sp, max(1, perStep))
        microBatches = (max(1, perStep) + budget - 1) / budget
        microTokens = (budget + layout.sp - 1) / layout.sp
        let training = TrainingBytes(share, tokens: microTokens, microBatches: microBatches, isCUDA: device.isCUDA)

        var resident: [(Kind, Int)] = [(.context, device.contextBytes)]
        // Those of samplers that share matrices count with what generation takes.
        if work.trainsPolicy || (work.generates && layout.samplesFromTrained) {
            resident.append((.weights, share.weights))
        }
        if layout.devices > 1 || work.samplesApart, device.isCUDA {
            resident.append((.communication, Self.communication(layout)))
        }
        let isOnHost = device.isCUDA
        var turns = Turns()
        if work.needsReference { turns.reference = share.weights }
        if work.trainsCritic {
            let kept = share.criticStates.kept(isOnHost ? work.optimizer : nil)
            hostBytes += share.criticStates.bytes - kept
            (turns.criticWeights, turns.criticStates) = (share.criticWeights, kept)
        }
        for (kind, bytes, moving) in !work.learns
            ? []
            : [
                (Kind.masters, share.masters, work.optimizer.offloadsMasters ? 1 : 0),
                (.moments, share.moments, work.optimizer.offloadsMoments ? work.optimizer.offloadedMoments : 0),
            ] where bytes > 0
        {
            let onHost = isOnHost ? Int(Double(bytes) * moving) : 0
            hostBytes += onHost
            turns.states.append((kind, bytes - onHost))
        }
        if !rests.reference { resident.append((.reference, turns.reference)) }
        if !rests.critic { resident.append((.critic, turns.critic)) }
        if !rests.states { resident += turns.states }
        func phase(_ name: String, _ more: [(Kind, Int)]) {
            phases.append(
                Phase(name: name, parts: (resident + more).filter { $0.1 > 0 }.map { (kind: $0.0, bytes: $0.1) }))
        }
        if work.generates {
            let held = resident.reduce(0) { $0 + $1.1 }
            let taken = share.generation(device: device, free: max(0, device.memory - held))
            phase("generate", taken)
            // The weights' copies never outlive a rollout; graphs hold what their steps compute with.
            if keepsCache { resident += taken.filter { [.cache, .engine, .graphs].contains($0.0) } }
        }
        if work.recomputesLogProbs || work.needsReference {
            phase("log-prob", (rests.reference ? [(.reference, turns.reference)] : []) + training.scoring)
        }
        // Below an adapter the policy's own gradients are few, a critic trains all of its weights; nor is the policy's update the most
        // where either has gone meanwhile.
        if work.trainsCritic, model.usesAdapter || !work.trainsPolicy || rests.critic || rests.states {
            if rests.critic { phase("values", [(.critic, turns.criticWeights)] + training.scoring) }
            phase("update critic", (rests.critic ? [(.critic, turns.critic)] : []) + training.updateOfCritic)
        }
        if work.learns {
            let states = rests.states ? turns.states : []
            phase("update", states + training.update)
            phase("optimizer step", states + training.step(offloaded: hostBytes > 0))
        }
        if work.samplesApart {
            phase("weight sync", [(.bucket, 4 * ReshardPlan.Options().bucketBytes)])
        } else if layout.devices > 1, work.generates {
            phase("weight sync", [(.rolloutWeights, share.rolloutCopy), (.bucket, share.staging)])
        }
        hostBytes += training.hostActivations
        (restingBytes, restingTraffic) = turns.resting(rests)
    }

    /// What roles have on the device of their own, in bytes.
    private struct Turns {
        var reference = 0, criticWeights = 0, criticStates = 0
        var states: [(Kind, Int)] = []
        var critic: Int { criticWeights + criticStates }

        /// What the host holds of it, and what travels in a step: a reference comes once and never goes back; a critic's weights come
        /// for values and for the update; what was trained goes back.
        func resting(_ rests: RestingRoles) -> (bytes: Int, traffic: Int) {
            let states = states.reduce(0) { $0 + $1.1 }
            return (
                (rests.reference ? reference : 0) + (rests.critic ? critic : 0) + (rests.states ? states : 0),
                (rests.reference ? reference : 0) + (rests.critic ? 3 * criticWeights + 2 * criticStates : 0)
                    + (rests.states ? 2 * states : 0)
            )
        }
    }

    /// NCCL's buffers: the first group of ranks brings most, each further kind of groups some.
    private static func communication(_ layout: PlanLayout) -> Int {
        let axes = [layout.dp, layout.fsdp, layout.tp, layout.sp, layout.ep, layout.pp].count { $0 > 1 }
        return 600 << 20 + max(0, axes - 1) * (200 << 20)
    }

    /// Whether the device has room for the worst phase; a CUDA allocator loses some to gaps.
    public func fits(_ device: PlanDevice) -> Bool { peak <= Self.usable(device) }
    static func usable(_ device: PlanDevice) -> Int { device.isCUDA ? device.memory / 100 * 97 : device.memory }
}

import Models
import TensorCore
import TrainingEngine

/// Bytes of one device in each phase of a step, by what they are for.
///
/// P elements of the device's share of the model, w bytes a value, T tokens of a micro-batch on the device:
/// - weights `P·w`; masters `4·P` and moments as AdamW stores them, exactly, tensor by tensor; gradients `4·P` or `2·P`;
/// - activations as `ActivationBytes` says, with the final norm's `2·T·C·w`; the layer that backward is in once more;
/// - the logits' chunk, `rows·V·w`, and the gradient of its hidden states;
/// - the cache of keys and values in whole blocks, as the engine asks for, or as much as its share of free memory gives.
public struct MemoryForecast: Sendable, Hashable {
    public enum Kind: String, Sendable, Hashable, CaseIterable {
        case weights, reference
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
    /// Tokens that a micro-batch has at the most on a device, and micro-batches of an optimizer step.
    public let microTokens, microBatches: Int

    /// The phase with the most.
    public var worst: Phase { phases.max { $0.total < $1.total } ?? Phase(name: "none", parts: []) }
    public var peak: Int { worst.total }
    /// The most that an allocator reports.
    public var peakTensors: Int { phases.map(\.tensors).max() ?? 0 }

    init(_ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout, device: PlanDevice) {
        let share = DeviceShare(model, work, layout)
        let perStep = work.batchTokens * min(work.miniBatch, work.prompts) / max(1, work.prompts * layout.dataRanks)
        let budget = min(work.microBatchTokens * layout.sp, max(1, perStep))
        microBatches = (max(1, perStep) + budget - 1) / budget
        microTokens = (budget + layout.sp - 1) / layout.sp
        let training = TrainingBytes(share, tokens: microTokens, microBatches: microBatches, isCUDA: device.isCUDA)

        var resident: [(Kind, Int)] = [(.context, device.contextBytes), (.weights, share.weights)]
        if layout.devices > 1 { resident.append((.communication, 600 << 20)) }
        if work.needsReference { resident.append((.reference, share.weights)) }
        let isOnHost = device.isCUDA
        for (kind, bytes, moves) in [
            (Kind.masters, share.masters, work.optimizer.offloadsMasters),
            (.moments, share.moments, work.optimizer.offloadsMoments),
        ] where bytes > 0 {
            if moves && isOnHost { hostBytes += bytes } else { resident.append((kind, bytes)) }
        }
        func phase(_ name: String, _ more: [(Kind, Int)]) {
            phases.append(
                Phase(name: name, parts: (resident + more).filter { $0.1 > 0 }.map { (kind: $0.0, bytes: $0.1) }))
        }
        if work.generates {
            let held = resident.reduce(0) { $0 + $1.1 }
            phase("generate", share.generation(device: device, free: max(0, device.memory - held)))
        }
        if work.recomputesLogProbs || work.needsReference { phase("log-prob", training.scoring) }
        phase("update", training.update)
        phase("optimizer step", training.step(offloaded: hostBytes > 0))
        if layout.devices > 1 { phase("weight sync", [(.rolloutWeights, share.rolloutCopy), (.bucket, 1 << 30)]) }
        hostBytes += training.hostActivations
    }

    /// Whether the device has room for the worst phase; a CUDA allocator loses some to gaps.
    public func fits(_ device: PlanDevice) -> Bool { peak <= Self.usable(device) }
    static func usable(_ device: PlanDevice) -> Int { device.isCUDA ? device.memory / 100 * 97 : device.memory }
}

/// What of a model one device keeps.
struct DeviceShare {
    let model: PlanModel
    let work: PlanWork
    let layout: PlanLayout
    let isSharded: Bool

    init(_ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout) {
        self.model = model
        self.work = work
        self.layout = layout
        isSharded = layout.sharding == .full && layout.shards > 1
    }

    /// A tensor's elements before data ranks share it: matrices are cut by tensor parallelism, experts over their axis, layers
    /// over stages.
    private func local(_ tensor: PlanModel.Tensor) -> Int {
        var parts = tensor.shape.count > 1 ? layout.tp : 1
        if tensor.part == .experts { parts *= layout.ep }
        if tensor.part == .layer || tensor.part == .experts { parts *= layout.pp }
        return (tensor.count + parts - 1) / parts
    }
    /// The same shared by data ranks; an expert's copies are fewer.
    private func shard(_ tensor: PlanModel.Tensor) -> Int {
        let ranks = tensor.part == .experts ? max(1, layout.shards / layout.ep) : layout.shards
        return (local(tensor) + ranks - 1) / ranks
    }

    private func sum(_ tensors: [PlanModel.Tensor], _ bytes: (PlanModel.Tensor) -> Int) -> Int {
        tensors.reduce(0) { $0 &+ bytes($1) }
    }
    var width: Int { work.dtype.size }
    /// The weights that stay; gathered layers come and go.
    var weights: Int {
        let frozen = model.usesAdapter ? sum(model.trained) { local($0) * width } : 0
        return frozen + sum(model.tensors) { (isSharded ? shard($0) : local($0)) * width }
    }
    private var hasShardedStates: Bool { layout.sharding != .noShard && layout.shards > 1 }
    private func state(_ tensor: PlanModel.Tensor) -> Int { hasShardedStates ? shard(tensor) : local(tensor) }
    var masters: Int {
        work.dtype == .float32 || !work.optimizer.keepsMasters ? 0 : sum(model.trained) { 4 * state($0) }
    }
    var moments: Int { sum(model.trained) { 2 * work.optimizer.moments.bytes(state($0)) } }
    var gradientWidth: Int { work.dtype == .float32 ? 4 : work.optimizer.gradDType.size }
    var gradients: Int { sum(model.trained) { gradientWidth * state($0) } }
    var trainedCount: Int { sum(model.trained) { state($0) } }
    /// The widest gradient as backward leaves it, before it joins its sum.
    var largestGradient: Int { (model.trained.map { local($0) }.max() ?? 0) * width }
    /// Two layers whole, one that is computed and one on its way.
    var gathered: Int {
        guard isSharded else { return 0 }
        let layers = sum(model.tensors.filter { $0.part == .layer || $0.part == .experts }) { local($0) * width }
        let ends =
            model.tensors.filter { $0.part == .embedding || $0.part == .head }.map { local($0) * width }.max() ?? 0
        return max(2 * layers * layout.pp / max(1, model.layers), ends)
    }
    /// The weights of sampling, where the training's layout has no whole copy.
    var rolloutCopy: Int { isSharded ? sum(model.tensors) { local($0) * width } : 0 }

    /// What generation takes besides what stays.
    func generation(device: PlanDevice, free: Int) -> [(MemoryForecast.Kind, Int)] {
        let engine = work.engine, groups = max(1, layout.devices / layout.tp)
        let cacheWidth = engine.cachesInFloat8 ? 1 : width
        let perToken = max(1, model.cacheElements / layout.tp) * cacheWidth, block = engine.blockSize
        let prompts = (work.prompts + groups - 1) / groups
        let atOnce = min(prompts, max(1, (engine.maxRows + work.samples - 1) / work.samples))
        let whole = (work.promptTokens + work.responseTokens + block - 1) / block, shared = work.promptTokens / block
        let rows = min(engine.maxRows, prompts * work.samples)
        let needed = (atOnce * (shared + work.samples * (whole - shared) + 1) + 2) * block * perToken
        guard device.isCUDA else {
            // Decoding multiplies with copies of the weights in the kernels' own layout, unless they are quantised.
            let matrices = model.tensors.filter { $0.shape.count > 1 && ($0.part != .embedding || model.isTied) }
            let bits = engine.quantization.map { $0 == .int8 ? 8 : 4 } ?? 8 * width
            return [(.cache, needed), (.copies, sum(matrices) { $0.count / 8 * bits })]
        }
        let stepTokens = min(engine.maxStepTokens, prompts * work.promptTokens + rows)
        let activations = stepTokens * model.hidden * 6 * width + rows * model.vocabulary * 8 / layout.tp
        let copy = rolloutCopy
        let pool = min(needed, max(0, Int(Double(free - copy) * engine.memoryFraction) - activations))
        return [
            (.rolloutWeights, copy), (.cache, pool), (.engine, activations),
            (.graphs, engine.usesGraphs ? 256 << 20 : 0),
        ]
    }
}

/// What training's passes take besides what stays.
struct TrainingBytes {
    let share: DeviceShare
    let tokens, microBatches: Int
    private let kept, transient, last, logits: Int
    private(set) var hostActivations = 0

    init(_ share: DeviceShare, tokens: Int, microBatches: Int, isCUDA: Bool) {
        self.share = share
        self.tokens = tokens
        self.microBatches = microBatches
        let model = share.model, work = share.work, layer = model.layer, width = share.width, split = share.layout.tp
        let stages = share.layout.pp, mine = (model.layers + stages - 1) / stages
        func bytes(_ index: Int) -> Int {
            ActivationBytes(layer, dtype: work.dtype, mode: work.checkpointing.mode(layer: index)).total * tokens
                / split
        }
        // A pipeline's first stage has as many micro-batches under way as there are stages.
        var all = (0..<mine).reduce(0) { $0 &+ bytes($1) } * stages
        if work.offloadsActivations, isCUDA, work.checkpointing != .none {
            let stays = (0..<min(2, mine)).reduce(0) { $0 &+ bytes($1) }
            hostActivations = max(0, all - stays)
            all = min(all, stays)
        }
        kept = all
        last = 2 * tokens * model.hidden * width
        let work1 = ActivationBytes.transient(layer, dtype: work.dtype)
        let whole = ActivationBytes(layer, dtype: work.dtype, mode: .none).total
        transient = (work.checkpointing.mode(layer: 0) == .none ? work1 - whole : work1) * tokens / split
        let answers = min(
            tokens,
            max(
                1,
                tokens * work.responseTokens
                    / max(1, work.responseTokens + work.promptTokens / max(1, work.sharesPrefix ? work.samples : 1))))
        logits = HeadBytes(model, width: width, isCUDA: isCUDA, answers: answers).bytes / split
    }

    /// Forward alone: one layer at a time.
    var scoring: [(MemoryForecast.Kind, Int)] {
        [(.gathered, share.gathered), (.layer, transient), (.activations, last), (.logits, logits)]
    }

    /// Backward begins with all activations and ends with all gradients; with gradients of an earlier micro-batch it has both.
    var update: [(MemoryForecast.Kind, Int)] {
        let gradients = share.gradients
        let flight = share.gradientWidth == share.width && microBatches == 1 ? 0 : share.largestGradient
        let head = share.model.tensors.first { $0.part == (share.model.isTied ? .embedding : .head) }
        let headGradient = share.model.usesAdapter ? 0 : (head?.count ?? 0) / share.layout.tp * share.gradientWidth
        let first: [(MemoryForecast.Kind, Int)] = [
            (.gathered, share.gathered), (.gradients, microBatches > 1 ? gradients : min(gradients, headGradient)),
            (.gradientInFlight, flight), (.activations, kept + last), (.logits, logits),
        ]
        let early: [(MemoryForecast.Kind, Int)] = [
            (.gathered, share.gathered), (.gradients, microBatches > 1 ? gradients : min(gradients, headGradient)),
            (.gradientInFlight, flight), (.activations, kept + last), (.layer, transient),
        ]
        let late: [(MemoryForecast.Kind, Int)] = [
            (.gathered, share.gathered), (.gradients, gradients), (.gradientInFlight, flight),
            (.activations, kept / max(1, share.model.layers)), (.layer, transient),
        ]
        func total(_ parts: [(MemoryForecast.Kind, Int)]) -> Int { parts.reduce(0) { $0 &+ $1.1 } }
        return [first, early, late].max { total($0) < total($1) } ?? first
    }

    func step(offloaded: Bool) -> [(MemoryForecast.Kind, Int)] {
        let settings = share.work.optimizer, element = 1 << 24
        let bytes =
            (settings.offloadsMasters && share.masters > 0 ? 4 : 0)
            + (settings.offloadsMoments ? 2 * settings.moments.bytes(element) / element : 0)
        let loads = min(3, (share.trainedCount + element - 1) / element)
        return [
            (.gradients, share.gradients), (.slabs, offloaded ? loads * min(element, share.trainedCount) * bytes : 0),
        ]
    }
}

/// The chunk of logits that the head works on, and what belongs to it.
struct HeadBytes {
    let bytes: Int

    /// - Parameter answers: rows that are scored.
    init(_ model: PlanModel, width: Int, isCUDA: Bool, answers: Int) {
        let most = (5 << 28) / (max(1, model.vocabulary) * width) / 256 * 256
        let chunk = isCUDA ? min(max(most, 256), 8192) : 256
        let parts = (answers + chunk - 1) / chunk, rows = (answers + max(1, parts) - 1) / max(1, parts)
        let hidden = 2 * answers * model.hidden * width
        bytes = rows * ((model.vocabulary + 7) / 8 * 8) * (isCUDA ? width : 2 * width) + hidden + 12 * answers
    }
}

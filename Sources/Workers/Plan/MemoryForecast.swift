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
    /// Weights that wait there between two uses.
    public private(set) var restingBytes = 0
    /// Tokens that a micro-batch has at the most on a device, and micro-batches of an optimizer step.
    public let microTokens, microBatches: Int

    /// The phase with the most.
    public var worst: Phase { phases.max { $0.total < $1.total } ?? Phase(name: "none", parts: []) }
    public var peak: Int { worst.total }
    /// The most that an allocator reports.
    public var peakTensors: Int { phases.map(\.tensors).max() ?? 0 }

    /// Whether a reference model's weights lie in host memory between two scorings: as asked for, or else where there is no room.
    public private(set) var restsReference = false

    init(_ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout, device: PlanDevice) {
        let rests = work.needsReference && (work.restsReference ?? false)
        self.init(model, work, layout, device: device, restsReference: rests)
        if work.needsReference, work.restsReference == nil, device.isCUDA, !fits(device) {
            let resting = MemoryForecast(model, work, layout, device: device, restsReference: true)
            // In vain where the peak is the scoring's own.
            if resting.peak < peak { self = resting }
        }
    }

    private init(
        _ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout, device: PlanDevice, restsReference: Bool
    ) {
        self.restsReference = restsReference
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
        if work.needsReference, !restsReference { resident.append((.reference, share.weights)) }
        if work.trainsCritic { resident.append((.critic, share.critic)) }
        let isOnHost = device.isCUDA
        for (kind, bytes, moving) in !work.learns
            ? []
            : [
                (Kind.masters, share.masters, work.optimizer.offloadsMasters ? 1 : 0),
                (.moments, share.moments, work.optimizer.offloadsMoments ? work.optimizer.offloadedMoments : 0),
            ] where bytes > 0
        {
            let onHost = isOnHost ? Int(Double(bytes) * moving) : 0
            hostBytes += onHost
            resident.append((kind, bytes - onHost))
        }
        func phase(_ name: String, _ more: [(Kind, Int)]) {
            phases.append(
                Phase(name: name, parts: (resident + more).filter { $0.1 > 0 }.map { (kind: $0.0, bytes: $0.1) }))
        }
        if work.generates {
            let held = resident.reduce(0) { $0 + $1.1 }
            phase("generate", share.generation(device: device, free: max(0, device.memory - held)))
        }
        if work.recomputesLogProbs || work.needsReference {
            phase("log-prob", (restsReference ? [(.reference, share.weights)] : []) + training.scoring)
        }
        // Below an adapter the policy's own gradients are few; a critic trains all of its weights.
        if work.trainsCritic, model.usesAdapter || !work.trainsPolicy {
            phase("update critic", training.updateOfCritic)
        }
        if work.learns {
            phase("update", training.update)
            phase("optimizer step", training.step(offloaded: hostBytes > 0))
        }
        if work.samplesApart {
            phase("weight sync", [(.bucket, 4 * ReshardPlan.Options().bucketBytes)])
        } else if layout.devices > 1, work.generates {
            phase("weight sync", [(.rolloutWeights, share.rolloutCopy), (.bucket, share.staging)])
        }
        hostBytes += training.hostActivations
        if restsReference { restingBytes = share.weights }
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

/// What of a model one device keeps.
struct DeviceShare {
    let model: PlanModel
    let work: PlanWork
    let layout: PlanLayout
    /// Whether ranks keep rows of weights, gradients and states; whole weights come and go.
    var isSharded: Bool { layout.shards > 1 }

    init(_ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout) {
        self.model = model
        self.work = work
        self.layout = layout
    }

    /// A tensor's elements before data ranks share it: matrices are cut by tensor parallelism, experts over their axis, layers
    /// over stages.
    private func local(_ tensor: PlanModel.Tensor) -> Int {
        var parts = tensor.shape.count > 1 ? layout.tp : 1
        if tensor.part == .experts { parts *= layout.ep }
        if tensor.part == .layer || tensor.part == .experts { parts *= layout.pp }
        return (tensor.count + parts - 1) / parts
    }
    /// A rank's rows of it.
    private func shard(_ tensor: PlanModel.Tensor) -> Int { (local(tensor) + layout.shards - 1) / layout.shards }

    private func sum(_ tensors: [PlanModel.Tensor], _ bytes: (PlanModel.Tensor) -> Int) -> Int {
        tensors.reduce(0) { $0 &+ bytes($1) }
    }
    var width: Int { work.dtype.size }
    /// What passes read, an adapter's tensors too.
    private var read: [PlanModel.Tensor] { model.tensors + (model.usesAdapter ? model.trained : []) }
    /// The weights that stay.
    var weights: Int { sum(read) { shard($0) * width } }
    /// What a rank has of them while all of it is brought together.
    var whole: Int { sum(read) { local($0) * width } }
    private func state(_ tensor: PlanModel.Tensor) -> Int { shard(tensor) }
    var masters: Int {
        work.dtype == .float32 || !work.optimizer.keepsMasters ? 0 : sum(model.trained) { 4 * state($0) }
    }
    var moments: Int { sum(model.trained) { 2 * work.optimizer.moments.bytes(state($0)) } }
    /// A critic's weights, masters and moments, as of a model like the policy whose weights are all trained.
    var critic: Int {
        let isWide = work.dtype == .float32 || !work.optimizer.keepsMasters
        return sum(model.tensors) { tensor in
            let own = shard(tensor)
            return own * width + (isWide ? 0 : 4 * own) + 2 * work.optimizer.moments.bytes(own)
        }
    }
    /// Its gradients.
    var criticGradients: Int { sum(model.tensors) { gradientWidth * shard($0) } }
    var gradientWidth: Int { work.dtype == .float32 ? 4 : work.optimizer.gradDType.size }
    var gradients: Int { sum(model.trained) { gradientWidth * state($0) } }
    var trainedCount: Int { sum(model.trained) { state($0) } }
    /// The widest gradient as backward leaves it, before it joins its sum.
    var largestGradient: Int { (model.trained.map { local($0) }.max() ?? 0) * width }
    private static func isEnd(_ tensor: PlanModel.Tensor) -> Bool { tensor.part == .embedding || tensor.part == .head }
    /// Elements of one layer's tensors.
    private func layer(_ tensors: [PlanModel.Tensor]) -> Int {
        sum(tensors.filter { !Self.isEnd($0) }) { local($0) } * layout.pp / max(1, model.layers)
    }
    private func ends(_ tensors: [PlanModel.Tensor]) -> Int { sum(tensors.filter(Self.isEnd)) { local($0) } }

    /// Weights that passes bring together: embedding and head, and two layers, one that runs and one on its way. Where they are not
    /// freed after forward, and along a pipeline, all of them.
    var gathered: Int {
        guard isSharded else { return 0 }
        if layout.sharding == .gradOp || layout.pp > 1 { return whole }
        return min(whole, (ends(read) + 2 * layer(read)) * width)
    }
    /// The same when backward has come through the layers.
    var gatheredAtEnd: Int { layout.sharding == .full && layout.pp == 1 ? min(gathered, ends(read) * width) : gathered }

    /// What sampling reads besides what stays: the trained tensors whole, or a model of its own.
    var rolloutCopy: Int {
        if layout.samplesFromTrained { return isSharded ? whole : 0 }
        guard layout.devices > 1 else { return 0 }
        return sum(model.tensors) {
            ($0.shape.count > 1 ? ($0.count + layout.rollout - 1) / layout.rollout : $0.count) * width
        }
    }
    /// Two buckets under way, each packed on one side and unpacked on the other.
    var staging: Int { layout.samplesFromTrained || rolloutCopy == 0 ? 0 : 4 * ReshardPlan.Options().bucketBytes }

    /// Whole gradients of several devices, as backward leaves them, until the ranks' sums have them: bytes.
    struct Flight {
        /// The head's, which is there from the beginning; a layer's that is made while the one's before it travels; embedding and
        /// head, at the end.
        var head, layers, end: Int
    }
    func flight(microBatches: Int) -> Flight {
        let reduce = work.reduceDType.size, shards = layout.shards
        let head =
            model.usesAdapter
            ? 0 : sum(model.trained.filter { $0.part == (model.isTied ? .embedding : .head) }) { local($0) }
        let layer = layer(model.trained), ends = ends(model.trained)
        let widest = model.trained.filter(Self.isEnd).map { local($0) }.max() ?? 0
        guard isSharded else {
            // The first micro-batch's are the sums themselves where the types agree; sums travel in their own type or in a copy.
            let copies = layout.copies > 1 && reduce != gradientWidth ? sum(model.trained) { local($0) } * reduce : 0
            if gradientWidth == width, microBatches == 1 { return Flight(head: 0, layers: 0, end: copies) }
            return Flight(head: head * width, layers: layer * width, end: max(copies, ends * width))
        }
        func travelling(_ count: Int) -> Int { count * reduce + (count + shards - 1) / shards * reduce }
        return Flight(
            head: head * width, layers: layer * width + travelling(layer),
            end: travelling(ends) + (reduce == width ? 0 : widest * width))
    }

    /// Elements that a sampling device keeps of a token.
    private var cacheElements: Int {
        let heads = max(1, model.keyValueHeads / layout.rollout)
        return max(1, model.cacheElements / max(1, model.keyValueHeads) * heads)
    }

    /// What generation takes besides what stays.
    func generation(device: PlanDevice, free: Int) -> [(MemoryForecast.Kind, Int)] {
        let engine = work.engine, groups = max(1, layout.devices / layout.rollout)
        let cacheWidth = engine.cachesInFloat8 ? 1 : width
        let perToken = cacheElements * cacheWidth, block = engine.blockSize
        let prompts = (work.prompts + groups - 1) / groups
        let atOnce = min(prompts, max(1, (engine.maxRows + work.samples - 1) / work.samples))
        let whole = (work.promptTokens + work.responseTokens + block - 1) / block, shared = work.promptTokens / block
        let rows = min(engine.maxRows, prompts * work.samples)
        let needed = (atOnce * (shared + work.samples * (whole - shared) + 1) + 2) * block * perToken
        guard device.isCUDA else {
            // Decoding multiplies with copies of the weights in the kernels' own layout, unless they are quantised.
            let matrices = model.tensors.filter { $0.shape.count > 1 && ($0.part != .embedding || model.isTied) }
            let bits = engine.quantization.map { $0 == .int8 ? 8 : 4 } ?? 8 * width
            return [(.rolloutWeights, rolloutCopy), (.cache, needed), (.copies, sum(matrices) { $0.count / 8 * bits })]
        }
        let stepTokens = min(engine.maxStepTokens, prompts * work.promptTokens + rows)
        let activations = stepTokens * model.hidden * 6 * width + rows * model.vocabulary * 8 / layout.rollout
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
        let model = share.model, work = share.work, split = share.layout.tp
        let stages = share.layout.pp, mine = (model.layers + stages - 1) / stages
        let answers = min(
            tokens,
            max(
                1,
                tokens * work.responseTokens
                    / max(1, work.responseTokens + work.promptTokens / max(1, work.sharesPrefix ? work.samples : 1))))
        let passes = PassBytes(
            model.layer, vocabulary: model.vocabulary, dtype: work.dtype, checkpointing: work.checkpointing,
            tokens: tokens,
            answers: answers, isCUDA: isCUDA)
        // A pipeline's first stage has as many micro-batches under way as there are stages.
        var all = (0..<mine).reduce(0) { $0 &+ passes.kept(layer: $1) / split } * stages
        if work.offloadsActivations, isCUDA, work.checkpointing != .none {
            let stays = (0..<min(2, mine)).reduce(0) { $0 &+ passes.kept(layer: $1) / split }
            hostActivations = max(0, all - stays)
            all = min(all, stays)
        }
        kept = all
        last = passes.last
        transient = passes.transient / split
        logits = passes.logits / split
    }

    /// Forward alone: one layer at a time.
    var scoring: [(MemoryForecast.Kind, Int)] {
        [(.gathered, share.gathered), (.layer, transient), (.activations, last), (.logits, logits)]
    }

    /// A critic's backward, with all activations and all gradients.
    var updateOfCritic: [(MemoryForecast.Kind, Int)] {
        [
            (.gathered, share.gathered), (.gradients, share.criticGradients), (.activations, kept + last),
            (.layer, transient),
        ]
    }

    /// Backward begins with all activations and ends with all gradients; with gradients of an earlier micro-batch it has both.
    var update: [(MemoryForecast.Kind, Int)] {
        if share.layout.devices > 1 { return updateOfSeveral }
        let gradients = share.gradients
        // Products add to gradients where they lie, unless these are summed in another type; the embedding's is made whole first, at
        // the very end.
        let isApart = share.gradientWidth != share.width
        let flight = isApart ? share.largestGradient : 0
        let lastFlight = isApart || microBatches > 1 ? share.largestGradient : 0
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
        let embedding: [(MemoryForecast.Kind, Int)] = [
            (.gathered, share.gathered), (.gradients, gradients), (.gradientInFlight, lastFlight),
            (.activations, kept / max(1, share.model.layers)),
        ]
        return Self.worst([first, early, late, embedding])
    }

    /// The same of one of several devices: at the head, in the last layer, in the first, and where the root's gradients travel.
    private var updateOfSeveral: [(MemoryForecast.Kind, Int)] {
        let flight = share.flight(microBatches: microBatches), layers = flight.head + flight.layers
        let before = microBatches > 1 ? share.gradients : 0, all = share.gradients,
            oneLayer = kept / max(1, share.model.layers)
        return Self.worst([
            [
                (.gathered, share.gathered), (.gradients, before), (.gradientInFlight, flight.head),
                (.activations, kept + last), (.logits, logits),
            ],
            [
                (.gathered, share.gathered), (.gradients, before), (.gradientInFlight, layers),
                (.activations, kept + last), (.layer, transient),
            ],
            [
                (.gathered, share.gathered), (.gradients, all), (.gradientInFlight, layers), (.activations, oneLayer),
                (.layer, transient),
            ],
            [(.gathered, share.gatheredAtEnd), (.gradients, all), (.gradientInFlight, flight.end)],
        ])
    }

    private static func worst(_ moments: [[(MemoryForecast.Kind, Int)]]) -> [(MemoryForecast.Kind, Int)] {
        moments.max { a, b in a.reduce(0) { $0 &+ $1.1 } < b.reduce(0) { $0 &+ $1.1 } } ?? []
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

import Collectives
import Models
import TensorCore
import TrainingEngine

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
    /// A critic's weights, as of a model like the policy.
    var criticWeights: Int { sum(model.tensors) { shard($0) * width } }
    /// Its optimizer's states: all of its weights are trained.
    var criticStates: States {
        let isWide = work.dtype == .float32 || !work.optimizer.keepsMasters
        return States(
            masters: isWide ? 0 : sum(model.tensors) { 4 * shard($0) },
            moments: sum(model.tensors) { 2 * work.optimizer.moments.bytes(shard($0)) })
    }
    struct States {
        var masters, moments: Int
        var bytes: Int { masters + moments }
        /// What stays on the device of it; nil: nothing goes anywhere.
        func kept(_ settings: AdamW.Settings?) -> Int {
            guard let settings else { return bytes }
            let moving = settings.offloadsMoments ? settings.offloadedMoments : 0
            return (settings.offloadsMasters ? 0 : masters) + moments - Int(Double(moments) * moving)
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

    /// Prompts of a step that a sampler has.
    private var promptsOfSampler: Int {
        let groups = max(1, layout.devices / layout.rollout)
        return (work.prompts + groups - 1) / groups
    }

    /// Bytes of the cache that a batch of a sampler needs at most for nobody to wait, whatever lengths its prompts have.
    var neededCache: Int {
        let engine = work.engine, block = engine.blockSize
        let perToken = cacheElements * (engine.cachesInFloat8 ? 1 : width)
        let atOnce = min(promptsOfSampler, max(1, (engine.maxRows + work.samples - 1) / work.samples))
        // Answers share a prompt's full blocks: one that ends a place before a block's end may take more than the longest.
        let lengths = [work.promptTokens, work.promptTokens / block * block - 1].filter { $0 > 0 }
        let most = lengths.map { prompt in
            let whole = (prompt + work.responseTokens + block - 1) / block, shared = prompt / block
            return shared + work.samples * (whole - shared)
        }
        return (atOnce * ((most.max() ?? 0) + 1) + 2) * block * perToken
    }

    /// What generation takes besides what stays.
    func generation(device: PlanDevice, free: Int) -> [(MemoryForecast.Kind, Int)] {
        let engine = work.engine, prompts = promptsOfSampler, needed = neededCache
        let rows = min(engine.maxRows, prompts * work.samples)
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

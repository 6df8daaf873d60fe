public import Collectives
public import Models
public import TensorCore

/// A model's parameters, shared out among the ranks of a mesh: each keeps its rows of every one, and trains those. The weights of a
/// layer are brought together before it runs, forward or backward, and freed after it; the ranks' gradients are summed after its
/// backward, beside the next layer's (ZeRO, Rajbhandari et al. 2020; FSDP, Zhao et al. 2023).
///
/// A mini-batch is: ``begin()``, for each micro-batch a forward pass and ``backward(_:isLast:)``, ``end()``; then the optimizer steps
/// on ``optimizerParameters``. A forward pass alone stands between ``begin()`` and ``end()`` too. All ranks of the mesh do the same
/// in the same order, with as many micro-batches: one that has none left runs an idle one.
///
/// The model's own tensors are empty between mini-batches unless ``withWholeWeights(_:)`` brings all together, or the mode is
/// `noShard`.
public final class ShardedParameters {
    public let settings: ShardingOptions
    public let mesh: DeviceMesh
    /// All parameters, in the model's order, its adapter's last.
    public let all: [ShardedParameter]
    /// The memory in which this rank keeps its rows of each.
    public var heldTensors: [Tensor] { all.map(\.chunk) }

    private let root: ShardUnit
    private let layers: [ShardUnit]
    private let completion: NormCompletion
    /// Of each layer: passes recorded that backward has not come through, and whether any gradient goes through its output.
    private var passes: [Int]
    private var learns: [Bool]
    private var isReduced: [Bool]
    private var isLast = false
    /// The unit whose gradients are on their way.
    private var reducing: ShardUnit?
    private var holders = 0

    /// Shares out the parameters of `model`, whose tensors are empty from then on. The model must have its adapter, and the same
    /// weights on all ranks.
    ///
    /// - Parameters:
    ///   - trained: what learns; the rest is shared out too, without gradients.
    ///   - axes: what the mesh's other axes mean for a parameter.
    public init(
        _ model: any SequenceModel, trained: [Parameter], mesh: DeviceMesh, settings: ShardingOptions = .init(),
        axes: (Parameter) -> GradientAxes = { _ in .replicated }
    ) throws {
        self.settings = settings
        self.mesh = mesh
        let shards = settings.mode == .noShard ? nil : try mesh.group(.shard)
        let rank = shards?.rank ?? 0, ranks = shards?.size ?? 1
        let names = Set(trained.map(\.name)), own = Set(model.parameters.map(\.name))
        var all: [ShardedParameter] = []
        func unit(_ parameters: [Parameter]) throws -> ShardUnit {
            var members: [ShardedParameter] = [], replicas: [ProcessGroup?] = []
            for parameter in parameters {
                var axes = axes(parameter)
                if settings.mode == .noShard {
                    axes.summed.append(.shard)
                    axes.copied.append(.shard)
                }
                replicas.append(try mesh.group(axes.summed))
                members.append(
                    try ShardedParameter(
                        parameter, trains: names.contains(parameter.name), axes: axes, gradDType: settings.gradDType,
                        rank: rank, ranks: ranks))
            }
            all += members
            return ShardUnit(members, shards: shards, replicas: replicas, reduceDType: settings.reduceDType)
        }
        let units = ParameterUnits(model.parameters + trained.filter { !own.contains($0.name) })
        (root, layers) = try withNoGrad { (try unit(units.root), try units.layers.map(unit)) }
        let order = (model.parameters + trained).map(\.name)
        let places = Dictionary(order.enumerated().map { ($1, $0) }) { first, _ in first }
        self.all = all.sorted { places[$0.parameter.name, default: 0] < places[$1.parameter.name, default: 0] }
        completion = try NormCompletion(self.all.filter(\.trains), mesh: mesh)
        passes = layers.map { _ in 0 }
        learns = layers.map { _ in false }
        isReduced = layers.map { _ in false }
        model.layerHooks = self
    }

    // MARK: - A mini-batch

    public func begin() throws(TorchError) {
        try root.startGather()
        if settings.prefetches { try layers.first?.startGather() }
    }

    /// Back-propagates a micro-batch's loss and reduces the gradients on the way.
    ///
    /// - Parameters:
    ///   - loss: or a tensor below it, with the loss's gradient in that.
    ///   - isLast: of the mini-batch's micro-batches.
    public func backward(_ loss: Tensor, _ gradient: Tensor? = nil, isLast: Bool) throws {
        try backward(isLast: isLast) { try loss.backward(gradient) }
    }

    /// The same where `body` back-propagates by itself: a micro-batch's passes whose backward is part of them.
    @discardableResult
    public func backward<Result>(isLast: Bool, _ body: () throws -> Result) throws -> Result {
        precondition(holders == 0, "whole weights that somebody holds would outlive the step")
        self.isLast = isLast
        let result = try body()
        // Where no gradient goes through a layer's input, nothing told that the layer was done.
        for index in layers.indices.reversed() where layers[index].trains && !isReduced[index] {
            try reduce(layers[index])
        }
        try reduce(root)
        for index in layers.indices {
            if settings.mode == .fullShard { try release(layers[index]) }
            (passes[index], learns[index], isReduced[index]) = (0, false, false)
        }
        return result
    }

    /// Takes what a micro-batch's backward pass has left and reduces it, where somebody else runs the passes, in any order and without
    /// hooks, on whole weights that it holds (``holdWholeWeights()``). ``end()`` follows the last.
    public func reduce(isLast: Bool) throws(TorchError) {
        self.isLast = isLast
        for unit in layers.reversed() + [root] where unit.trains { try reduce(unit) }
    }

    /// Waits for the gradients' sums and frees the whole weights.
    public func end() throws(TorchError) {
        reducing = nil
        for unit in [root] + layers {
            try unit.finish()
            try release(unit)
        }
    }

    private func reduce(_ unit: ShardUnit) throws(TorchError) {
        try unit.startReduce(isLast: isLast)
        if let reducing, reducing !== unit { try reducing.finishReduce() }
        reducing = unit
    }

    private func release(_ unit: ShardUnit) throws(TorchError) { if holders == 0 { try unit.release() } }

    // MARK: - Whole weights

    /// Runs `body` with the whole weights in the model's tensors: sampling, exports, forward passes over nothing but them. Changes
    /// to them are lost.
    public func withWholeWeights<Result>(_ body: () throws -> Result) throws -> Result {
        try holdWholeWeights()
        do {
            let result = try body()
            try dropWholeWeights()
            return result
        } catch {
            try? dropWholeWeights()
            throw error
        }
    }

    /// The same for as long as ``dropWholeWeights()`` does not end it.
    public func holdWholeWeights() throws(TorchError) {
        holders += 1
        // One ahead: each layer's memory is asked for while the one before is on its way.
        let units = [root] + layers
        for (index, unit) in units.enumerated() {
            try unit.startGather()
            if index > 0 { try units[index - 1].gather() }
        }
        try units.last?.gather()
    }

    public func dropWholeWeights() throws(TorchError) {
        precondition(holders > 0, "nobody holds the whole weights")
        holders -= 1
        for unit in [root] + layers { try release(unit) }
    }

    /// Bytes of whole weights in memory now.
    public var wholeBytes: Int { all.reduce(0) { $0 + $1.parameter.tensor.storageByteCount } }

    // MARK: - The optimizer's side

    /// This rank's rows of what is trained, without parameters of which it has none.
    public func optimizerParameters(decays: (Parameter) -> Bool = { _ in true }) throws -> [OptimizerParameter] {
        try all.filter { $0.trains && !$0.rows.isEmpty }.map { member in
            OptimizerParameter(
                name: member.parameter.name, weight: try member.shard(), decays: decays(member.parameter),
                gradient: { () throws(TorchError) in try member.gradient() },
                clear: { () throws(TorchError) in member.gradSum = nil },
                shards: { (tensor) throws(TorchError) in try member.localShards(of: tensor) })
        }
    }

    /// Makes the sum of squares of this rank's gradients, float64 `[1]`, that of all, in place; see `AdamW.completeSquares`. All
    /// ranks call it.
    public func completeSquares(_ squares: Tensor) throws(TorchError) { try completion(squares) }

    /// Forgets the gradients.
    public func clearGradients() { for member in all { member.gradSum = nil } }

    /// What this rank keeps, by the checkpoint's names.
    public func localShards() throws(TorchError) -> [LocalShard] {
        var shards: [LocalShard] = []
        for member in all where !member.rows.isEmpty { shards += try member.localShards() }
        return shards
    }
}

// MARK: - On the way through the layers

extension ShardedParameters: LayerHooks {
    public func willBegin() throws {
        try begin()
        try root.gather()
    }

    public func willRun(layer: Int, _ x: Tensor) throws -> Tensor {
        try layers[layer].gather()
        if settings.prefetches, layer + 1 < layers.count { try layers[layer + 1].startGather() }
        guard isGradEnabled, x.requiresGrad else { return x }
        passes[layer] += 1
        return try x.onBackward { try self.leave(layer) }
    }

    public func didRun(layer: Int, _ x: Tensor) throws -> Tensor {
        let learning = isGradEnabled && x.requiresGrad
        // Backward begins with the last layer: it would be brought together again at once.
        if settings.mode == .fullShard, !learning || layer + 1 < layers.count { try release(layers[layer]) }
        guard learning else { return x }
        learns[layer] = true
        return try x.onBackward { try self.enter(layer) }
    }

    /// Backward comes to a layer.
    private func enter(_ layer: Int) throws {
        try layers[layer].gather()
        if settings.prefetches, layer > 0, learns[layer - 1] { try layers[layer - 1].startGather() }
    }

    /// Backward has come through a layer.
    private func leave(_ layer: Int) throws {
        if settings.mode == .fullShard { try release(layers[layer]) }
        passes[layer] -= 1
        // A batch that went through the layer in several passes is reduced when backward has come through all.
        guard passes[layer] == 0, layers[layer].trains else { return }
        try reduce(layers[layer])
        isReduced[layer] = true
    }
}

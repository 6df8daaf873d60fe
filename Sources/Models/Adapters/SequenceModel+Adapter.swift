public import TensorCore

extension SequenceModel {
    /// The adapter that hangs on the model's projections.
    public var adapter: LoRA? { projections.lazy.compactMap(\.adapter?.lora).first }

    /// What an optimizer moves: the adapter's parameters, with a scoring model's head; or all where there is no adapter.
    public var trainableParameters: [Parameter] {
        guard let adapter else { return parameters }
        return adapter.parameters + (trainsHeadBesideAdapter ? headParameters : [])
    }

    /// What training changes, under the checkpoint's names, as views: with an adapter its matrices; else every tensor.
    public func changingTensors() throws(TorchError) -> [(name: String, tensor: Tensor)] {
        guard adapter != nil else { return try namedTensors() }
        var all: [(String, Tensor)] = []
        for parameter in trainableParameters { all += try parameter.split() }
        return all
    }

    /// The head's weight and bias.
    private var headParameters: [Parameter] {
        let head = headProjection
        return parameters.filter { parameter in
            head.weight.isSame(as: parameter.tensor) || head.bias?.isSame(as: parameter.tensor) == true
        }
    }

    /// Hangs an adapter on the model's linear layers and freezes everything else.
    ///
    /// - Parameter weights: A or B of a module by its name (`model.layers.0.self_attn.q_proj.lora_A.weight`) and shape; by
    ///   default B is zero and A uniform within ±1/√inputs, as PEFT begins (Kaiming's with a = √5), so that the model computes
    ///   at first what it did before.
    /// - Throws: ``ModelError`` with code `adapter` for a target that is no linear layer of this model, and what `weights` throws.
    @discardableResult
    public func addAdapter(
        _ settings: LoRASettings, weights: ((_ name: String, _ shape: [Int]) throws -> Tensor)? = nil
    ) throws -> LoRA {
        let selection = try AdapterSelection(settings, model: self)
        return try addAdapter(settings, selection, weights: weights ?? { try settings.initial($0, shape: $1) })
    }

    func addAdapter(
        _ settings: LoRASettings, _ selection: AdapterSelection,
        weights: (_ name: String, _ shape: [Int]) throws -> Tensor
    ) throws -> LoRA {
        guard adapter == nil else { throw ModelError(.adapter, "LoRA: the model has an adapter already") }
        guard parallel.tensor == nil, parallel.pipeline == nil else {
            throw ModelError(
                .adapter,
                "LoRA: tensor and pipeline parallel ranks share the weights that an adapter would hang on; "
                    + "share batches (dp, fsdp) or tokens (sp) instead")
        }
        let lora = LoRA(settings)
        var made: [(Projection, ProjectionAdapter)] = []
        for (projection, targets) in selection.targets {
            made.append((projection, try ProjectionAdapter(lora, projection, targets, weights)))
        }
        // Nothing is touched before everything is there.
        for parameter in parameters { try parameter.tensor.setRequiresGrad(false) }
        for (projection, adapter) in made {
            projection.adapter = adapter
            projection.unpack()
        }
        lora.leftOut = selection.leftOut
        return lora
    }

    /// Takes the adapter off again.
    public func removeAdapter() throws(TorchError) {
        try unmergeAdapter()
        for projection in projections {
            projection.adapter = nil
            projection.unpack()
        }
    }

    /// Folds the adapter into the weights. A copy of every adapted weight is kept until ``unmergeAdapter()`` puts its bits back.
    public func mergeAdapter() throws(TorchError) {
        guard let lora = adapter else { return }
        lora.isMerged = true
        do throws(TorchError) {
            for projection in projections { try projection.merge() }
        } catch {
            // What was merged before memory ran out goes back; that takes no memory.
            try unmergeAdapter()
            throw error
        }
    }

    public func unmergeAdapter() throws(TorchError) {
        guard let lora = adapter else { return }
        for projection in projections { try projection.unmerge() }
        lora.isMerged = false
    }

    /// Every tensor under its checkpoint name, with the adapter's product added; the weights themselves are not touched.
    public func mergedTensors() throws(TorchError) -> [(name: String, tensor: Tensor)] {
        var all: [(String, Tensor)] = []
        for parameter in parameters + buffers {
            let projection = projections.first { $0.adapter != nil && $0.weight.isSame(as: parameter.tensor) }
            all += try parameter.split(projection?.merged())
        }
        return all
    }
}

extension LoRASettings {
    /// PEFT's first values: the generator goes by the module's name, so that they do not depend on what else is adapted.
    func initial(_ name: String, shape: [Int]) throws(TorchError) -> Tensor {
        guard name.hasSuffix(".lora_A.weight") else { return try Tensor.zeros(shape) }
        let bound = 1 / Double(shape[1]).squareRoot()
        return try Tensor.random(shape, generator: RandomGenerator(seed: LoRASeed.mix(seed, name)))
            .multiplied(by: 2 * bound).subtracting(bound)
    }
}

extension ProjectionAdapter {
    /// Makes the tensors of one projection's targets and notes them with `lora`.
    convenience init(
        _ lora: LoRA, _ projection: Projection, _ targets: [Parameter.Part],
        _ weights: (String, [Int]) throws -> Tensor
    ) throws {
        let rank = lora.settings.rank, weight = projection.weight, inputs = weight.size(1)
        var downs: [Tensor] = [], ups: [Tensor] = [], parts: [Part] = [], rows = 0
        for part in targets {
            downs.append(try weights(part.module + ".lora_A.weight", [rank, inputs]))
            ups.append(try weights(part.module + ".lora_B.weight", [part.rows.count, rank]))
            parts.append(Part(module: part.module, rows: part.rows, rowsInB: rows..<rows + part.rows.count))
            rows += part.rows.count
        }
        func stacked(_ tensors: [Tensor]) throws -> Tensor {
            let whole = tensors.count == 1 ? tensors[0] : try Tensor.concatenate(tensors)
            return try whole.to(weight.device, dtype: weight.dtype, copy: true)
        }
        // Named after the projection as a whole, however many of its parts are adapted.
        let name = projection.parameter?.module ?? targets[0].module
        let down = try stacked(downs), up = try stacked(ups)
        lora.parameters.append(
            Parameter(
                name: name + ".lora_A", tensor: down,
                parts: parts.enumerated().map { index, part in
                    Parameter.Part(
                        whole: part.module + ".lora_A.weight", rows: index * rank..<(index + 1) * rank,
                        columns: [down.size(1)])
                }))
        lora.parameters.append(
            Parameter(
                name: name + ".lora_B", tensor: up,
                parts: parts.map {
                    Parameter.Part(whole: $0.module + ".lora_B.weight", rows: $0.rowsInB, columns: [up.size(1)])
                }))
        lora.modules += parts.map(\.module)
        self.init(lora: lora, name: name, parts: parts, down: down, up: up)
    }
}

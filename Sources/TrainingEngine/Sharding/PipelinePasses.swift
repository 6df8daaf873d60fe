import Models
import TensorCore

/// A trainer's passes where ranks share the layers: every stage has the same micro-batches, the last one computes what comes of them.
struct PipelinePasses {
    private let schedule: PipelineSchedule
    private let parallel: DataParallel
    private let forward: PackedForward

    /// nil where this rank has all layers.
    init?(_ forward: PackedForward, _ parallel: DataParallel?) {
        guard let parallel, let model = forward.model as? DecoderModel, model.parallel.pipeline != nil else {
            return nil
        }
        schedule = PipelineSchedule(model)
        self.parallel = parallel
        self.forward = forward
    }

    /// Forward passes without gradients; `body` sees what each gives, on the last stage alone.
    func score(_ micros: [[TrainingSequence]], _ body: (_ index: Int, ResponseOutputs) throws -> Void) throws {
        let packs = micros.map(forward.pack)
        try onWholeWeights {
            try schedule.forward(batches(packs)) { index, hidden in
                if index < packs.count { try body(index, forward.outputs(hidden, packs[index])) }
            }
        }
    }

    /// Forward and backward of a mini-batch's micro-batches; the gradients are summed afterwards.
    /// - Parameter loss: of a micro-batch's outputs, on the last stage alone.
    /// - Returns: tokens that a forward pass computed.
    func train(_ micros: [[TrainingSequence]], loss: (_ index: Int, ResponseOutputs) throws -> Tensor) throws -> Int {
        let packs = micros.map(forward.pack), parameters = parallel.parameters
        try onWholeWeights {
            let batches = try batches(packs)
            try schedule.train(batches) { index, hidden in
                guard index < packs.count else { return try hidden.multiplied(by: 0).sum() }
                return try loss(index, forward.outputs(hidden, packs[index]))
            } didBackward: { index in
                try parameters.reduce(isLast: index + 1 == batches.count)
            }
            try parameters.end()
        }
        if schedule.model.tiesEmbeddings,
            let sum = try parameters.all.first(where: { $0.parameter.name == "model.embed_tokens.weight" })?.gradient()
        {
            try schedule.addTied(sum)
        }
        return packs.reduce(0) { $0 + $1.tokenCount }
    }

    /// As many batches as the rank with most has.
    private func batches(_ packs: [Pack]) throws -> [PipelineSchedule.MicroBatch] {
        var batches = try packs.map(forward.batch)
        for _ in packs.count..<(try parallel.greatest(packs.count)) { batches.append(try parallel.idleBatch()) }
        return batches
    }

    /// Passes of several micro-batches are under way at a time: a layer's weights stay until the last is through.
    private func onWholeWeights(_ body: () throws -> Void) throws {
        let hooks = schedule.model.layerHooks
        schedule.model.layerHooks = nil
        defer { schedule.model.layerHooks = hooks }
        try parallel.parameters.withWholeWeights(body)
    }
}

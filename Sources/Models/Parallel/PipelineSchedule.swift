public import TensorCore

/// Runs micro-batches through the stages of a pipeline, one forward and one backward in turn (1F1B: Narayanan et al. 2019), so that a
/// stage keeps the activations of as many micro-batches as there are stages from it to the last, at most.
///
/// The micro-batches' order and sizes must be the same on all stages. A loss that balances experts over all layers at once is not
/// among what the last stage can compute: it sees its own layers only.
public struct PipelineSchedule {
    /// One pass of the model.
    public struct MicroBatch {
        public var ids, positions: Tensor
        public var attention: any AttentionBackend
        public init(ids: Tensor, positions: Tensor, attention: any AttentionBackend) {
            self.ids = ids
            self.positions = positions
            self.attention = attention
        }
    }

    private struct Pending {
        let input: Tensor?
        let output: Tensor
    }

    public let model: DecoderModel
    private let group: ProcessGroup
    private var stage: PipelineStage { model.stage }

    /// - Precondition: the model is one of several stages.
    public init(_ model: DecoderModel) {
        guard let group = model.parallel.pipeline else { preconditionFailure("a pipeline of one stage") }
        self.model = model
        self.group = group
    }

    /// Forward and backward of all micro-batches; gradients gather in the parameters. Afterwards ``addTied(_:)`` is still to be
    /// called where embeddings are tied.
    /// - Parameters:
    ///   - loss: of a micro-batch by its index, from its hidden states; called on the last stage only.
    ///   - didBackward: after each micro-batch's backward pass, in their order, on every stage.
    public func train(
        _ batches: [MicroBatch], loss: (_ index: Int, _ hidden: Tensor) throws -> Tensor,
        didBackward: (_ index: Int) throws -> Void = { _ in }
    ) throws {
        try withGrad { try runTraining(batches, loss, didBackward) }
    }

    private func runTraining(
        _ batches: [MicroBatch], _ loss: (_ index: Int, _ hidden: Tensor) throws -> Tensor,
        _ didBackward: (_ index: Int) throws -> Void
    ) throws {
        let warmUp = min(stage.count - 1 - stage.index, batches.count)
        var pending: [Pending] = [], done = 0
        func forward(_ index: Int, _ input: Tensor?) throws -> Tensor {
            try input?.setRequiresGrad()
            var output = try run(batches[index], input)
            if stage.isLast { output = try loss(index, output) }
            pending.append(Pending(input: input, output: output))
            return output
        }
        /// Of the oldest that is pending; gives the gradient for the stage before.
        func backward(_ gradient: Tensor?) throws -> Tensor? {
            let oldest = pending.removeFirst()
            done += 1
            try oldest.output.backward(gradient)
            try didBackward(done - 1)
            return try oldest.input.map { input in
                try input.grad() ?? Tensor.zeros(input.shape, dtype: input.dtype, device: input.device)
            }
        }
        for index in 0..<warmUp {
            let input = try exchange(receivesFrom: before, rows(batches[index]))
            _ = try exchange(forward(index, input), to: after)
        }
        var input = try warmUp < batches.count ? exchange(receivesFrom: before, rows(batches[warmUp])) : nil
        for index in warmUp..<batches.count {
            let output = try forward(index, input)
            let gradient = try exchange(
                stage.isLast ? nil : output, to: after, receivesFrom: after, rows(batches[done]))
            let back = try backward(gradient)
            let isMore = index + 1 < batches.count
            input = try exchange(
                back, to: before, receivesFrom: isMore ? before : nil, isMore ? rows(batches[index + 1]) : 0)
        }
        while !pending.isEmpty {
            let gradient = try exchange(receivesFrom: after, rows(batches[done]))
            _ = try exchange(backward(gradient), to: before)
        }
    }

    /// Forward passes without gradients; `body` sees the hidden states of each on the last stage.
    public func forward(_ batches: [MicroBatch], _ body: (_ index: Int, _ hidden: Tensor) throws -> Void) throws {
        try withNoGrad {
            for (index, batch) in batches.enumerated() {
                let output = try run(batch, exchange(receivesFrom: before, rows(batch)))
                if stage.isLast {
                    try body(index, output)
                } else {
                    _ = try exchange(output, to: after)
                }
            }
        }
    }

    /// Adds up the gradients of an embedding that is the head too: those of the first stage and of the last, in place on both. Other
    /// stages, and models whose embeddings are not tied, have nothing to do.
    /// - Parameter gradient: of the embedding's shape on this rank, or the same part of it on both stages.
    public func addTied(_ gradient: Tensor) throws {
        guard model.tiesEmbeddings, stage.isFirst || stage.isLast else { return }
        let peer = stage.isFirst ? stage.count - 1 : 0
        let other = try Tensor.empty(gradient.shape, dtype: gradient.dtype, device: gradient.device)
        try group.exchange(
            sends: [.init(gradient.contiguous(), peer: peer)], receives: [.init(other, peer: peer)])
        // In the same order on both, so that both get the same bits.
        let sum = stage.isFirst ? try gradient.adding(other) : try other.adding(gradient)
        try withNoGrad { try gradient.copy(from: sum) }
    }

    // MARK: -

    private var before: Int? { stage.isFirst ? nil : stage.index - 1 }
    private var after: Int? { stage.isLast ? nil : stage.index + 1 }

    private func rows(_ batch: MicroBatch) -> Int {
        model.stageRows(tokens: batch.ids.size(0), attention: batch.attention)
    }

    private func run(_ batch: MicroBatch, _ input: Tensor?) throws -> Tensor {
        try model.stageOutput(ids: batch.ids, positions: batch.positions, attention: batch.attention, input: input)
    }

    /// Sends and receives together, where there is something to send and somebody to receive from.
    private func exchange(
        _ sent: Tensor? = nil, to target: Int? = nil, receivesFrom source: Int? = nil, _ rows: Int = 0
    ) throws -> Tensor? {
        var sends: [ProcessGroup.Message] = [], receives: [ProcessGroup.Message] = []
        if let sent, let target { sends.append(.init(try sent.detached().contiguous(), peer: target)) }
        var received: Tensor?
        if let source {
            let tensor = try Tensor.empty([rows, model.shape.hidden], dtype: model.dtype, device: model.device)
            receives.append(.init(tensor, peer: source))
            received = tensor
        }
        if sends.isEmpty && receives.isEmpty { return nil }
        try group.exchange(sends: sends, receives: receives)
        return received
    }
}

import TensorCore

/// The run of layers that one rank of a pipeline holds. The first stage has the embedding, the last one the final norm and the head.
public struct PipelineStage: Sendable, Hashable {
    public let index, count: Int
    public let layers: Range<Int>

    public var isFirst: Bool { index == 0 }
    public var isLast: Bool { index == count - 1 }

    /// - Throws: ``ModelError`` with code `parallel` where there are fewer layers than stages.
    init(_ context: ParallelContext, layers total: Int) throws(ModelError) {
        let own = context.pipeline?.rank ?? 0, count = context.pipeline?.size ?? 1
        index = own
        self.count = count
        guard total >= count else {
            throw ModelError(
                .parallel, "\(total) layers cannot be \(count) stages of a pipeline; choose \(total) stages at most")
        }
        // What does not divide goes to the stages in the middle: the first and the last have the vocabulary besides.
        let base = total / count, more = total % count, firstWithMore = (count - more) / 2
        func start(_ stage: Int) -> Int { stage * base + min(max(0, stage - firstWithMore), more) }
        layers = start(own)..<start(own + 1)
    }
}

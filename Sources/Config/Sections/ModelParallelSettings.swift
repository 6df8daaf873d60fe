/// `actor.megatron`, and `train.megatron` of supervised runs.
public struct ModelParallelSettings: Hashable, Sendable {
    /// Ranks that share matrices by rows and columns.
    public let tensorSize: Int
    /// Ranks that share the layers, one run of them each.
    public let pipelineSize: Int
    /// Ranks that share the experts.
    public let expertSize: Int
    public let sequenceParallel: Bool

    init(_ section: inout SectionReader) {
        tensorSize = section.int(
            "tensor_model_parallel_size", default: 1, in: 1...1024,
            doc: "Ranks that share each matrix by rows and columns, and the vocabulary (tp).")
        pipelineSize = section.int(
            "pipeline_model_parallel_size", default: 1, in: 1...1024,
            doc: "Ranks that share the layers, one run of them each (pp).")
        expertSize = section.int(
            "expert_model_parallel_size", default: 1, in: 1...1024,
            doc: "Ranks that share the experts of a mixture, each with samples of its own (ep).")
        sequenceParallel = section.bool(
            "sequence_parallel", default: true,
            doc: "Ranks along tp share the tokens too where layers work on each by itself: less activation memory.")
    }
}

public import Collectives
public import Models
public import TensorCore

/// What of a model's state the ranks of a mesh's `fsdp` axis share out among them.
public enum ShardingMode: String, Sendable, Hashable, CaseIterable {
    /// Weights, gradients and optimizer states; a layer's weights are whole only while it runs (ZeRO-3).
    case fullShard = "FULL_SHARD"
    /// Gradients and optimizer states; weights are brought together once a step (ZeRO-2).
    case shardGradOp = "SHARD_GRAD_OP"
    /// Nothing: every rank has all, and gradients are summed (DDP).
    case noShard = "NO_SHARD"
}

public struct ShardingOptions: Sendable, Hashable {
    public var mode: ShardingMode
    /// The type in which gradients travel.
    public var reduceDType: DType
    /// The type that they are summed up in over micro-batches; a float32 weight's are float32 always.
    public var gradDType: DType
    /// Whether the next layer's weights travel while a layer runs.
    public var prefetches: Bool

    public init(
        mode: ShardingMode = .fullShard, reduceDType: DType = .float32, gradDType: DType = .float32,
        prefetches: Bool = true
    ) {
        self.gradDType = gradDType
        self.mode = mode
        self.reduceDType = reduceDType
        self.prefetches = prefetches
    }
}

/// Along which axes of the mesh, besides `fsdp`, ranks see parts of one gradient, and along which they hold one and the same
/// parameter.
public struct GradientAxes: Sendable, Hashable {
    /// The gradient is the sum of what the ranks along these have.
    public var summed: [MeshAxis]
    /// The ranks along these hold the same rows.
    public var copied: [MeshAxis]

    public init(summed: [MeshAxis], copied: [MeshAxis]) {
        self.summed = summed
        self.copied = copied
    }

    /// As the parallel layers that made `parameter` say.
    public init(_ parameter: Parameter) {
        self.init(
            summed: parameter.gradientAxes.filter { $0 != .shard }, copied: parameter.copiedAxes.filter { $0 != .shard }
        )
    }

    /// A parameter that every rank has whole, and of whose gradient it has what its own tokens give.
    public static let replicated = GradientAxes(
        summed: [.replicate, .expert, .sequence], copied: [.replicate, .expert, .sequence])
}

import TensorCore

/// The low-rank adapter of a model: for each adapted linear layer `W` two small matrices A `[r, in]` and B `[out, r]`, which
/// turn `W x` into `W x + scale · B A x` (Hu et al. 2021). Only they are trained.
///
/// A and B have the model's type, as the layers around them: the product needs no conversion of activations, sampling and
/// training see the same bits, and the optimizer's float32 masters keep steps that bfloat16 would round away.
///
/// It is made by ``SequenceModel/addAdapter(_:weights:)`` and lives, as the model does, on one thread.
public final class LoRA {
    public let settings: LoRASettings
    /// A and B of each adapted projection, under names such as `model.layers.0.self_attn.qkv_proj.lora_A`; the parts are the
    /// checkpoint's modules (`model.layers.0.self_attn.q_proj.lora_A.weight`).
    public internal(set) var parameters: [Parameter] = []
    /// The checkpoint's names of the adapted modules, in the model's order.
    public internal(set) var modules: [String] = []
    /// Weights that are linear layers in effect and yet have no adapter, each group with the reason.
    public internal(set) var leftOut: [String] = []
    /// Off, the model is the one below the adapter.
    public private(set) var isEnabled = true
    /// Whether the model's weights hold the product now: ``SequenceModel/mergeAdapter()``.
    public internal(set) var isMerged = false
    /// Decides the dropout masks of the forward pass under way; nil without dropout.
    private var dropoutSeed: UInt64?

    init(_ settings: LoRASettings) { self.settings = settings }

    public var parameterCount: Int { parameters.reduce(0) { $0 + $1.tensor.count } }

    /// Runs `body` on the model as it is without the adapter: the reference policy, at no cost in memory.
    public func disabled<Result>(_ body: () throws -> Result) rethrows -> Result {
        precondition(!isMerged, "a merged adapter cannot be turned off; unmerge it first")
        let before = isEnabled
        isEnabled = false
        defer { isEnabled = before }
        return try body()
    }

    /// Runs one forward and backward pass with dropout. The masks follow from the settings' seed and the two numbers alone, so
    /// that a resumed run draws the same, and layers that are run again in backward see the masks of their first run.
    public func training<Result>(step: Int, microBatch: Int, _ body: () throws -> Result) rethrows -> Result {
        precondition(!isMerged, "training needs the adapter beside the weights; unmerge it first")
        dropoutSeed = settings.dropout > 0 ? LoRASeed.mix(settings.seed, "dropout \(step) \(microBatch)") : nil
        defer { dropoutSeed = nil }
        return try body()
    }

    /// What the product is scaled by now: with dropout, the inputs that are left make up for those that are not.
    var scale: Double { dropoutSeed == nil ? settings.scale : settings.scale / (1 - settings.dropout) }

    /// `x` with a share of its elements zeroed where dropout is on; ``scale`` makes up for it. One mask serves all parts of a
    /// fused projection.
    func dropped(_ x: Tensor, by name: String) throws(TorchError) -> Tensor {
        guard let dropoutSeed else { return x }
        let generator = try RandomGenerator(seed: LoRASeed.mix(dropoutSeed, name), device: x.device)
        let kept = try Tensor.random(x.shape, generator: generator).greaterOrEqual(to: settings.dropout)
        return try x.multiplied(by: kept)
    }
}

/// Seeds of independent streams under one seed.
enum LoRASeed {
    /// FNV-1a of the name, from the seed on, its bits scattered by SplitMix64's finalizer.
    static func mix(_ seed: UInt64, _ name: String) -> UInt64 {
        var hash = seed ^ 0xCBF2_9CE4_8422_2325
        for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        hash = (hash ^ (hash >> 30)) &* 0xBF58_476D_1CE4_E5B9
        hash = (hash ^ (hash >> 27)) &* 0x94D0_49BB_1331_11EB
        return hash ^ (hash >> 31)
    }
}

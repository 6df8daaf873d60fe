internal import CTorch

/// One tensor of an AdamW step; all parts contiguous and of one count N, but for the scales.
public struct AdamWTensor {
    /// float32 or bfloat16: what is trained, or what the master is rounded into.
    public var weight: Tensor
    /// float32; nil where the weight itself is trained.
    public var master: Tensor?
    /// float32 or bfloat16, on the weight's device; nil only where the step is still to come.
    public var grad: Tensor?
    /// Both float32, both bfloat16, or both uint8 codes with float32 scales `[ceil(N / 256)]`. On CUDA they and the master may
    /// lie in pinned host memory.
    public var expAvg, expAvgSq: Tensor
    public var expAvgScale, expAvgSqScale: Tensor?
    public var weightDecay: Double
    /// Which of the step counts is this tensor's.
    public var slot: Int

    public init(
        weight: Tensor, master: Tensor?, grad: Tensor?, expAvg: Tensor, expAvgSq: Tensor, expAvgScale: Tensor?,
        expAvgSqScale: Tensor?, weightDecay: Double, slot: Int
    ) {
        self.weight = weight
        self.master = master
        self.grad = grad
        self.expAvg = expAvg
        self.expAvgSq = expAvgSq
        self.expAvgScale = expAvgScale
        self.expAvgSqScale = expAvgSqScale
        self.weightDecay = weightDecay
        self.slot = slot
    }
}

/// Counts and decisions of AdamW steps, on the device of the weights, so that no step waits for the host.
public struct AdamWProgress {
    /// Steps that each tensor took, float32 `[slots]`.
    public let steps: Tensor
    /// Of this step: the sum of squares of all gradients, their norm, the factor that clips them, and whether the step is taken.
    /// float64 `[4]`.
    public let control: Tensor
    let corrections: Tensor

    public init(slots: Int, device: Device) throws(TorchError) {
        steps = try Tensor.zeros([slots], device: device)
        corrections = try Tensor.zeros([slots, 2], device: device)
        control = try Tensor.zeros([Int(ct_control_count.rawValue)], dtype: .float64, device: device)
    }

    /// The sum of squares, float64 `[1]`: a view, for whoever completes it over ranks.
    public var squares: Tensor { get throws(TorchError) { try control.narrowed(0, 0..<1) } }
}

/// The numbers of ``control`` on their way to the host.
public final class AdamWOutcome {
    private let values: Tensor
    private let arrival: DeviceEvent?

    /// Starts the copy.
    public init(_ progress: AdamWProgress) throws(TorchError) {
        let control = progress.control
        if control.device.isCUDA {
            let host = try Tensor.empty(control.shape, dtype: .float64, pinned: true)
            try host.copy(from: control, nonBlocking: true)
            values = host
            arrival = try DeviceEvent(on: control.device)
        } else {
            values = try control.cloned()
            arrival = nil
        }
    }

    /// Waits for the step, which is long done when the next is due.
    public func result() throws(TorchError) -> (gradNorm: Double, stepped: Bool) {
        if arrival != nil { try arrival!.synchronize() }
        let numbers = try values.values(Double.self)
        return (
            numbers[Int(ct_control_norm.rawValue)], numbers[Int(ct_control_taken.rawValue)] == 1
        )
    }
}

/// The three parts of a fused AdamW step (Loshchilov & Hutter 2019), each over all tensors at once.
public struct AdamWStep {
    private let tensors: [AdamWTensor]
    private let options: ct_adamw_step
    private let progress: AdamWProgress

    /// - Parameter roundsStochastically: whether bfloat16 moments, and bfloat16 weights without a master, are rounded up or down
    ///   by chance, as near as they are, so that small changes are not lost; to the nearest otherwise. `seed`, slot, step and
    ///   element decide, so a step that is repeated rounds as before.
    public init(
        _ tensors: [AdamWTensor], progress: AdamWProgress, learningRate: Double, beta1: Double, beta2: Double,
        epsilon: Double, roundsStochastically: Bool, seed: UInt64
    ) {
        self.tensors = tensors
        self.progress = progress
        options = ct_adamw_step(
            lr: learningRate, beta1: beta1, beta2: beta2, eps: epsilon, seed: seed, is_stochastic: roundsStochastically)
    }

    /// Leaves the sum of squares of the gradients in the progress, summed in double and in a fixed order.
    public func sumSquares() throws(TorchError) {
        try call("squares") { ct_adamw_squares_($0, $1, progress.control.raw, $2) }
    }

    /// Decides from the sum of squares whether the step is taken and how far gradients are clipped; counts it.
    /// - Parameter maxNorm: 0: no clipping.
    public func prepare(maxNorm: Double) throws(TorchError) {
        try call("prepare") {
            ct_adamw_prepare_(
                $0, $1, progress.steps.raw, progress.corrections.raw, progress.control.raw, maxNorm, options, $2)
        }
    }

    /// Updates moments, masters and weights where the step is taken; else changes nothing.
    /// - Parameter stream: needed where states lie in host memory.
    public func apply(stream: StateStream? = nil) throws(TorchError) {
        try call("apply") {
            ct_adamw_apply_(
                $0, $1, progress.steps.raw, progress.corrections.raw, progress.control.raw, options, stream?.raw, $2)
        }
    }

    private func call(
        _ name: String,
        _ body: (UnsafePointer<ct_adamw_tensor>?, Int32, UnsafeMutablePointer<ct_message?>) -> Int32
    ) throws(TorchError) {
        try withExtendedLifetime(progress) { () throws(TorchError) in try AdamWTensor.call(name, tensors, body) }
    }
}

extension AdamWTensor {
    static func call(
        _ name: String, _ tensors: [AdamWTensor],
        _ body: (UnsafePointer<ct_adamw_tensor>?, Int32, UnsafeMutablePointer<ct_message?>) -> Int32
    ) throws(TorchError) {
        let raw = tensors.map {
            ct_adamw_tensor(
                weight: $0.weight.raw, master: $0.master?.raw, grad: $0.grad?.raw, exp_avg: $0.expAvg.raw,
                exp_avg_sq: $0.expAvgSq.raw, exp_avg_scale: $0.expAvgScale?.raw,
                exp_avg_sq_scale: $0.expAvgSqScale?.raw,
                weight_decay: $0.weightDecay, slot: Int64($0.slot))
        }
        try withExtendedLifetime(tensors) { () throws(TorchError) in
            try check("AdamW \(name) over \(tensors.count) tensors") { body(raw, Int32(raw.count), $0) }
        }
    }
}

extension Tensor {
    /// From now on, what backward passes leave in this leaf is added to a sum of type `dtype` and freed at once.
    public func sumGradients(as dtype: DType) throws(TorchError) {
        try check("sumGradients", [self]) { ct_sum_gradients(raw, dtype.rawValue, $0) }
    }

    /// Adds to the sum what was put into ``grad()`` other than by a backward pass.
    public func gatherGradient() throws(TorchError) {
        try check("gatherGradient", [self]) { ct_gather_gradient(raw, $0) }
    }

    /// Leaves gradients in ``grad()`` again; a sum is lost.
    public func endGradientSum() throws(TorchError) {
        try check("endGradientSum", [self]) { ct_end_gradient_sum(raw, $0) }
    }

    /// The sum since the last ``clearGradientSum()``; nil where nothing has come.
    public func gradientSum() throws(TorchError) -> Tensor? {
        var result: ct_tensor?
        try check("gradientSum", [self]) { ct_gradient_sum(raw, &result, $0) }
        return result.map { Tensor(owning: $0) }
    }

    public func clearGradientSum() throws(TorchError) {
        try check("clearGradientSum", [self]) { ct_clear_gradient_sum(raw, $0) }
    }

    /// Zeros in page-locked host memory of exactly this size. Needs CUDA.
    public static func pinnedZeros(_ shape: [Int], dtype: DType = .float32) throws(TorchError) -> Tensor {
        let sizes = shape.map(Int64.init)
        return try tensor("pinnedZeros\(shape)") {
            ct_pinned_zeros(sizes, Int32(sizes.count), dtype.rawValue, $0, $1)
        }
    }

    /// Moments as 8-bit codes of this shape and float32 scales, one for 256 elements, on the CPU.
    /// - Parameter isSigned: of first moments, whose codes have a sign; second ones have one bit more.
    public func encodedMoments(isSigned: Bool) throws(TorchError) -> (codes: Tensor, scales: Tensor) {
        var codes: ct_tensor?, scales: ct_tensor?
        try check("encodedMoments", [self]) { ct_encode_moments(raw, isSigned, &codes, &scales, $0) }
        guard let codes, let scales else { preconditionFailure("encoded moments without a handle") }
        return (Tensor(owning: codes), Tensor(owning: scales))
    }

    /// The float32 moments that codes and scales stand for, on the CPU.
    public func decodedMoments(scales: Tensor, isSigned: Bool) throws(TorchError) -> Tensor {
        try tensor("decodedMoments", [self, scales]) { ct_decode_moments(raw, scales.raw, isSigned, $0, $1) }
    }
}

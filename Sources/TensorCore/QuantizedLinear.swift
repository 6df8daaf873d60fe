internal import CTorch

/// How a weight is rounded to few bits: an output of it, or each of its groups of inputs, has a scale of its own.
public struct WeightQuantization: Sendable, Hashable {
    public let bits: Int
    /// Inputs that share a scale and a zero; nil: all of an output.
    public let group: Int?

    /// 8 bits, symmetric, one scale an output.
    public static let int8PerChannel = WeightQuantization(bits: 8, group: nil)

    /// 4 bits with a scale and a whole zero for every `group` inputs, as GPTQ and AWQ store them; a multiple of 32.
    public static func int4(group: Int = 128) -> WeightQuantization {
        precondition(group > 0 && group % 32 == 0, "a group of \(group) inputs is no multiple of 32")
        return WeightQuantization(bits: 4, group: group)
    }
}

/// A linear layer's weight in codes of 4 or 8 bits; value = (code - zero) · scale. A copy, for inference only.
public struct QuantizedLinear {
    let packed: Tensor
    /// float32 and uint8 `[groups, N rounded up to 32]`; without zeros they are 128.
    let scales: Tensor
    let zeros: Tensor?
    public let outputs: Int, inputs: Int
    public let scheme: WeightQuantization

    /// Rounds to the nearest code. Of 4 bits the range of each group is shrunk to where the squared error is least.
    ///
    /// - Parameter weight: `[N, K]` of floating-point numbers; on CUDA as ``fits(_:)`` says.
    public init(_ weight: Tensor, _ scheme: WeightQuantization) throws(TorchError) {
        var scales: ct_tensor?, zeros: ct_tensor?
        let group = scheme.group ?? weight.size(1)
        let codes = try tensor("quantize to \(scheme.bits) bits", [weight]) {
            ct_quantize(weight.raw, Int32(scheme.bits), Int64(group), $0, &scales, &zeros, $1)
        }
        guard let scales else { preconditionFailure("quantize gave no scales") }
        try self.init(
            codes: codes, scales: Tensor(owning: scales), zeros: zeros.map(Tensor.init(owning:)), scheme: scheme)
    }

    /// - Parameters: codes uint8 `[N, K]`; scales float32 and zeros uint8 `[groups, N rounded up to 32]`; which layout, nil for
    ///   that of the device.
    init(
        codes: Tensor, scales: Tensor, zeros: Tensor?, scheme: WeightQuantization, inTiles: Bool? = nil
    ) throws(TorchError) {
        let tiles = inTiles ?? codes.device.isCUDA
        packed = try tensor("pack codes", [codes]) { ct_pack_codes(codes.raw, Int32(scheme.bits), tiles, $0, $1) }
        self.scales = scales
        self.zeros = zeros
        self.scheme = scheme
        outputs = codes.size(0)
        inputs = codes.size(1)
    }

    /// Whether the weight's shape and type suit the kernels of its device: any on the CPU, whole tiles of 16 outputs by 64 inputs
    /// on CUDA.
    public static func fits(_ weight: Tensor) -> Bool {
        guard weight.rank == 2, weight.dtype.isFloatingPoint, weight.count > 0 else { return false }
        return !weight.device.isCUDA || weight.size(0) % 16 == 0 && weight.size(1) % 64 == 0
    }

    private var raw: ct_quantized {
        ct_quantized(
            packed: packed.raw, scales: scales.raw, zeros_or_null: zeros?.raw, outputs: Int64(outputs),
            inputs: Int64(inputs), group: Int64(scheme.group ?? inputs), bits: Int32(scheme.bits))
    }

    /// `x [.., K] · weightᵀ + bias`, without gradients; summed in float32, of x's type.
    public func callAsFunction(_ x: Tensor, bias: Tensor? = nil) throws(TorchError) -> Tensor {
        let rows = x.rank == 2 ? x : try x.reshaped([-1, inputs])
        let product = try tensor("quantizedLinear", [x]) { ct_quantized_linear(rows.raw, raw, bias?.raw, $0, $1) }
        return x.rank == 2 ? product : try product.reshaped(Array(x.shape.dropLast()) + [outputs])
    }

    /// The weight `[N, K]` that the codes stand for.
    public func dequantized(_ dtype: DType = .float32) throws(TorchError) -> Tensor {
        try tensor("dequantize", [packed]) { ct_dequantize(raw, dtype.rawValue, $0, $1) }
    }

    /// What the copy takes.
    public var byteCount: Int { packed.byteCount + scales.byteCount + (zeros?.byteCount ?? 0) }
}

internal import CTorch

// MARK: - Element-wise

extension Tensor {
    private func unary(_ operation: String, _ code: ct_unary_op) throws(TorchError) -> Tensor {
        try tensor(operation, [self]) { ct_unary(code, raw, $0, $1) }
    }
    private func binary(_ operation: String, _ code: ct_binary_op, _ other: Tensor) throws(TorchError) -> Tensor {
        try tensor(operation, [self, other]) { ct_binary(code, raw, other.raw, $0, $1) }
    }
    private func scalar(_ operation: String, _ code: ct_scalar_op, _ other: Double) throws(TorchError) -> Tensor {
        try tensor("\(operation) \(other)", [self]) { ct_scalar(code, raw, other, $0, $1) }
    }

    public func negated() throws(TorchError) -> Tensor { try unary("neg", ct_unary_neg) }
    public func exp() throws(TorchError) -> Tensor { try unary("exp", ct_unary_exp) }
    public func log() throws(TorchError) -> Tensor { try unary("log", ct_unary_log) }
    public func log1p() throws(TorchError) -> Tensor { try unary("log1p", ct_unary_log1p) }
    public func expm1() throws(TorchError) -> Tensor { try unary("expm1", ct_unary_expm1) }
    public func squareRoot() throws(TorchError) -> Tensor { try unary("sqrt", ct_unary_sqrt) }
    public func rsqrt() throws(TorchError) -> Tensor { try unary("rsqrt", ct_unary_rsqrt) }
    public func abs() throws(TorchError) -> Tensor { try unary("abs", ct_unary_abs) }
    public func cos() throws(TorchError) -> Tensor { try unary("cos", ct_unary_cos) }
    public func sin() throws(TorchError) -> Tensor { try unary("sin", ct_unary_sin) }
    public func tanh() throws(TorchError) -> Tensor { try unary("tanh", ct_unary_tanh) }
    public func sigmoid() throws(TorchError) -> Tensor { try unary("sigmoid", ct_unary_sigmoid) }
    public func logSigmoid() throws(TorchError) -> Tensor { try unary("logSigmoid", ct_unary_log_sigmoid) }
    public func softplus() throws(TorchError) -> Tensor { try unary("softplus", ct_unary_softplus) }
    public func silu() throws(TorchError) -> Tensor { try unary("silu", ct_unary_silu) }
    public func relu() throws(TorchError) -> Tensor { try unary("relu", ct_unary_relu) }
    public func squared() throws(TorchError) -> Tensor { try unary("square", ct_unary_square) }
    public func sign() throws(TorchError) -> Tensor { try unary("sign", ct_unary_sign) }
    public func floor() throws(TorchError) -> Tensor { try unary("floor", ct_unary_floor) }
    public func reciprocal() throws(TorchError) -> Tensor { try unary("reciprocal", ct_unary_reciprocal) }
    public func isFinite() throws(TorchError) -> Tensor { try unary("isFinite", ct_unary_isfinite) }
    public func isNaN() throws(TorchError) -> Tensor { try unary("isNaN", ct_unary_isnan) }
    public func logicalNot() throws(TorchError) -> Tensor { try unary("logicalNot", ct_unary_logical_not) }

    public func adding(_ other: Tensor) throws(TorchError) -> Tensor { try binary("add", ct_binary_add, other) }
    public func adding(_ other: Double) throws(TorchError) -> Tensor { try scalar("add", ct_scalar_add, other) }
    public func subtracting(_ other: Tensor) throws(TorchError) -> Tensor { try binary("sub", ct_binary_sub, other) }
    public func subtracting(_ other: Double) throws(TorchError) -> Tensor { try scalar("sub", ct_scalar_sub, other) }
    public func multiplied(by other: Tensor) throws(TorchError) -> Tensor { try binary("mul", ct_binary_mul, other) }
    public func multiplied(by other: Double) throws(TorchError) -> Tensor { try scalar("mul", ct_scalar_mul, other) }
    public func divided(by other: Tensor) throws(TorchError) -> Tensor { try binary("div", ct_binary_div, other) }
    public func divided(by other: Double) throws(TorchError) -> Tensor { try scalar("div", ct_scalar_div, other) }
    public func power(_ exponent: Double) throws(TorchError) -> Tensor { try scalar("pow", ct_scalar_pow, exponent) }
    public func power(_ exponent: Tensor) throws(TorchError) -> Tensor { try binary("pow", ct_binary_pow, exponent) }
    public func minimum(_ other: Tensor) throws(TorchError) -> Tensor {
        try binary("minimum", ct_binary_minimum, other)
    }
    public func maximum(_ other: Tensor) throws(TorchError) -> Tensor {
        try binary("maximum", ct_binary_maximum, other)
    }
    /// Elements cut to the given bounds; the gradient is zero where they bite.
    public func clamped(min low: Double? = nil, max high: Double? = nil) throws(TorchError) -> Tensor {
        try tensor("clamp", [self]) { out, error in
            withUnsafePointer(to: low ?? 0) { lowest in
                withUnsafePointer(to: high ?? 0) { highest in
                    ct_clamp(raw, low == nil ? nil : lowest, high == nil ? nil : highest, out, error)
                }
            }
        }
    }

    public func equal(to other: Tensor) throws(TorchError) -> Tensor { try binary("eq", ct_binary_eq, other) }
    public func equal(to other: Double) throws(TorchError) -> Tensor { try scalar("eq", ct_scalar_eq, other) }
    public func notEqual(to other: Double) throws(TorchError) -> Tensor { try scalar("ne", ct_scalar_ne, other) }
    public func less(than other: Tensor) throws(TorchError) -> Tensor { try binary("lt", ct_binary_lt, other) }
    public func less(than other: Double) throws(TorchError) -> Tensor { try scalar("lt", ct_scalar_lt, other) }
    public func lessOrEqual(to other: Tensor) throws(TorchError) -> Tensor { try binary("le", ct_binary_le, other) }
    public func lessOrEqual(to other: Double) throws(TorchError) -> Tensor { try scalar("le", ct_scalar_le, other) }
    public func greater(than other: Tensor) throws(TorchError) -> Tensor { try binary("gt", ct_binary_gt, other) }
    public func greater(than other: Double) throws(TorchError) -> Tensor { try scalar("gt", ct_scalar_gt, other) }
    public func greaterOrEqual(to other: Tensor) throws(TorchError) -> Tensor {
        try binary("ge", ct_binary_ge, other)
    }
    public func greaterOrEqual(to other: Double) throws(TorchError) -> Tensor {
        try scalar("ge", ct_scalar_ge, other)
    }
    public func logicalAnd(_ other: Tensor) throws(TorchError) -> Tensor {
        try binary("logicalAnd", ct_binary_logical_and, other)
    }
    public func logicalOr(_ other: Tensor) throws(TorchError) -> Tensor {
        try binary("logicalOr", ct_binary_logical_or, other)
    }

    /// Where `self` (bool) is true the element of `a`, else that of `b`.
    public func select(_ a: Tensor, else b: Tensor) throws(TorchError) -> Tensor {
        try tensor("where", [self, a, b]) { ct_where(raw, a.raw, b.raw, $0, $1) }
    }
    public func maskedFill(_ mask: Tensor, _ value: Double) throws(TorchError) -> Tensor {
        try tensor("maskedFill", [self, mask]) { ct_masked_fill(raw, mask.raw, value, $0, $1) }
    }
}

// MARK: - Reductions

extension Tensor {
    private func reduce(
        _ operation: String, _ code: ct_reduction, _ dims: [Int], _ keepDim: Bool
    ) throws(TorchError) -> Tensor {
        let axes = dims.map(Int64.init)
        return try tensor("\(operation) over \(dims)", [self]) {
            ct_reduce(code, raw, axes, Int32(axes.count), keepDim, $0, $1)
        }
    }

    /// Sum over `dims`, or over everything when there are none.
    public func sum(_ dims: Int..., keepDim: Bool = false) throws(TorchError) -> Tensor {
        try reduce("sum", ct_reduce_sum, dims, keepDim)
    }
    public func mean(_ dims: Int..., keepDim: Bool = false) throws(TorchError) -> Tensor {
        try reduce("mean", ct_reduce_mean, dims, keepDim)
    }
    public func max(_ dims: Int..., keepDim: Bool = false) throws(TorchError) -> Tensor {
        try reduce("max", ct_reduce_amax, dims, keepDim)
    }
    public func min(_ dims: Int..., keepDim: Bool = false) throws(TorchError) -> Tensor {
        try reduce("min", ct_reduce_amin, dims, keepDim)
    }
    public func logSumExp(_ dims: Int..., keepDim: Bool = false) throws(TorchError) -> Tensor {
        try reduce("logSumExp", ct_reduce_logsumexp, dims, keepDim)
    }
    /// Standard deviation with Bessel's correction (n - 1).
    public func standardDeviation(_ dims: Int..., keepDim: Bool = false) throws(TorchError) -> Tensor {
        try reduce("standardDeviation", ct_reduce_std_unbiased, dims, keepDim)
    }
    /// Variance with Bessel's correction (n - 1).
    public func variance(_ dims: Int..., keepDim: Bool = false) throws(TorchError) -> Tensor {
        try reduce("variance", ct_reduce_var_unbiased, dims, keepDim)
    }
    public func argmax(_ dim: Int, keepDim: Bool = false) throws(TorchError) -> Tensor {
        try tensor("argmax over \(dim)", [self]) { ct_argmax(raw, Int32(dim), keepDim, $0, $1) }
    }
    public func cumulativeSum(_ dim: Int) throws(TorchError) -> Tensor {
        try tensor("cumulativeSum over \(dim)", [self]) { ct_cumsum(raw, Int32(dim), $0, $1) }
    }
    public func any() throws(TorchError) -> Bool {
        try tensor("any", [self]) { ct_any(raw, $0, $1) }.itemInt() != 0
    }
    public func all() throws(TorchError) -> Bool {
        try tensor("all", [self]) { ct_all(raw, $0, $1) }.itemInt() != 0
    }
    public func softmax(_ dim: Int) throws(TorchError) -> Tensor {
        try tensor("softmax over \(dim)", [self]) { ct_softmax(raw, Int32(dim), $0, $1) }
    }
    public func logSoftmax(_ dim: Int) throws(TorchError) -> Tensor {
        try tensor("logSoftmax over \(dim)", [self]) { ct_log_softmax(raw, Int32(dim), $0, $1) }
    }

    /// Stable sort along `dim`.
    public func sorted(_ dim: Int, descending: Bool = false) throws(TorchError) -> (values: Tensor, indices: Tensor) {
        try pair("sort over \(dim)") { ct_sort(raw, Int32(dim), descending, $0, $1, $2) }
    }
    /// The `k` largest along `dim`, largest first.
    public func topK(_ k: Int, dim: Int) throws(TorchError) -> (values: Tensor, indices: Tensor) {
        try pair("topK \(k) over \(dim)") { ct_topk(raw, Int64(k), Int32(dim), $0, $1, $2) }
    }
    private func pair(
        _ operation: String,
        _ call: (
            UnsafeMutablePointer<ct_tensor?>, UnsafeMutablePointer<ct_tensor?>, UnsafeMutablePointer<ct_message?>
        ) -> Int32
    ) throws(TorchError) -> (values: Tensor, indices: Tensor) {
        var second: ct_tensor?
        let first = try tensor(operation, [self]) { call($0, &second, $1) }
        guard let second else { preconditionFailure("\(operation) gave one tensor of two") }
        return (first, Tensor(owning: second))
    }
}

// MARK: - Products

extension Tensor {
    public func matmul(_ other: Tensor) throws(TorchError) -> Tensor {
        try tensor("matmul", [self, other]) { ct_matmul(raw, other.raw, $0, $1) }
    }
    /// `self [.., K] · weightᵀ [K, N] + bias [N]`.
    public func linear(_ weight: Tensor, bias: Tensor? = nil) throws(TorchError) -> Tensor {
        try tensor("linear", [self, weight]) { ct_linear(raw, weight.raw, bias?.raw, $0, $1) }
    }
}

/// A linear layer's weight in the layout that oneDNN's CPU kernels like best; a copy, for inference only.
public struct PackedLinear {
    let packed: Tensor

    /// - Parameters: weight `[N, K]` float32 or bfloat16 on the CPU; rows of input that the layout is chosen for.
    public init(_ weight: Tensor, rows: Int) throws(TorchError) {
        packed = try tensor("packLinear", [weight]) { ct_pack_linear(weight.raw, Int64(rows), $0, $1) }
    }

    /// `x [T, K] · weightᵀ + bias`, without gradients.
    public func callAsFunction(_ x: Tensor, bias: Tensor? = nil) throws(TorchError) -> Tensor {
        try tensor("packedLinear", [x]) { ct_packed_linear(x.raw, packed.raw, bias?.raw, $0, $1) }
    }
}

// MARK: - In place

extension Tensor {
    /// Overwrites the elements with those of `source`, converting type and device.
    public func copy(from source: Tensor, nonBlocking: Bool = false) throws(TorchError) {
        try check("copy", [self, source]) { ct_copy_(raw, source.raw, nonBlocking, $0) }
    }
    public func add(_ other: Tensor, scale: Double = 1) throws(TorchError) {
        try check("add in place", [self, other]) { ct_add_(raw, other.raw, scale, $0) }
    }
    public func multiply(by other: Tensor) throws(TorchError) {
        try check("multiply in place", [self, other]) { ct_mul_(raw, other.raw, $0) }
    }
    public func scale(by factor: Double) throws(TorchError) {
        try check("scale in place", [self]) { ct_scale_(raw, factor, $0) }
    }
    public func fill(_ value: Double) throws(TorchError) {
        try check("fill", [self]) { ct_fill_(raw, value, $0) }
    }
    /// Rows (along `dim`) named by `index` overwritten by `source`'s.
    public func indexCopy(_ dim: Int, _ index: Tensor, _ source: Tensor) throws(TorchError) {
        try check("indexCopy", [self, index, source]) { ct_index_copy_(raw, Int32(dim), index.raw, source.raw, $0) }
    }
    /// Rows (along `dim`) named by `index` increased by `source`'s.
    public func indexAdd(_ dim: Int, _ index: Tensor, _ source: Tensor) throws(TorchError) {
        try check("indexAdd", [self, index, source]) { ct_index_add_(raw, Int32(dim), index.raw, source.raw, $0) }
    }
}

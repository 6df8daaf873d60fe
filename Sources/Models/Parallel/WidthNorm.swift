import TensorCore

/// The norm of all heads at once, of which a tensor rank has some: the ranks add up their squares.
struct WidthNorm {
    private let norm: RMSNorm
    private let group: ProcessGroup?
    /// Elements of all heads, and how many ranks have each of them.
    private let width, copies: Int

    init(_ builder: ParameterBuilder, _ name: String, heads: Int, headDim: Int, eps: Double) throws {
        let parallel = builder.parallel
        let own = try parallel.share(heads, of: "heads of \(name)", mayCopy: true)
        width = heads * headDim
        copies = parallel.copies(heads)
        group = parallel.tensor
        let weight = try builder.parameter(
            name + ".weight", [width], held: own.lowerBound * headDim..<own.upperBound * headDim,
            gradient: .complete)
        norm = RMSNorm(weight: weight, eps: eps, convention: .plain)
    }

    /// `x [T, own width]`
    func callAsFunction(_ x: Tensor) throws(TorchError) -> Tensor {
        guard let group else { return try norm(x) }
        let wide = try x.to(dtype: .float32)
        let squares = try wide.squared().sum(1, keepDim: true).multiplied(by: 1 / Double(copies))
            .summedBothWays(over: group)
        let factor = try squares.multiplied(by: 1 / Double(width)).adding(norm.eps).rsqrt()
        let weight =
            copies > 1 ? try norm.weight.summingGradient(overCopies: copies, of: group) : norm.weight
        return try wide.multiplied(by: factor).to(dtype: x.dtype).multiplied(by: weight)
    }
}

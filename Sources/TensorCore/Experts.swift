internal import CTorch

/// The rows of a mixture of experts: every token once for each expert it goes to, sorted by expert, so that each expert's rows
/// lie together and are one matrix product. Within an expert, rows keep the order of their tokens.
public struct ExpertRows {
    /// Tokens, experts a token goes to, and experts.
    public let tokens, slots, experts: Int
    /// int32 `[E]`, on the device: where each expert's rows end.
    let ends: Tensor
    /// int64 `[T*K]`: the pair (token · K + slot) of each row, and the row of each pair.
    private let order, place: Tensor

    /// - Parameters: chosen int64 `[T, K]`, the experts of each token, no expert twice; `count` experts in all.
    public init(chosen: Tensor, count: Int) throws(TorchError) {
        var place: ct_tensor?
        var ends: ct_tensor?
        order = try tensor("route to \(count) experts", [chosen]) {
            ct_route(chosen.raw, Int64(count), $0, &place, &ends, $1)
        }
        guard let place, let ends else { preconditionFailure("route gave one tensor of three") }
        self.place = Tensor(owning: place)
        self.ends = Tensor(owning: ends)
        tokens = chosen.size(0)
        slots = chosen.size(1)
        experts = count
    }

    /// The rows of `x [T, C]` in the order of experts, `[T*K, C]`.
    public func gather(_ x: Tensor) throws(TorchError) -> Tensor {
        try tensor("gather rows of experts", [x]) { ct_dispatch(x.raw, order.raw, place.raw, $0, $1) }
    }

    /// `rows [T*K, K']` times each expert's own `weight[e]ᵀ`, `weight [E, N, K']`: `[T*K, N]`. An expert without rows costs
    /// nothing, and its weight's gradient is zero.
    public func linear(_ rows: Tensor, _ weight: Tensor) throws(TorchError) -> Tensor {
        try tensor("grouped linear", [rows, weight]) {
            ct_grouped_linear(rows.raw, weight.raw, ends.raw, $0, $1)
        }
    }

    /// Each token's sum of its rows times `weights` (float32 `[T, K]`), `[T, C]`. It is added slot by slot in float32, so a
    /// token's result does not depend on the other tokens.
    public func combine(_ rows: Tensor, weights: Tensor) throws(TorchError) -> Tensor {
        try tensor("combine rows of experts", [rows, weights]) {
            ct_combine(rows.raw, weights.raw, order.raw, place.raw, $0, $1)
        }
    }

    /// How many rows each expert has; waits for the device.
    public func counts() throws(TorchError) -> [Int] {
        let ends = try ends.values(Int32.self)
        return zip(ends, [0] + ends).map { Int($0 - $1) }
    }
}

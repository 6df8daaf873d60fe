/// Rows of pools of keys and values, which may be stored in fewer bits than they are computed in.
extension Tensor {
    /// The largest number that float8e4m3 has.
    static let largestFloat8 = 448.0

    /// As float8e4m3, rounded to the nearest, ties to even; what is beyond its largest number, 448, becomes that.
    public func saturatedToFloat8() throws(TorchError) -> Tensor {
        try clamped(min: -Self.largestFloat8, max: Self.largestFloat8).to(dtype: .float8e4m3)
    }

    /// The same memory, float8 as bytes: for operations that move numbers and do not know the type.
    public var movable: Tensor {
        get throws(TorchError) { dtype == .float8e4m3 ? try viewed(as: .uint8) : self }
    }

    /// Puts `rows [T, ...]` at `slots`, int64 `[T]`, of this pool `[S, ...]`, in the pool's type.
    public func storeRows(_ slots: Tensor, _ rows: Tensor) throws(TorchError) {
        let stored = dtype == .float8e4m3 && rows.dtype != dtype ? try rows.saturatedToFloat8() : rows
        try movable.indexCopy(0, slots, stored.movable)
    }

    /// The rows at `slots`, int64 `[T]`, of this pool `[S, ...]`, as `dtype`.
    public func storedRows(_ slots: Tensor, as dtype: DType) throws(TorchError) -> Tensor {
        let rows = try movable.indexSelect(0, slots)
        return self.dtype == .float8e4m3 ? try rows.viewed(as: .float8e4m3).to(dtype: dtype) : rows
    }
}

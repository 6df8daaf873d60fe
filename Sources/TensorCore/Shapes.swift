internal import CTorch

// MARK: - Views and layout

extension Tensor {
    /// A view where possible, else a copy; one size may be -1.
    public func reshaped(_ shape: [Int]) throws(TorchError) -> Tensor {
        let sizes = shape.map(Int64.init)
        return try tensor("reshape to \(shape)", [self]) { ct_reshape(raw, sizes, Int32(sizes.count), $0, $1) }
    }
    /// A view with size-1 dimensions repeated; -1 keeps a size.
    public func expanded(_ shape: [Int]) throws(TorchError) -> Tensor {
        let sizes = shape.map(Int64.init)
        return try tensor("expand to \(shape)", [self]) { ct_expand(raw, sizes, Int32(sizes.count), $0, $1) }
    }
    public func permuted(_ dims: [Int]) throws(TorchError) -> Tensor {
        let axes = dims.map(Int64.init)
        return try tensor("permute \(dims)", [self]) { ct_permute(raw, axes, Int32(axes.count), $0, $1) }
    }
    public func transposed(_ a: Int = -2, _ b: Int = -1) throws(TorchError) -> Tensor {
        try tensor("transpose \(a), \(b)", [self]) { ct_transpose(raw, Int32(a), Int32(b), $0, $1) }
    }
    /// A view of `range` along `dim`.
    public func narrowed(_ dim: Int, _ range: Range<Int>) throws(TorchError) -> Tensor {
        try tensor("narrow \(dim) to \(range)", [self]) {
            ct_narrow(raw, Int32(dim), Int64(range.lowerBound), Int64(range.count), $0, $1)
        }
    }
    /// A view without dimension `dim`, at `index` of it.
    public func selected(_ dim: Int, _ index: Int) throws(TorchError) -> Tensor {
        try tensor("select \(index) of \(dim)", [self]) { ct_select(raw, Int32(dim), Int64(index), $0, $1) }
    }
    public func unsqueezed(_ dim: Int) throws(TorchError) -> Tensor {
        try tensor("unsqueeze \(dim)", [self]) { ct_unsqueeze(raw, Int32(dim), $0, $1) }
    }
    public func squeezed(_ dim: Int) throws(TorchError) -> Tensor {
        try tensor("squeeze \(dim)", [self]) { ct_squeeze(raw, Int32(dim), $0, $1) }
    }
    public func flattened(_ from: Int = 0, _ to: Int = -1) throws(TorchError) -> Tensor {
        try tensor("flatten", [self]) { ct_flatten(raw, Int32(from), Int32(to), $0, $1) }
    }
    /// Itself when already contiguous, else a copy.
    public func contiguous() throws(TorchError) -> Tensor {
        try tensor("contiguous", [self]) { ct_contiguous(raw, $0, $1) }
    }
    public func cloned() throws(TorchError) -> Tensor { try tensor("clone", [self]) { ct_clone(raw, $0, $1) } }
    /// The same storage without history.
    public func detached() throws(TorchError) -> Tensor { try tensor("detach", [self]) { ct_detach(raw, $0, $1) } }

    public static func concatenate(_ tensors: [Tensor], dim: Int = 0) throws(TorchError) -> Tensor {
        let handles = tensors.map { $0.raw as ct_tensor? }
        return try withExtendedLifetime(tensors) { () throws(TorchError) in
            try tensor("concatenate over \(dim)", tensors) { ct_cat(handles, Int32(handles.count), Int32(dim), $0, $1) }
        }
    }
    public static func stack(_ tensors: [Tensor], dim: Int = 0) throws(TorchError) -> Tensor {
        let handles = tensors.map { $0.raw as ct_tensor? }
        return try withExtendedLifetime(tensors) { () throws(TorchError) in
            try tensor("stack over \(dim)", tensors) { ct_stack(handles, Int32(handles.count), Int32(dim), $0, $1) }
        }
    }

    /// Itself when nothing changes, unless `copy`; with `nonBlocking` from pinned memory the copy runs behind the host's back.
    public func to(
        _ device: Device? = nil, dtype: DType? = nil, nonBlocking: Bool = false, copy: Bool = false
    ) throws(TorchError) -> Tensor {
        let options = Tensor.options(dtype ?? self.dtype, device ?? self.device)
        return try tensor("to \(device ?? self.device) \(dtype ?? self.dtype)", [self]) {
            ct_to(raw, options, nonBlocking, copy, $0, $1)
        }
    }
    /// A copy in page-locked host memory.
    public func pinned() throws(TorchError) -> Tensor { try tensor("pin", [self]) { ct_pin(raw, $0, $1) } }
}

// MARK: - Indexing

extension Tensor {
    public func indexSelect(_ dim: Int, _ index: Tensor) throws(TorchError) -> Tensor {
        try tensor("indexSelect over \(dim)", [self, index]) { ct_index_select(raw, Int32(dim), index.raw, $0, $1) }
    }
    public func gathered(_ dim: Int, _ index: Tensor) throws(TorchError) -> Tensor {
        try tensor("gather over \(dim)", [self, index]) { ct_gather(raw, Int32(dim), index.raw, $0, $1) }
    }
    public func scattered(_ dim: Int, _ index: Tensor, _ source: Tensor) throws(TorchError) -> Tensor {
        try tensor("scatter over \(dim)", [self, index, source]) {
            ct_scatter(raw, Int32(dim), index.raw, source.raw, $0, $1)
        }
    }
    public func scatterAdded(_ dim: Int, _ index: Tensor, _ source: Tensor) throws(TorchError) -> Tensor {
        try tensor("scatterAdd over \(dim)", [self, index, source]) {
            ct_scatter_add(raw, Int32(dim), index.raw, source.raw, $0, $1)
        }
    }
    public func maskedSelect(_ mask: Tensor) throws(TorchError) -> Tensor {
        try tensor("maskedSelect", [self, mask]) { ct_masked_select(raw, mask.raw, $0, $1) }
    }
    public func nonZero() throws(TorchError) -> Tensor { try tensor("nonZero", [self]) { ct_nonzero(raw, $0, $1) } }
    /// Rows of `self [V, C]` at `ids`.
    public func embedding(_ ids: Tensor) throws(TorchError) -> Tensor {
        try tensor("embedding", [self, ids]) { ct_embedding(raw, ids.raw, $0, $1) }
    }
    public func lowerTriangle(_ diagonal: Int = 0) throws(TorchError) -> Tensor {
        try tensor("lowerTriangle", [self]) { ct_tril(raw, Int64(diagonal), $0, $1) }
    }
}

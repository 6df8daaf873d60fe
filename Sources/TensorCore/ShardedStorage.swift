internal import CTorch

extension Tensor {
    /// Bytes of the memory behind the tensor, whichever part of it the tensor is; 0 while it is released.
    public var storageByteCount: Int { Int(ct_storage_bytes(raw)) }

    /// Frees the memory behind the tensor. The tensor, its views and what autograd has saved of it stay; nothing may compute with them
    /// until ``allocateStorage(_:)`` gives them memory again: not every op finds out that there is none. On CUDA the memory serves
    /// what is launched later on the same stream.
    public func releaseStorage() throws(TorchError) {
        try check("releaseStorage", [self]) { ct_storage_release(raw, $0) }
    }

    /// Gives the tensor, its views and what autograd has saved of it uninitialised memory again, enough for `shape`.
    ///
    /// - Returns: a tensor of `shape` over that memory, to fill it by: autograd does not hear of what is written through it, so what
    ///   goes in must be what was there before, as far as a backward pass is still to come.
    /// - Throws: ``TorchError`` when the tensor is not the beginning of its memory, or does not fit into `shape`.
    public func allocateStorage(_ shape: [Int]) throws(TorchError) -> Tensor {
        let sizes = shape.map(Int64.init)
        return try tensor("allocateStorage\(shape)", [self]) {
            ct_storage_allocate(raw, sizes, Int32(sizes.count), $0, $1)
        }
    }

    /// The tensor itself; a backward pass that comes to it runs `body` first. The body runs on the thread of the backward pass (for
    /// CUDA tensors autograd's own, while the caller of ``backward(_:)`` waits) and with the stream that the forward pass had. It
    /// never runs where no gradient goes through the tensor; what it throws ends the backward pass.
    public func onBackward(_ body: @escaping () throws -> Void) throws(TorchError) -> Tensor {
        let context = Unmanaged.passRetained(BackwardHook(body)).toOpaque()
        return try tensor("onBackward", [self]) {
            ct_backward_hook(
                raw, runBackwardHook, { Unmanaged<BackwardHook>.fromOpaque($0!).release() }, context, $0, $1)
        }
    }
}

private final class BackwardHook {
    let body: () throws -> Void
    init(_ body: @escaping () throws -> Void) { self.body = body }
}

private func runBackwardHook(
    context: UnsafeMutableRawPointer?, error: UnsafeMutablePointer<ct_message?>?
) -> Int32 {
    do {
        try Unmanaged<BackwardHook>.fromOpaque(context!).takeUnretainedValue().body()
        return 0
    } catch let failure {
        error!.pointee = "\(failure)".withCString { ct_message_copy($0) }
        return -1
    }
}

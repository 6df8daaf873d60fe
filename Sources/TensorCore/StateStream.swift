internal import CTorch

/// The passage of optimizer states that stay in pinned host memory through a CUDA device: while some are computed with, others come
/// and go. What a step has changed travels home while the device goes on.
public final class StateStream {
    let raw: ct_state_stream

    public init(device: Device) throws(TorchError) {
        var made: ct_state_stream?
        try check("StateStream(\(device))") { ct_state_stream_new(Int32(device.index), &made, $0) }
        raw = made!
    }

    deinit { ct_state_stream_free(raw) }

    /// Sends for the states that the next step needs, once what has been launched is done. To be called again with the same tensors
    /// when there is more room.
    /// - Parameters:
    ///   - tensors: without gradients.
    ///   - room: bytes of the device's memory that this call may take.
    public func prefetch(_ tensors: [AdamWTensor], room: Int) throws(TorchError) {
        try AdamWTensor.call("prefetch", tensors) { ct_state_stream_prefetch(raw, $0, $1, Int64(room), $2) }
    }

    /// Waits until what the last step left is home, and frees the memory that it passed through; does nothing where the next step's
    /// states have been sent for.
    public func settle() throws(TorchError) {
        try check("StateStream.settle") { ct_state_stream_settle(raw, false, $0) }
    }

    /// The same, and forgets what has been sent for: the states at home have changed.
    public func drop() throws(TorchError) {
        try check("StateStream.drop") { ct_state_stream_settle(raw, true, $0) }
    }
}

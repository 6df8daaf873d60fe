internal import CTorch

/// The end of what had been launched on a CUDA device when it was recorded.
public struct DeviceEvent: ~Copyable {
    private let raw: ct_event

    /// Marks the current stream.
    public init(on device: Device) throws(TorchError) {
        var made: ct_event?
        try check("record an event on \(device)") { ct_event_record(device.index, &made, $0) }
        guard let made else { preconditionFailure("an event without a handle") }
        raw = made
    }

    deinit { ct_event_free(raw) }

    /// Waits until the device is there.
    public func synchronize() throws(TorchError) {
        try check("wait for an event") { ct_event_synchronize(raw, $0) }
    }
}

/// Kernels recorded once and launched together as often as wanted, on the same addresses.
public final class CUDAGraph {
    private let raw: ct_graph

    /// Records what `body` launches; nothing of it runs. The body must not wait for the device, nor copy from host memory that
    /// is not pinned. What it allocates belongs to a pool that all graphs sharing with one another use again: a graph's results
    /// last until another of them is replayed.
    ///
    /// - Throws: what the body throws, or ``TorchError`` where something cannot be captured.
    public init(on device: Device, sharingPoolWith other: CUDAGraph?, _ body: () throws -> Void) throws {
        var made: ct_graph?
        raw = try withoutActuallyEscaping(body) { body in
            let capture = Capture(body)
            var message: ct_message?
            let status = ct_graph_capture(
                device.index, other?.raw,
                { context, message in
                    guard let context, let message else { return -1 }
                    let capture = Unmanaged<Capture>.fromOpaque(context).takeUnretainedValue()
                    do {
                        try capture.body()
                        return 0
                    } catch {
                        capture.error = error
                        message.pointee = ct_message_copy("the body failed")
                        return -1
                    }
                }, Unmanaged.passUnretained(capture).toOpaque(), &made, &message)
            if let error = capture.error {
                message.map { ct_string_free($0) }
                throw error
            }
            try check("capture a CUDA graph") { out in
                out.pointee = message
                return status
            }
            guard let made else { preconditionFailure("a capture without a graph") }
            return made
        }
    }

    deinit { ct_graph_free(raw) }

    /// Launches everything on the current stream.
    public func replay() throws(TorchError) {
        try check("replay a CUDA graph") { ct_graph_replay(raw, $0) }
    }

    private final class Capture {
        let body: () throws -> Void
        var error: (any Error)?
        init(_ body: @escaping () throws -> Void) { self.body = body }
    }
}

extension Tensor {
    /// The same memory, not kept alive by this: for results inside a ``CUDAGraph``, whose pool keeps it.
    public func unowned() throws(TorchError) -> Tensor { try tensor("unowned", [self]) { ct_unowned(raw, $0, $1) } }

    /// The same bytes as another type of the same size.
    public func viewed(as dtype: DType) throws(TorchError) -> Tensor {
        try tensor("view as \(dtype)", [self]) { ct_view_as(raw, dtype.rawValue, $0, $1) }
    }

    /// `known[i]`, or `previous[source[i]]` where the source is not negative; int32, one dimension each.
    public static func selectIDs(known: Tensor, source: Tensor, previous: Tensor) throws(TorchError) -> Tensor {
        try tensor("selectIDs", [known, source, previous]) {
            ct_select_ids(known.raw, source.raw, previous.raw, $0, $1)
        }
    }
}

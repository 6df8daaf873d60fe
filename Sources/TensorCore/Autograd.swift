internal import CTorch

/// Runs `body` with gradients recorded. The mode belongs to the thread: `body` cannot suspend.
public func withGrad<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    try withGradMode(true, body)
}

/// Runs `body` without recording gradients.
public func withNoGrad<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    try withGradMode(false, body)
}

/// Whether this thread records gradients now.
public var isGradEnabled: Bool { ct_grad_enabled() }

private func withGradMode<Result, Failure: Error>(
    _ on: Bool, _ body: () throws(Failure) -> Result
) throws(Failure) -> Result {
    let before = ct_grad_enabled()
    ct_set_grad_enabled(on)
    defer { ct_set_grad_enabled(before) }
    return try body()
}

extension Tensor {
    /// Makes a leaf that gathers its gradient, or stops it doing so.
    public func setRequiresGrad(_ on: Bool = true) throws(TorchError) {
        try check("setRequiresGrad", [self]) { ct_set_requires_grad(raw, on, $0) }
    }

    /// The gathered gradient of a leaf.
    public func grad() throws(TorchError) -> Tensor? {
        var result: ct_tensor?
        try check("grad", [self]) { ct_grad(raw, &result, $0) }
        return result.map { Tensor(owning: $0) }
    }

    /// Replaces the gathered gradient; nil frees it.
    public func setGrad(_ grad: Tensor?) throws(TorchError) {
        try check("setGrad", [self]) { ct_set_grad(raw, grad?.raw, $0) }
    }

    /// Back-propagates from this tensor into every leaf that requires a gradient; `grad` defaults to 1 for a scalar.
    public func backward(_ grad: Tensor? = nil) throws(TorchError) {
        let roots = [raw as ct_tensor?]
        try check("backward", [self]) { error in
            if let grad {
                let grads = [grad.raw as ct_tensor?]
                return ct_backward(roots, grads, 1, error)
            }
            return ct_backward(roots, nil, 1, error)
        }
    }

    /// The l2 norm over all elements of all tensors, summed in double.
    public static func l2Norm(_ tensors: [Tensor]) throws(TorchError) -> Double {
        let handles = tensors.map { $0.raw as ct_tensor? }
        var norm = 0.0
        try check("l2Norm of \(tensors.count) tensors") { ct_l2_norm(handles, Int32(handles.count), &norm, $0) }
        return norm
    }
}

/// Runs `body` on `inputs` without keeping what lies between; when backward reaches it, runs it again and goes through
/// (Chen et al. 2016). `body` must give the same results both times and runs on the thread of the backward call.
public func checkpoint(
    _ inputs: [Tensor], resultCount: Int = 1, _ body: @escaping ([Tensor]) throws -> [Tensor]
) throws(TorchError) -> [Tensor] {
    let handles = inputs.map { $0.raw as ct_tensor? }
    var results = [ct_tensor?](repeating: nil, count: resultCount)
    var count: Int32 = 0
    let context = Unmanaged.passRetained(CheckpointBody(body)).toOpaque()
    try check("checkpoint", inputs) {
        ct_checkpoint(
            handles, Int32(handles.count), runCheckpointBody,
            { Unmanaged<CheckpointBody>.fromOpaque($0!).release() }, context, &results, Int32(resultCount), &count, $0)
    }
    return results.prefix(Int(count)).compactMap { $0.map { Tensor(owning: $0) } }
}

private final class CheckpointBody {
    let body: ([Tensor]) throws -> [Tensor]
    init(_ body: @escaping ([Tensor]) throws -> [Tensor]) { self.body = body }
}

private func runCheckpointBody(
    context: UnsafeMutableRawPointer?, inputs: UnsafePointer<ct_tensor?>?, count: Int32,
    results: UnsafeMutablePointer<ct_tensor?>?, capacity: Int32, error: UnsafeMutablePointer<ct_message?>?
) -> Int32 {
    let body = Unmanaged<CheckpointBody>.fromOpaque(context!).takeUnretainedValue()
    do {
        // The shim keeps its own handles; these are further ones to the same tensors.
        let outputs = try body.body((0..<Int(count)).map { Tensor(owning: ct_alias(inputs![$0])) })
        guard outputs.count <= Int(capacity) else {
            throw TorchError(
                code: .mismatch, operation: "checkpoint",
                message: "the body gave \(outputs.count) tensors but resultCount is \(capacity)")
        }
        for (index, output) in outputs.enumerated() { results![index] = ct_alias(output.raw) }
        return Int32(outputs.count)
    } catch let failure {
        error!.pointee = "\(failure)".withCString { ct_message_copy($0) }
        return -1
    }
}

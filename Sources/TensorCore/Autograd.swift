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

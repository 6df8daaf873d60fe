internal import CTorch

/// AdamW's numbers for one step (Loshchilov & Hutter 2019).
public struct AdamWOptions: Sendable, Hashable {
    public var learningRate, beta1, beta2, weightDecay, epsilon: Double

    public init(
        learningRate: Double, beta1: Double = 0.9, beta2: Double = 0.999, weightDecay: Double = 0.01,
        epsilon: Double = 1e-8
    ) {
        self.learningRate = learningRate
        self.beta1 = beta1
        self.beta2 = beta2
        self.weightDecay = weightDecay
        self.epsilon = epsilon
    }
}

/// One fused AdamW step in place over lists of equal length. `steps` are float32 scalars that the call counts up.
public func fusedAdamW(
    parameters: [Tensor], grads: [Tensor], expAvgs: [Tensor], expAvgSqs: [Tensor], steps: [Tensor],
    options: AdamWOptions
) throws(TorchError) {
    precondition(
        grads.count == parameters.count && expAvgs.count == parameters.count && expAvgSqs.count == parameters.count
            && steps.count == parameters.count, "fusedAdamW needs lists of one length")
    func handles(_ tensors: [Tensor]) -> [ct_tensor?] { tensors.map { $0.raw } }
    let raw = ct_adamw(
        lr: options.learningRate, beta1: options.beta1, beta2: options.beta2, weight_decay: options.weightDecay,
        eps: options.epsilon)
    try withExtendedLifetime((parameters, grads, expAvgs, expAvgSqs, steps)) { () throws(TorchError) in
        try check("fusedAdamW over \(parameters.count) parameters") {
            ct_fused_adamw_(
                handles(parameters), handles(grads), handles(expAvgs), handles(expAvgSqs), handles(steps),
                Int32(parameters.count), raw, $0)
        }
    }
}

public import Models
public import TensorCore

/// AdamW over a model's parameters. Where the model computes in bfloat16, float32 master weights and float32 gradient sums are
/// kept here, and each step writes the masters back into the model's own tensors, which the sampler shares.
public final class AdamW {
    public struct Settings: Sendable, Hashable {
        public var beta1, beta2, epsilon, weightDecay: Double
        public init(beta1: Double = 0.9, beta2: Double = 0.999, epsilon: Double = 1e-8, weightDecay: Double = 0.01) {
            self.beta1 = beta1
            self.beta2 = beta2
            self.epsilon = epsilon
            self.weightDecay = weightDecay
        }
    }

    public let settings: Settings
    private let parameters: [Parameter]
    private let masters: [Tensor]
    /// Made at the first step: a start should not wait for memory that it does not need yet.
    private var moments: Moments?
    private var gradSums: [Tensor?]
    private let ownsMasters: Bool
    /// Bytes of both moments and of the masters that are kept beside the model's own tensors.
    public var stateBytes: Int {
        masters.reduce(0) { $0 + (ownsMasters ? 3 : 2) * $1.byteCount }
    }
    /// Steps taken.
    public private(set) var stepCount = 0

    private struct Moments {
        var expAvgs: [Tensor] = [], expAvgSqs: [Tensor] = [], steps: [Tensor] = []

        init(_ parameters: [Parameter]) throws(TorchError) {
            for parameter in parameters {
                let shape = parameter.tensor.shape, device = parameter.tensor.device
                expAvgs.append(try Tensor.zeros(shape, device: device))
                expAvgSqs.append(try Tensor.zeros(shape, device: device))
                steps.append(try Tensor.zeros([], device: device))
            }
        }
    }

    public init(parameters: [Parameter], settings: Settings) throws(TorchError) {
        self.settings = settings
        self.parameters = parameters
        ownsMasters = parameters.contains { $0.tensor.dtype != .float32 }
        var masters: [Tensor] = []
        for parameter in parameters {
            let tensor = parameter.tensor
            try tensor.setRequiresGrad()
            masters.append(
                ownsMasters ? try tensor.detached().to(dtype: .float32, copy: true) : try tensor.detached())
        }
        self.masters = masters
        gradSums = Array(repeating: nil, count: parameters.count)
    }

    /// Takes what one micro-batch's backward pass left in the leaves into the float32 sums.
    public func gatherGrads() throws(TorchError) {
        guard ownsMasters else { return }
        for (index, parameter) in parameters.enumerated() {
            guard let grad = try parameter.tensor.grad() else { continue }
            if let sum = gradSums[index] {
                try sum.add(grad)
            } else {
                gradSums[index] = try grad.to(dtype: .float32)
            }
            try parameter.tensor.setGrad(nil)
        }
    }

    /// Clips the gathered gradients to `maxNorm` and steps, unless their norm is not finite: then nothing changes.
    ///
    /// - Returns: the norm before clipping, and whether the step was taken.
    public func step(learningRate: Double, maxNorm: Double) throws(TorchError) -> (gradNorm: Double, stepped: Bool) {
        var live: [Int] = [], grads: [Tensor] = []
        for (index, parameter) in parameters.enumerated() {
            guard let grad = ownsMasters ? gradSums[index] : try parameter.tensor.grad() else { continue }
            live.append(index)
            grads.append(grad)
        }
        let norm = try Tensor.l2Norm(grads)
        defer { gradSums = Array(repeating: nil, count: parameters.count) }
        guard norm.isFinite else {
            try clearLeaves()
            return (norm, false)
        }
        if maxNorm > 0, norm > maxNorm {
            for grad in grads { try grad.scale(by: maxNorm / (norm + 1e-6)) }
        }
        let moments = try currentMoments()
        try fusedAdamW(
            parameters: live.map { masters[$0] }, grads: grads, expAvgs: live.map { moments.expAvgs[$0] },
            expAvgSqs: live.map { moments.expAvgSqs[$0] }, steps: live.map { moments.steps[$0] },
            options: AdamWOptions(
                learningRate: learningRate, beta1: settings.beta1, beta2: settings.beta2,
                weightDecay: settings.weightDecay, epsilon: settings.epsilon))
        try publishMasters()
        try clearLeaves()
        stepCount += 1
        return (norm, true)
    }

    private func currentMoments() throws(TorchError) -> Moments {
        if let moments { return moments }
        let made = try Moments(parameters)
        moments = made
        return made
    }

    private func publishMasters() throws(TorchError) {
        guard ownsMasters else { return }
        for (parameter, master) in zip(parameters, masters) { try parameter.tensor.detached().copy(from: master) }
    }

    private func clearLeaves() throws(TorchError) {
        for parameter in parameters { try parameter.tensor.setGrad(nil) }
    }

    // MARK: - State

    /// What a parameter's float32 weights are called in ``state()``.
    public static func masterName(_ parameter: Parameter) -> String { "master." + parameter.name }

    /// Everything that a resumed run needs, under stable names; the tensors themselves, not copies.
    public func state() throws(TorchError) -> [(name: String, tensor: Tensor)] {
        let moments = try currentMoments()
        var all: [(String, Tensor)] = []
        for (index, parameter) in parameters.enumerated() {
            all.append((Self.masterName(parameter), masters[index]))
            all.append(("exp_avg." + parameter.name, moments.expAvgs[index]))
            all.append(("exp_avg_sq." + parameter.name, moments.expAvgSqs[index]))
            all.append(("step." + parameter.name, moments.steps[index]))
        }
        return all
    }

    /// Puts back what ``state()`` gave and writes the weights into the model.
    public func restore(stepCount: Int, _ saved: (String) throws -> Tensor) throws {
        for (name, tensor) in try state() { try withNoGrad { try tensor.copy(from: saved(name)) } }
        try withNoGrad { try publishMasters() }
        self.stepCount = stepCount
    }
}

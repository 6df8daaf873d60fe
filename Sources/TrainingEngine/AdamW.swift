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
    /// Completes the local sum of squares of the gradients, float64 `[1]`, in place, where other ranks have the rest; runs between
    /// the norm and the decision.
    public var completeSquares: ((Tensor) throws(TorchError) -> Void)?
    private let parameters: [OptimizerParameter]
    private let masters: [Tensor]
    /// Made at the first step: a start should not wait for memory that it does not need yet.
    private var moments: Moments?
    private let ownsMasters: Bool
    /// Bytes of both moments and of the masters that are kept beside the model's own tensors.
    public var stateBytes: Int {
        masters.reduce(0) { $0 + (ownsMasters ? 3 : 2) * $1.byteCount }
    }
    /// Steps taken.
    public private(set) var stepCount = 0

    private struct Moments {
        var expAvgs: [Tensor] = [], expAvgSqs: [Tensor] = [], steps: [Tensor] = []

        init(_ parameters: [OptimizerParameter]) throws(TorchError) {
            for parameter in parameters {
                let shape = parameter.weight.shape, device = parameter.weight.device
                expAvgs.append(try Tensor.zeros(shape, device: device))
                expAvgSqs.append(try Tensor.zeros(shape, device: device))
                steps.append(try Tensor.zeros([], device: device))
            }
        }
    }

    public convenience init(parameters: [Parameter], settings: Settings) throws(TorchError) {
        var entries: [OptimizerParameter] = []
        for parameter in parameters { entries.append(try OptimizerParameter(parameter, gradDType: .float32)) }
        try self.init(entries, settings: settings)
    }

    public init(_ parameters: [OptimizerParameter], settings: Settings) throws(TorchError) {
        self.settings = settings
        self.parameters = parameters
        ownsMasters = parameters.contains { $0.weight.dtype != .float32 }
        var masters: [Tensor] = []
        for parameter in parameters {
            let weight = try parameter.weight.detached()
            masters.append(ownsMasters ? try weight.to(dtype: .float32, copy: true) : weight)
        }
        self.masters = masters
    }

    /// Takes what one micro-batch's backward pass left in the leaves into the float32 sums.
    public func gatherGrads() throws(TorchError) { for parameter in parameters { try parameter.gather() } }

    /// Clips the gathered gradients to `maxNorm` and steps, unless their norm is not finite: then nothing changes.
    ///
    /// - Returns: the norm before clipping, and whether the step was taken.
    public func step(learningRate: Double, maxNorm: Double) throws(TorchError) -> (gradNorm: Double, stepped: Bool) {
        var live: [Int] = [], grads: [Tensor] = []
        for (index, parameter) in parameters.enumerated() {
            guard let grad = try parameter.gradient() else { continue }
            live.append(index)
            grads.append(grad)
        }
        let norm = try norm(grads)
        guard norm.isFinite else {
            try clear()
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
        try clear()
        stepCount += 1
        return (norm, true)
    }

    private func norm(_ grads: [Tensor]) throws(TorchError) -> Double {
        let local = try Tensor.l2Norm(grads)
        guard let completeSquares else { return local }
        let squares = try Tensor.full([1], local * local, dtype: .float64, device: parameters.first?.weight.device ?? .cpu)
        try completeSquares(squares)
        return try squares.item().squareRoot()
    }

    private func currentMoments() throws(TorchError) -> Moments {
        if let moments { return moments }
        let made = try Moments(parameters)
        moments = made
        return made
    }

    private func publishMasters() throws(TorchError) {
        guard ownsMasters else { return }
        for (parameter, master) in zip(parameters, masters) { try parameter.weight.detached().copy(from: master) }
    }

    private func clear() throws(TorchError) { for parameter in parameters { try parameter.clear() } }

    // MARK: - State

    /// What a parameter's float32 weights are called in ``state()``.
    public static func masterName(_ parameter: Parameter) -> String { masterName(parameter.name) }
    private static func masterName(_ name: String) -> String { "master." + name }

    /// Everything that a resumed run needs, under stable names; the tensors themselves, not copies.
    public func state() throws(TorchError) -> [(name: String, tensor: Tensor)] {
        let moments = try currentMoments()
        var all: [(String, Tensor)] = []
        for (index, parameter) in parameters.enumerated() {
            all.append((Self.masterName(parameter.name), masters[index]))
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

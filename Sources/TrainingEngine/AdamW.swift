public import Models
public import TensorCore

/// AdamW over a model's parameters, or a rank's rows of them. Where the model computes in bfloat16, float32 master weights and
/// float32 gradient sums are kept, and each step writes the masters back into the model's own tensors, which the sampler shares.
/// Without masters the bfloat16 weights themselves are trained. A step is three passes over all tensors: the gradients' norm, the
/// decision, and the update, which reads and writes each tensor once; nothing waits for the device.
public final class AdamW {
    public struct Settings: Sendable, Hashable {
        public var beta1, beta2, epsilon, weightDecay: Double
        /// Whether norms and biases, which have one dimension, decay too.
        public var decaysVectors = true
        public var moments = MomentType.float32
        /// Whether bfloat16 weights have float32 masters.
        public var keepsMasters = true
        /// The type that gradients of several micro-batches are summed in; a float32 weight's are float32 always.
        public var gradDType = DType.float32
        /// On CUDA: whether moments, or masters, stay in pinned host memory and are streamed through the device in each step.
        public var offloadsMoments = false, offloadsMasters = false
        /// The share of the moments that ``offloadsMoments`` means, by whole tensors.
        public var offloadedMoments = 1.0
        /// Whether what is stored in bfloat16 and trained is rounded up or down by chance: to the nearest, small steps are lost.
        public var roundsStochastically = true
        public var seed: UInt64 = 0

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
    let parameters: [OptimizerParameter]
    let masters: [Tensor?]
    let device: Device
    /// Which parameters' moments stay in pinned host memory.
    private let hasHostMoments: [Bool]
    /// nil: all states lie on the device.
    let stream: StateStream?
    /// Bytes of the device's memory that were allocated when the last backward pass before a step began.
    private var prefetchLimit: Int?
    /// Made at the first step: a start should not wait for memory that it does not need yet.
    private(set) var moments: Moments?
    /// Of a role that shares its device with others: see ``rest()``.
    var resting = RestingStates()
    /// The last step, until its outcome has been read.
    private var pending: PendingStep?
    /// Steps taken, as far as the device has told: see ``settle()``.
    public internal(set) var stepCount = 0
    /// The number of the step that comes next, counted from 0, one that is still under way taken as done: mini-batches that are
    /// launched one behind the other have different ones.
    public var nextStep: Int { stepCount + (pending == nil ? 0 : 1) }

    struct Moments {
        var first: [Moment] = [], second: [Moment] = []
        let progress: AdamWProgress
    }

    /// A step whose outcome the device has not told yet.
    public final class PendingStep {
        fileprivate let outcome: AdamWOutcome
        fileprivate weak var optimizer: AdamW?
        private var known: (gradNorm: Double, stepped: Bool)?

        fileprivate init(_ outcome: AdamWOutcome, of optimizer: AdamW) {
            self.outcome = outcome
            self.optimizer = optimizer
        }

        /// The norm before clipping, and whether the step was taken; waits for the device.
        public func result() throws(TorchError) -> (gradNorm: Double, stepped: Bool) {
            if let known { return known }
            let result = try outcome.result()
            known = result
            optimizer?.note(self, stepped: result.stepped)
            return result
        }
    }

    public convenience init(parameters: [Parameter], settings: Settings) throws(TorchError) {
        var entries: [OptimizerParameter] = []
        for parameter in parameters {
            let isWide = parameter.tensor.dtype == .float32
            entries.append(
                try OptimizerParameter(
                    parameter, decays: settings.decaysVectors || parameter.tensor.rank > 1,
                    gradDType: isWide ? .float32 : settings.gradDType))
        }
        try self.init(entries, settings: settings)
    }

    public init(_ parameters: [OptimizerParameter], settings: Settings) throws(TorchError) {
        self.settings = settings
        self.parameters = parameters
        device = parameters.first?.weight.device ?? .cpu
        var masters: [Tensor?] = []
        for parameter in parameters {
            guard settings.keepsMasters, parameter.weight.dtype != .float32 else {
                masters.append(nil)
                continue
            }
            let weight = try parameter.weight.detached()
            if settings.offloadsMasters, device.isCUDA {
                let master = try Tensor.pinnedZeros(weight.shape)
                try master.copy(from: weight)
                masters.append(master)
            } else {
                masters.append(try weight.to(dtype: .float32, copy: true))
            }
        }
        self.masters = masters
        hasHostMoments =
            device.isCUDA && settings.offloadsMoments
            ? Self.spread(parameters.map(\.weight.count), share: settings.offloadedMoments)
            : [Bool](repeating: false, count: parameters.count)
        let hasHostMasters = device.isCUDA && settings.offloadsMasters && masters.contains { $0 != nil }
        stream = hasHostMasters || hasHostMoments.contains(true) ? try StateStream(device: device) : nil
    }

    /// Chooses some of a row of numbers that come to `share` of all, near enough at every place of the row.
    static func spread(_ counts: [Int], share: Double) -> [Bool] {
        var all = 0, chosen = 0
        return counts.map { count in
            all += count
            let isChosen = Double(chosen) + Double(count) / 2 <= share * Double(all)
            if isChosen { chosen += count }
            return isChosen
        }
    }

    // MARK: - What it holds

    /// Bytes of the states on the device of the weights and in pinned host memory; the moments count before they are made.
    public var bytes: (device: Int, host: Int) {
        var host = 0, all = masters.reduce(0) { $0 + ($1?.byteCount ?? 0) }
        if device.isCUDA && settings.offloadsMasters { host = all }
        for (parameter, isOnHost) in zip(parameters, hasHostMoments) {
            let bytes = 2 * settings.moments.bytes(parameter.weight.count)
            all += bytes
            if isOnHost { host += bytes }
        }
        return (all - host, host)
    }
    /// Bytes of both moments and of the masters that are kept beside the model's own tensors.
    public var stateBytes: Int { bytes.device + bytes.host }

    /// What is kept of each parameter and where, in a line.
    public var summary: String {
        let moments =
            switch settings.moments {
            case .float32: "float32 moments"
            case .bfloat16: "bfloat16 moments"
            case .int8: "8-bit moments"
            }
        let weights = masters.contains { $0 != nil } ? "float32 master weights and \(moments)" : moments
        let (device, host) = bytes
        func gib(_ bytes: Int) -> String { "\((Double(bytes) / 0x1p30 * 100).rounded() / 100) GiB" }
        let elsewhere = host > 0 ? ", \(gib(host)) in pinned host memory" : ""
        return "AdamW keeps \(weights): \(gib(device)) on \(self.device)\(elsewhere)"
    }

    /// What of the settings changes nothing here, a sentence each.
    public var notes: [String] {
        var notes: [String] = []
        if settings.offloadsMoments || settings.offloadsMasters, !device.isCUDA {
            notes.append("the optimizer's offload changes nothing: weights and states lie in the host's memory already")
        } else if settings.offloadsMasters, masters.allSatisfy({ $0 == nil }) {
            notes.append(
                "param_offload changes nothing: there are no master weights beside those that passes compute with")
        }
        return notes
    }

    // MARK: - Step

    /// What a backward pass leaves in the leaves goes into the sums as it comes; this takes what was put there otherwise.
    public func gatherGrads() throws(TorchError) {
        for parameter in parameters { try parameter.gather() }
        // Enough is launched by now for the device not to run dry meanwhile.
        try stream?.settle()
    }

    /// Whether ``prefetch()`` has something to send for.
    public var streamsStates: Bool { stream != nil }

    /// Sends for states in host memory that the coming step needs, as far as what has been freed since the first call has room. To be
    /// called in the last backward pass before a step, when it begins and again and again as it frees memory.
    public func prefetch() throws(TorchError) {
        guard stream != nil else { return }
        let allocated = try device.memory().allocated, limit = prefetchLimit ?? allocated
        prefetchLimit = limit
        var room = limit - allocated
        // Gradients that are still to come need their room first.
        for parameter in parameters where try parameter.gradient() == nil {
            room -= parameter.weight.count * settings.gradDType.size
        }
        if room > 0 { try prefetch(room: room) }
    }

    /// The same into so many bytes more of the device's memory.
    public func prefetch(room: Int) throws(TorchError) {
        guard let stream else { return }
        let moments = try awakeMoments()
        try stream.prefetch(
            parameters.enumerated().map { tensor($0.offset, $0.element, grad: nil, moments) }, room: room)
    }

    private func tensor(
        _ slot: Int, _ parameter: OptimizerParameter, grad: Tensor?, _ moments: Moments
    ) -> AdamWTensor {
        let first = moments.first[slot], second = moments.second[slot]
        return AdamWTensor(
            weight: parameter.weight, master: masters[slot], grad: grad, expAvg: first.values, expAvgSq: second.values,
            expAvgScale: first.scales, expAvgSqScale: second.scales,
            weightDecay: parameter.decays ? settings.weightDecay : 0, slot: slot)
    }

    /// Clips the gathered gradients to `maxNorm` and steps, unless their norm is not finite: then nothing changes.
    ///
    /// - Returns: the norm before clipping, and whether the step was taken.
    public func step(learningRate: Double, maxNorm: Double) throws(TorchError) -> (gradNorm: Double, stepped: Bool) {
        try beginStep(learningRate: learningRate, maxNorm: maxNorm).result()
    }

    /// The same without waiting for the device, which decides by itself whether the gradients are finite.
    public func beginStep(learningRate: Double, maxNorm: Double) throws(TorchError) -> PendingStep {
        try settle()
        try gatherGrads()
        prefetchLimit = nil
        let moments = try awakeMoments()
        for group in resting.groups { group.change() }
        var tensors: [AdamWTensor] = []
        for (slot, parameter) in parameters.enumerated() {
            guard let grad = try parameter.gradient() else { continue }
            tensors.append(tensor(slot, parameter, grad: try grad.contiguous(), moments))
        }
        let step = AdamWStep(
            tensors, progress: moments.progress, learningRate: learningRate, beta1: settings.beta1,
            beta2: settings.beta2,
            epsilon: settings.epsilon, roundsStochastically: settings.roundsStochastically, seed: settings.seed)
        try step.sumSquares()
        try completeSquares?(moments.progress.squares)
        try step.prepare(maxNorm: maxNorm)
        try step.apply(stream: stream)
        for parameter in parameters { try parameter.clear() }
        let made = PendingStep(try AdamWOutcome(moments.progress), of: self)
        pending = made
        return made
    }

    /// Reads the outcome of the last step, so that ``stepCount`` counts it. The next step does so by itself.
    public func settle() throws(TorchError) { _ = try pending?.result() }

    private func note(_ step: PendingStep, stepped: Bool) {
        guard step === pending else { return }
        pending = nil
        if stepped { stepCount += 1 }
    }

    /// The moments, which are made where there are none, on the device with the masters.
    func awakeMoments() throws(TorchError) -> Moments {
        try wake()
        if let moments { return moments }
        var made = Moments(progress: try AdamWProgress(slots: parameters.count, device: device))
        for (parameter, isOnHost) in zip(parameters, hasHostMoments) {
            let shape = parameter.weight.shape, place = isOnHost ? StatePlace.pinnedHost : .device(device)
            made.first.append(try Moment(shape, type: settings.moments, isSigned: true, place: place))
            made.second.append(try Moment(shape, type: settings.moments, isSigned: false, place: place))
        }
        moments = made
        return made
    }

    // MARK: - State

    /// What a parameter's trained weights are called in ``state()``.
    public static func masterName(_ parameter: Parameter) -> String { masterName(parameter.name) }
    private static func masterName(_ name: String) -> String { "master." + name }
    private static func momentNames(_ name: String) -> [(values: String, scales: String)] {
        ["exp_avg", "exp_avg_sq"].map { ("\($0).\(name)", "\($0)_scale.\(name)") }
    }

    /// Everything that a resumed run needs, under stable names; the tensors themselves, or the host's of those that rest, not copies.
    /// 8-bit moments are codes with scales beside them.
    public func state() throws(TorchError) -> [(name: String, tensor: Tensor)] {
        try settle()
        let (masters, moments) = try currentStates()
        // States in host memory are written by copies that may be on their way.
        if device.isCUDA { try device.synchronize() }
        var all: [(String, Tensor)] = []
        for (slot, parameter) in parameters.enumerated() {
            let weight = try parameter.weight.detached()
            all.append((Self.masterName(parameter.name), masters[slot] ?? weight))
            for (moment, name) in zip(
                [moments.first[slot], moments.second[slot]], Self.momentNames(parameter.name))
            {
                all.append((name.values, moment.values))
                if let scales = moment.scales { all.append((name.scales, scales)) }
            }
            all.append(("step." + parameter.name, try moments.progress.steps.selected(0, slot)))
        }
        return all
    }

    /// Puts back what ``state()`` gave and writes the weights into the model. States that were saved in another type are
    /// converted.
    public func restore(stepCount: Int, _ saved: (String) throws -> Tensor) throws {
        try settle()
        try stream?.drop()
        try changing {
            let moments = try awakeMoments()
            if device.isCUDA { try device.synchronize() }
            try withNoGrad {
                for (slot, parameter) in parameters.enumerated() {
                    let weight = try parameter.weight.detached()
                    try (masters[slot] ?? weight).copy(from: saved(Self.masterName(parameter.name)))
                    if let master = masters[slot] { try weight.copy(from: master) }
                    for (moment, name) in zip(
                        [moments.first[slot], moments.second[slot]], Self.momentNames(parameter.name))
                    {
                        try moment.restore(saved(name.values)) { try saved(name.scales) }
                    }
                    try moments.progress.steps.selected(0, slot).copy(from: saved("step." + parameter.name))
                }
            }
        }
        self.stepCount = stepCount
    }
}

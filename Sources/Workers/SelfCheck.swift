public import TensorCore

/// Compares what a device computes with the CPU's float32, op by op and for a small model end to end.
public struct SelfCheck {
    public struct Result: Sendable, Hashable {
        public var name: String
        /// ‖candidate − reference‖ / ‖reference‖, the worst of the check's results and gradients.
        public var error: Double
        public var tolerance: Double
        public var passed: Bool { error <= tolerance }
    }

    public let device: Device
    public let dtype: DType

    public init(device: Device, dtype: DType) {
        self.device = device
        self.dtype = dtype
    }

    var tolerance: Double { dtype == .float32 ? 1e-3 : 2.5e-2 }

    /// Every check, each independent of the others.
    public func run() throws -> [Result] {
        var results = [
            try compare("linear", [[37, 64], [48, 64]]) { try [$0[0].linear($0[1])] },
            try compare("rms norm", [[37, 96], [96]]) { try [$0[0].rmsNorm($0[1], eps: 1e-5)] },
            try compare("silu · up", [[37, 128]]) { try [$0[0].siluMultiply()] },
            try compare("rotary", [[21, 4, 64]]) { inputs in
                let angles = try Tensor.arange(0..<21 * 32, dtype: .float32, device: inputs[0].device)
                    .multiplied(by: 0.01).reshaped([21, 32])
                return try [inputs[0].rotary(cos: angles.cos(), sin: angles.sin())]
            },
            try compare("softmax", [[17, 300]]) { try [$0[0].to(dtype: .float32).softmax(1)] },
            try compare("attention over shared prefixes", [[70, 6, 64], [70, 2, 64], [70, 2, 64]]) { inputs in
                try [
                    Tensor.packedAttention(
                        query: inputs[0], key: inputs[1], value: inputs[2], segments: Self.segments, scale: 0.125)
                ]
            },
            try attention("attention through a window", Self.apart, AttentionKind(scale: 0.125, window: 7)),
            try attention(
                "attention through a window over shared prefixes", Self.segments, .init(scale: 0.125, window: 7)),
            try attention(
                "soft-capped attention", Self.segments, AttentionKind(scale: 0.125, window: 30, softCap: 0.8)),
            try attention("attention with narrow values", Self.segments, AttentionKind(scale: 0.125), valueDim: 40),
            try compare("token log-probabilities, soft-capped", [[19, 64], [500, 64]]) { inputs in
                let targets = try Tensor((0..<19).map { Int64($0 * 23) }, device: inputs[0].device)
                let both = try Tensor.tokenLogProbs(
                    hidden: inputs[0], weight: inputs[1].multiplied(by: 0.2), targets: targets,
                    transform: LogitsTransform(scale: 0.7, softCap: 2), chunk: 7)
                return [both.logProbs, both.entropies]
            },
            try compare("rms norm, float32 weight", [[37, 96], [96]]) {
                try [$0[0].rmsNorm($0[1].to(dtype: .float32), eps: 1e-5)]
            },
            try compare("token log-probabilities", [[19, 64], [500, 64]]) { inputs in
                let targets = try Tensor((0..<19).map { Int64($0 * 23) }, device: inputs[0].device)
                let both = try Tensor.tokenLogProbs(
                    hidden: inputs[0], weight: inputs[1].multiplied(by: 0.2), targets: targets, chunk: 7)
                return [both.logProbs, both.entropies]
            },
            try compare("checkpointing", [[12, 32], [32, 32]]) { inputs in
                try checkpoint(inputs) { try [$0[0].linear($0[1]).silu().linear($0[1])] }
            },
            try adamW(),
        ]
        results += try optimizer() + turns()
        results += try training()
        results += try kernels() + layerGradients()
        for (name, make) in SelfCheckFamilies.models() {
            let model = SelfCheckModel(name: name, device: device, dtype: dtype, make: make)
            results += try model.results(tolerance: tolerance)
            if name == "LlamaForCausalLM" { results.append(try model.learns()) }
        }
        return results
    }

    static let segments = [
        PackedSegment(start: 0, length: 16), PackedSegment(start: 16, length: 20, parent: 0),
        PackedSegment(start: 36, length: 9, parent: 1), PackedSegment(start: 45, length: 1, parent: 1),
        PackedSegment(start: 46, length: 24),
    ]

    /// The same tokens without ancestors.
    static let apart = segments.map { PackedSegment(start: $0.start, length: $0.length) }

    private func attention(
        _ name: String, _ segments: [PackedSegment], _ kind: AttentionKind, valueDim: Int = 64
    ) throws -> Result {
        try compare(name, [[70, 6, 64], [70, 2, 64], [70, 2, valueDim]]) { inputs in
            try [
                Tensor.packedAttention(
                    query: inputs[0], key: inputs[1], value: inputs[2], segments: segments, kind: kind)
            ]
        }
    }

    /// Runs `body` on the reference and on the candidate, forward and backward.
    func compare(
        _ name: String, _ shapes: [[Int]], _ body: ([Tensor]) throws -> [Tensor]
    ) throws -> Result {
        let generator = try RandomGenerator(seed: 11)
        let inputs = try shapes.map { try Tensor.randomNormal($0, generator: generator) }
        func run(_ device: Device, _ dtype: DType) throws -> [Tensor] {
            let leaves = try inputs.map { try $0.to(device, dtype: dtype, copy: true) }
            for leaf in leaves { try leaf.setRequiresGrad() }
            return try withGrad {
                let outputs = try body(leaves)
                var total: Tensor?
                for output in outputs {
                    let wide = try output.to(dtype: .float32)
                    let weights = try Tensor.arange(0..<wide.count, dtype: .float32, device: device)
                        .multiplied(by: 0.37).sin().reshaped(wide.shape)
                    let share = try wide.multiplied(by: weights).sum()
                    total = try total.map { try $0.adding(share) } ?? share
                }
                // Results that are gradients already have no history.
                if let total, total.requiresGrad { try total.backward() }
                return try outputs + leaves.compactMap { try $0.grad() }
            }
        }
        return try worst(name, run(.cpu, .float32), run(device, dtype))
    }

    func worst(_ name: String, _ reference: [Tensor], _ candidate: [Tensor]) throws -> Result {
        var error = reference.count == candidate.count ? 0 : Double.infinity
        for (a, b) in zip(reference, candidate) { error = max(error, try Self.distance(b, a)) }
        return Result(name: name, error: error, tolerance: tolerance)
    }

    /// ‖a − b‖ / ‖b‖ on the CPU; infinite when something is not finite.
    static func distance(_ a: Tensor, _ b: Tensor) throws -> Double {
        let x = try a.detached().to(.cpu, dtype: .float64), y = try b.detached().to(.cpu, dtype: .float64)
        let gap = try x.subtracting(y).squared().sum().item().squareRoot()
        let size = try y.squared().sum().item().squareRoot()
        let relative = gap / max(size, 1e-12)
        return relative.isFinite ? relative : .infinity
    }

    private func adamW() throws -> Result {
        func run(_ device: Device) throws -> [Tensor] {
            let generator = try RandomGenerator(seed: 13)
            let parameter = try Tensor.randomNormal([33, 7], generator: generator).to(device)
            let grad = try Tensor.randomNormal([33, 7], generator: generator).to(device)
            let first = try Tensor.zeros([33, 7], device: device), second = try Tensor.zeros([33, 7], device: device)
            let step = try Tensor.zeros([], device: device)
            for _ in 0..<3 {
                try fusedAdamW(
                    parameters: [parameter], grads: [grad], expAvgs: [first], expAvgSqs: [second], steps: [step],
                    options: AdamWOptions(learningRate: 0.01))
            }
            return [parameter, first, second, step]
        }
        return try worst("AdamW", run(.cpu), run(device))
    }
}

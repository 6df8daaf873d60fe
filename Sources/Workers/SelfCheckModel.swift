import Models
import RolloutCore
import RolloutEngine
import TensorCore
import TrainingEngine

/// The end-to-end part of the self-check: a small model with random weights samples, scores and learns.
struct SelfCheckModel {
    typealias Make = (Device, DType) throws -> any CausalLanguageModel

    let name: String
    let device: Device
    let dtype: DType
    let make: Make

    private static let prompts: [[Int32]] = (0..<3).map { index in
        (0..<20).map { Int32($0 * 13 % 500) } + [Int32(index), Int32(index * 7 + 1)]
    }

    /// Scores, gradients, and whether sampler and trainer agree.
    func results(tolerance: Double) throws -> [SelfCheck.Result] {
        [try scores(tolerance), try gradients(tolerance)]
            + (try samplerAgreesWithTrainer("", .init()))
            + (try samplerAgreesWithTrainer(
                ", chunks, shared prefixes and preemption",
                .init(maxRows: 7, maxStepTokens: 9, prefillChunk: 5, blockSize: 4, cacheBlocks: 30)))
            // Greedy, as answers then repeat themselves and drafts are right now and then.
            + (try samplerAgreesWithTrainer(
                ", drafts", .init(speculation: Speculation(maxDraft: 3, minNgram: 1, maxNgram: 3)), temperature: 0))
    }

    private static var sequences: [TrainingSequence] {
        prompts.enumerated().flatMap { index, prompt in
            (0..<2).map { TrainingSequence(prompt: prompt, response: [Int32(5 + index), Int32(9 * $0 + 2), 77, 4]) }
        }
    }

    private func trainer(_ device: Device, _ dtype: DType) throws -> PolicyTrainer {
        let model = try make(device, dtype)
        return PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init(weightDecay: 0)),
            schedule: LearningRateSchedule(peak: 1e-3))
    }

    private func scores(_ tolerance: Double) throws -> SelfCheck.Result {
        let reference = try trainer(.cpu, .float32).score(Self.sequences).logProbs.flatMap { $0 }
        let candidate = try trainer(device, dtype).score(Self.sequences).logProbs.flatMap { $0 }
        return SelfCheck.Result(
            name: "\(name): log-probabilities", error: try SelfCheck.distance(Tensor(candidate), Tensor(reference)),
            tolerance: tolerance)
    }

    /// On one device: what the sampler records against what the trainer computes, on two versions of the weights, the second set
    /// in place while the engine keeps its cache and graphs. The largest difference of any token, and in bfloat16 the mean, for
    /// there a router near a tie may take another expert for a token.
    private func samplerAgreesWithTrainer(
        _ how: String, _ options: RolloutEngine.Options, temperature: Double = 1
    ) throws -> [SelfCheck.Result] {
        let trainer = try trainer(device, dtype)
        let engine = RolloutEngine(model: trainer.model, options: options)
        let requests = Self.prompts.enumerated().map {
            RolloutRequest(
                prompt: $1,
                sampling: SamplingParameters(n: 4, temperature: temperature, maxTokens: 12, seed: UInt64($0)))
        }
        var worst = 0.0, total = 0.0, count = 0.0
        for version in 0..<2 {
            if version == 1 {
                try withNoGrad {
                    for parameter in trainer.model.parameters { try parameter.tensor.scale(by: 1.1) }
                }
                engine.weightVersion += 1
            }
            for (request, samples) in zip(requests, try engine.generate(requests)) {
                let scored = try trainer.score(
                    samples.map { TrainingSequence(prompt: request.prompt, response: $0.tokens) })
                for (sample, logProbs) in zip(samples, scored.logProbs) {
                    for (a, b) in zip(sample.logProbs, logProbs) {
                        worst = max(worst, Double(abs(a - b)))
                        total += Double(abs(a - b))
                        count += 1
                    }
                }
            }
        }
        let largest = SelfCheck.Result(
            name: "\(name): sampler against trainer\(how), largest", error: worst,
            tolerance: dtype == .float32 ? 1e-3 : 1.5)
        let mean = SelfCheck.Result(
            name: "\(name): sampler against trainer\(how), mean", error: total / count,
            tolerance: dtype == .float32 ? 1e-4 : 0.03)
        return [mean, largest]
    }

    /// Gradients of the log-probabilities' sum in every parameter, all as one vector.
    private func gradients(_ tolerance: Double) throws -> SelfCheck.Result {
        func gradients(_ device: Device, _ dtype: DType) throws -> Tensor {
            let model = try make(device, dtype)
            for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
            let ids = SelfCheck.segments.flatMap { segment in
                (0..<segment.length).map { Int64(segment.start * 31 + $0 * 17) % 500 }
            }
            var positions: [Int64] = [], ends: [Int] = []
            for segment in SelfCheck.segments {
                let first = segment.parent.map { ends[$0] } ?? 0
                positions += (first..<first + segment.length).map(Int64.init)
                ends.append(first + segment.length)
            }
            try withGrad {
                let hidden = try model.hiddenStates(
                    ids: Tensor(ids, device: device), positions: Tensor(positions, device: device),
                    attention: PackedAttention(segments: SelfCheck.segments))
                let targets = try Tensor(ids.map { ($0 * 7 + 1) % 500 }, device: device)
                try model.tokenLogProbs(hidden: hidden, targets: targets).logProbs.mean().backward()
            }
            // A part that no token reached has none.
            return try Tensor.concatenate(
                model.parameters.map { parameter in
                    let whole = try parameter.tensor.grad() ?? Tensor.zeros(parameter.tensor.shape, device: device)
                    return try whole.to(.cpu, dtype: .float32).reshaped([parameter.tensor.count])
                })
        }
        return SelfCheck.Result(
            name: "\(name): gradients",
            error: try SelfCheck.distance(gradients(device, dtype), gradients(.cpu, .float32)),
            // In bfloat16 the layers' rounding adds up, and a router near a tie takes another expert.
            tolerance: dtype == .float32 ? tolerance : 0.3)
    }

    /// Twenty steps of likelihood training, and where the loss ends up against the CPU's.
    func learns() throws -> SelfCheck.Result {
        func loss(_ device: Device, _ dtype: DType) throws -> Double {
            let trainer = try trainer(device, dtype)
            let samples = Self.sequences.map { sequence in
                let flat = [Float](repeating: 0, count: sequence.response.count)
                return PolicySample(sequence: sequence, advantages: flat, rolloutLogProbs: flat)
            }
            var last = 0.0
            for _ in 0..<20 {
                last = try trainer.update(samples) { inputs in
                    let loss = try inputs.logProbs.multiplied(by: inputs.responseMask).sum()
                        .divided(by: Double(inputs.totals.tokens)).negated()
                    return PolicyLossOutput(loss: loss, metrics: [LossMetric("loss", try loss.detached())])
                }.metrics[0].value
            }
            return last
        }
        let reference = try loss(.cpu, .float32), candidate = try loss(device, dtype)
        return SelfCheck.Result(
            name: "\(name): twenty training steps", error: abs(candidate - reference) / reference,
            tolerance: dtype == .float32 ? 1e-2 : 5e-2)
    }
}

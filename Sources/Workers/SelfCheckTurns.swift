import TensorCore
import TrainingEngine

/// Roles that share a device: what rests in host memory comes back bit for bit, and its memory serves others meanwhile.
extension SelfCheck {
    func turns() throws -> [Result] {
        var results = [try restingWeights()]
        for (name, moments) in [("float32", MomentType.float32), ("bfloat16", .bfloat16), ("8-bit", .int8)] {
            results += try restingStates(name, moments)
        }
        return results
    }

    /// 0 where all is as it should be; infinite otherwise.
    private static func verdict(_ name: String, _ isRight: Bool) -> Result {
        Result(name: name, error: isRight ? 0 : .infinity, tolerance: 0)
    }

    /// Bytes of the device's tensors; 0 on the CPU, where nobody counts them.
    private func allocated() throws -> Int { device.isCUDA ? try device.memory().allocated : 0 }

    /// Whether `bytes` of tensors went, or came: the allocator rounds each of a few up to 512.
    private func moved(_ before: Int, _ after: Int, _ bytes: Int) -> Bool {
        !device.isCUDA || (after - before >= bytes && after - before <= bytes + 64 * 512)
    }

    private func restingWeights() throws -> Result {
        let generator = try RandomGenerator(seed: 17)
        let weights = try [[1024, 513], [77], [3, 5, 7]].map {
            try Tensor.randomNormal($0, generator: generator).to(device, dtype: dtype)
        }
        let digests = try weights.map { try $0.digest() }, resting = RestingTensors(weights)
        let full = try allocated()
        try resting.rest()
        let away = try allocated()
        var isRight = moved(away, full, resting.byteCount) && weights.allSatisfy { $0.storageByteCount == 0 }
        // The memory is somebody else's meanwhile.
        let other = try Tensor.full([1024, 513], 3, dtype: dtype, device: device)
        for _ in 0..<2 {
            let found = try resting.awake { try weights.map { try $0.digest() } }
            isRight = isRight && found == digests
        }
        try resting.awake {
            resting.change()
            for weight in weights { try weight.scale(by: -2) }
        }
        let changed = try resting.awake { try weights.map { try $0.detached().multiplied(by: -0.5).digest() } }
        let intact = try other.to(.cpu, dtype: .float32).equals(Tensor.full([1024, 513], 3))
        return Self.verdict("weights that rest", isRight && changed == digests && intact)
    }

    /// Weights after steps between which the states rested, beside those of steps that kept them.
    private func restingStates(_ name: String, _ moments: MomentType) throws -> [Result] {
        var settings = AdamW.Settings(weightDecay: 0.1)
        settings.moments = moments
        var gaveBack = true
        func steps(rests: Bool) throws -> [Tensor] {
            let generator = try RandomGenerator(seed: 13)
            var parameters: [OptimizerParameter] = []
            for (index, shape) in [[33, 7], [1030, 770]].enumerated() {
                let weight = try Tensor.randomNormal(shape, generator: generator).to(device, dtype: .bfloat16)
                let grad = try Tensor.randomNormal(shape, generator: generator).to(device)
                parameters.append(
                    OptimizerParameter(
                        name: "\(index)", weight: weight, gradient: { () throws(TorchError) in grad },
                        clear: { () throws(TorchError) in }))
            }
            let optimizer = try AdamW(parameters, settings: settings)
            for _ in 0..<3 {
                _ = try optimizer.step(learningRate: 0.01, maxNorm: 1)
                guard rests else { continue }
                let full = try allocated()
                try optimizer.rest()
                let away = try allocated()
                gaveBack = gaveBack && moved(away, full, optimizer.stateBytes)
                gaveBack = gaveBack && optimizer.restingBytes == optimizer.stateBytes
                try optimizer.wake()
                gaveBack = try gaveBack && moved(away, allocated(), optimizer.stateBytes)
                try optimizer.rest()
            }
            // With what a checkpoint would have of them while they rest.
            return try optimizer.state().map { try $0.tensor.to(.cpu, copy: true) }
                + parameters.map { try $0.weight.to(.cpu, dtype: .float32) }
        }
        let stays = try steps(rests: false), rests = try steps(rests: true)
        let isSame = try stays.count == rests.count && zip(stays, rests).allSatisfy { try $0.equals($1) }
        return [
            Self.verdict("AdamW that rests, \(name) moments", isSame),
            Self.verdict("AdamW that rests, \(name) moments: memory given back", gaveBack),
        ]
    }
}

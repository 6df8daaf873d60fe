import TensorCore
import TrainingEngine

extension SelfCheck {
    /// The engine's own step with every storage of its states, three steps of a clipped gradient; on CUDA with states in host
    /// memory too, which gives the same bits.
    func optimizer() throws -> [Result] {
        var results: [Result] = []
        for (name, moments) in [("float32", MomentType.float32), ("bfloat16", .bfloat16), ("8-bit", .int8)] {
            for hasMasters in [true, false] {
                func run(_ device: Device, offloads: Bool, share: Double = 1) throws -> [Tensor] {
                    var settings = AdamW.Settings(weightDecay: 0.1)
                    (settings.moments, settings.keepsMasters) = (moments, hasMasters)
                    (settings.offloadsMoments, settings.offloadsMasters) = (offloads, offloads)
                    settings.offloadedMoments = share
                    return try Self.steps(settings, device)
                }
                let onDevice = try run(device, offloads: false)
                let title = "AdamW, \(name) moments" + (hasMasters ? "" : ", no masters")
                results.append(try worst(title, run(.cpu, offloads: false), onDevice))
                if device.isCUDA {
                    results.append(try worst(title + ", on the host", onDevice, run(device, offloads: true)))
                    results.append(
                        try worst(title + ", some on the host", onDevice, run(device, offloads: true, share: 0.1)))
                }
            }
        }
        return results
    }

    /// Weights after three steps, of a size that has codes and of one that has none.
    private static func steps(_ settings: AdamW.Settings, _ device: Device) throws -> [Tensor] {
        let generator = try RandomGenerator(seed: 13)
        var parameters: [OptimizerParameter] = []
        for (index, shape) in [[33, 7], [130, 77]].enumerated() {
            let weight = try Tensor.randomNormal(shape, generator: generator).to(device, dtype: .bfloat16)
            let grad = try Tensor.randomNormal(shape, generator: generator).to(device)
            parameters.append(
                OptimizerParameter(
                    name: "\(index)", weight: weight, gradient: { () throws(TorchError) in grad },
                    clear: { () throws(TorchError) in }))
        }
        let optimizer = try AdamW(parameters, settings: settings)
        for step in 0..<3 {
            // With states sent for beforehand, and without.
            if step != 1 { try optimizer.prefetch(room: 1 << 30) }
            _ = try optimizer.step(learningRate: 0.01, maxNorm: 1)
            try optimizer.gatherGrads()
        }
        return try parameters.map { try $0.weight.to(dtype: .float32) }
    }
}

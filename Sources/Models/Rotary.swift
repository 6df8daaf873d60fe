public import TensorCore

#if canImport(Glibc)
    import Glibc
#endif

/// Rotary position embedding's frequencies, with the scalings that Llama checkpoints use.
public struct RotaryFrequencies: Sendable, Hashable {
    /// How the frequencies are stretched for contexts longer than the base model's.
    public enum Scaling: Sendable, Hashable {
        case none
        /// Every position divided by `factor`.
        case linear(factor: Double)
        /// Llama 3.1's: low frequencies divided by `factor`, high ones kept, a ramp between.
        case llama3(factor: Double, lowFrequency: Double, highFrequency: Double, originalLength: Double)
    }

    /// `D/2` inverse frequencies.
    public let inverse: [Float]

    public init(headDim: Int, theta: Double, scaling: Scaling = .none) {
        let base = stride(from: 0, to: headDim, by: 2).map { index in
            Float(1) / Float(pow(theta, Double(index) / Double(headDim)))
        }
        switch scaling {
        case .none: inverse = base
        case .linear(let factor): inverse = base.map { $0 / Float(factor) }
        case .llama3(let factor, let low, let high, let length):
            inverse = base.map { frequency in
                let wavelength = 2 * Double.pi / Double(frequency)
                if wavelength < length / high { return frequency }
                if wavelength > length / low { return frequency / Float(factor) }
                let smooth = (length / wavelength - low) / (high - low)
                return Float((1 - smooth) * Double(frequency) / factor + smooth * Double(frequency))
            }
        }
    }

    /// cos and sin for `positions` (int64 `[T]`).
    func angles(_ positions: Tensor) throws(TorchError) -> RotaryAngles {
        let frequencies = try Tensor(inverse, shape: [1, inverse.count], device: positions.device)
        let angles = try positions.to(dtype: .float32).unsqueezed(1).multiplied(by: frequencies)
        return RotaryAngles(cos: try angles.cos(), sin: try angles.sin())
    }
}

import TensorCore

#if canImport(Glibc)
    import Glibc
#endif

/// cos and sin of a forward pass's positions, shared by all layers of one kind.
struct RotaryAngles {
    let cos, sin: Tensor  // float32 [T, R/2]

    /// Turns the first R dimensions of each head of `x [T, H, D]`; the others stay.
    func rotate(_ x: Tensor) throws(TorchError) -> Tensor { try x.partlyRotary(cos: cos, sin: sin) }
}

/// Rotary position embedding's frequencies (Su et al. 2021) with the scalings that `transformers` knows, in its float32.
public struct RotaryFrequencies: Sendable, Hashable {
    /// How the frequencies are stretched for contexts longer than the base model's.
    public enum Scaling: Sendable, Hashable {
        case none
        /// Every position divided by `factor`.
        case linear(factor: Double)
        /// Llama 3.1's: low frequencies divided by `factor`, high ones kept, a ramp between.
        case llama3(factor: Double, lowFrequency: Double, highFrequency: Double, originalLength: Double)
        /// NTK-aware: the base grows with a sequence that outgrows `length`.
        case dynamic(factor: Double, length: Int)
        case yarn(YaRN)
        case longRope(LongRoPE)
    }

    /// Peng et al. 2023: high frequencies kept, low ones divided by `factor`, a ramp between; attention sharpened.
    public struct YaRN: Sendable, Hashable {
        public var factor, originalLength: Double
        /// Rotations over the original length from which a frequency is kept, and below which it is divided.
        public var betaFast = 32.0, betaSlow = 1.0
        /// Whether the ramp's ends are rounded outwards to whole dimensions.
        public var truncates = true
        /// What cos and sin are multiplied by.
        public var attentionFactor: Double

        /// - Parameter attentionFactor: nil: from the factor, weighed by `mscale` over `mscaleAllDim` where both are there.
        public init(
            factor: Double, originalLength: Double, attentionFactor: Double? = nil, mscale: Double? = nil,
            mscaleAllDim: Double? = nil
        ) {
            self.factor = factor
            self.originalLength = originalLength
            func scale(_ mscale: Double) -> Double { factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1 }
            let both = (mscale ?? 0, mscaleAllDim ?? 0)
            self.attentionFactor =
                attentionFactor ?? (both.0 != 0 && both.1 != 0 ? scale(both.0) / scale(both.1) : scale(1))
        }
    }

    /// Ding et al. 2024, as Phi-3 uses it: a divisor for each frequency, one set for sequences up to `originalLength` tokens and
    /// one for longer ones.
    public struct LongRoPE: Sendable, Hashable {
        public var short, long: [Double]
        public var originalLength: Int
        public var attentionFactor: Double

        /// - Parameters:
        ///   - factor: the stretched length over the original one.
        ///   - attentionFactor: nil: from the factor.
        public init(
            short: [Double], long: [Double], originalLength: Int, factor: Double, attentionFactor: Double? = nil
        ) {
            self.short = short
            self.long = long
            self.originalLength = originalLength
            self.attentionFactor =
                attentionFactor ?? (factor <= 1 ? 1 : (1 + log(factor) / log(Double(originalLength))).squareRoot())
        }
    }

    /// Inverse frequencies, one for each pair of rotated dimensions; of a short sequence where they depend on the length.
    public let inverse: [Float]
    /// What cos and sin are multiplied by.
    public let attentionFactor: Double
    private let theta: Double
    private let rotaryDim: Int
    private let scaling: Scaling

    /// - Parameter headDim: how many dimensions of a head are rotated.
    public init(headDim: Int, theta: Double, scaling: Scaling = .none) {
        self.theta = theta
        rotaryDim = headDim
        self.scaling = scaling
        let base = Self.inverse(theta, headDim)
        switch scaling {
        case .none, .dynamic: (inverse, attentionFactor) = (base, 1)
        case .linear(let factor): (inverse, attentionFactor) = (base.map { $0 / Float(factor) }, 1)
        case .llama3(let factor, let low, let high, let length):
            inverse = base.map { frequency in
                let wavelength = 2 * Double.pi / Double(frequency)
                if wavelength < length / high { return frequency }
                if wavelength > length / low { return frequency / Float(factor) }
                let smooth = (length / wavelength - low) / (high - low)
                return Float((1 - smooth) * Double(frequency) / factor + smooth * Double(frequency))
            }
            attentionFactor = 1
        case .yarn(let yarn): (inverse, attentionFactor) = (Self.yarn(yarn, theta, headDim), yarn.attentionFactor)
        case .longRope(let long):
            (inverse, attentionFactor) = (Self.divided(theta, headDim, by: long.short), long.attentionFactor)
        }
    }

    /// `theta ** (2i / dim)`, its exponent in float32 as torch has it.
    private static func power(_ theta: Double, _ index: Int, _ dim: Int) -> Float {
        Float(pow(theta, Double(Float(index) / Float(dim))))
    }
    private static func inverse(_ theta: Double, _ dim: Int) -> [Float] {
        stride(from: 0, to: dim, by: 2).map { 1 / power(theta, $0, dim) }
    }
    private static func divided(_ theta: Double, _ dim: Int, by factors: [Double]) -> [Float] {
        zip(stride(from: 0, to: dim, by: 2), factors).map { 1 / (Float($1) * power(theta, $0, dim)) }
    }

    private static func yarn(_ yarn: YaRN, _ theta: Double, _ dim: Int) -> [Float] {
        /// The dimension that turns `rotations` times over the original length.
        func dimension(_ rotations: Double) -> Double {
            Double(dim) * log(yarn.originalLength / (rotations * 2 * Double.pi)) / (2 * log(theta))
        }
        var low = dimension(yarn.betaFast), high = dimension(yarn.betaSlow)
        if yarn.truncates { (low, high) = (low.rounded(.down), high.rounded(.up)) }
        (low, high) = (max(low, 0), min(high, Double(dim - 1)))
        if low == high { high += 0.001 }
        return stride(from: 0, to: dim, by: 2).enumerated().map { index, even in
            let power = power(theta, even, dim)
            let ramp = min(max((Float(index) - Float(low)) / Float(high - low), 0), 1)
            let kept = 1 - ramp
            return 1 / (Float(yarn.factor) * power) * (1 - kept) + 1 / power * kept
        }
    }

    // MARK: - Sequences that change the frequencies

    /// The length in tokens up to which one set of frequencies serves; nil: all lengths.
    var lastShortLength: Int? {
        switch scaling {
        case .dynamic(_, let length): length
        case .longRope(let long): long.originalLength
        default: nil
        }
    }

    /// A length that a sequence cannot grow across while its keys are cached, though both sides of it can be generated.
    var switchLength: Int? { if case .longRope(let long) = scaling { long.originalLength } else { nil } }

    /// The frequencies of a whole sequence of `length` tokens.
    public func inverse(length: Int) -> [Float] {
        guard let last = lastShortLength, length > last else { return inverse }
        switch scaling {
        case .dynamic(let factor, let original):
            let growth = factor * Double(length) / Double(original) - (factor - 1)
            return Self.inverse(theta * pow(growth, Double(rotaryDim) / Double(rotaryDim - 2)), rotaryDim)
        case .longRope(let long): return Self.divided(theta, rotaryDim, by: long.long)
        default: return inverse
        }
    }

    /// The frequencies of short sequences, `[1, R/2]`, where a pass wants them.
    func table(_ device: Device) throws(TorchError) -> Tensor {
        try Tensor(inverse, shape: [1, inverse.count], device: device)
    }

    /// cos and sin for `positions` (int64 `[T]`) of the sequences that `attention` speaks of, each rotated as `transformers`
    /// does in one forward pass over that sequence alone.
    ///
    /// - Parameter short: ``table(_:)``, made beforehand so that a pass copies nothing from the host.
    /// - Throws: ``ModelError``, `unsupported`, where no frequencies are right: tokens shared by sequences that need different
    ///   ones, and a cached sequence that grows across the length where they change.
    func angles(_ positions: Tensor, _ attention: any AttentionBackend, short: Tensor) throws -> RotaryAngles {
        var frequencies = short
        if let last = lastShortLength, let table = try lengthTable(attention.extents(), last, tokens: positions.size(0))
        {
            let device = positions.device
            frequencies = try Tensor(
                table.rows, shape: [table.rows.count / inverse.count, inverse.count], device: device
            )
            .indexSelect(0, Tensor(table.index, device: device))
        }
        let both = try positions.rotaryAngles(frequencies, factor: attentionFactor)
        return RotaryAngles(cos: both.cos, sin: both.sin)
    }

    /// A set of frequencies for each length there is, and which of them each token takes; nil when all are short.
    private func lengthTable(
        _ extents: [SequenceExtent], _ last: Int, tokens: Int
    ) throws(ModelError) -> (rows: [Float], index: [Int64])? {
        guard extents.contains(where: { $0.longest > last }) else { return nil }
        var rows = inverse, rowOf: [[Float]: Int64] = [inverse: 0]
        var index = [Int64](repeating: 0, count: tokens)
        for extent in extents where extent.longest > last {
            let frequencies = inverse(length: extent.longest)
            if extent.shortest != extent.longest, inverse(length: extent.shortest) != frequencies {
                throw ModelError(
                    .unsupported,
                    "rotary frequencies change after \(last) tokens, and sequences of \(extent.shortest) and "
                        + "\(extent.longest) tokens share a prefix: run them without sharing prefixes")
            }
            if extent.isCached, inverse(length: extent.longest - 1) != frequencies {
                throw ModelError(
                    .unsupported,
                    "a sequence grows from \(extent.longest - 1) to \(extent.longest) tokens, and rotary frequencies "
                        + "change there: its cached keys were rotated by others. Lower maxTokens so that it stays within "
                        + "\(last) tokens")
            }
            let row = rowOf[frequencies, default: Int64(rowOf.count)]
            if row == rowOf.count {
                rowOf[frequencies] = row
                rows += frequencies
            }
            for token in extent.tokens { index[token] = row }
        }
        return (rows, index)
    }
}

import Testing

@testable import TensorCore

/// Weights in few bits: what they stand for, and the products with them.
@Suite struct QuantizedLinearTests {
    static let schemes: [WeightQuantization] = [.int8PerChannel, .int4(), .int4(group: 32)]
    /// Outputs and inputs: whole panels, a panel begun, fewer inputs than a group, a last group that is shorter.
    static let shapes = [(64, 128), (96, 576), (33, 256), (5, 48), (61, 96), (7, 300)]

    func weight(_ outputs: Int, _ inputs: Int, dtype: DType = .float32, seed: UInt64 = 1) throws -> Tensor {
        try Tensor.randomNormal([outputs, inputs], generator: RandomGenerator(seed: seed)).to(dtype: dtype)
    }

    /// The largest of |a - b|.
    func distance(_ a: Tensor, _ b: Tensor) throws -> Double {
        try a.to(dtype: .float32).subtracting(b.to(dtype: .float32)).abs().max().item()
    }

    /// 8 bits: no number is further off than half of its row's step.
    @Test(arguments: shapes) func eightBitsRoundToTheNearestStep(outputs: Int, inputs: Int) throws {
        let weight = try weight(outputs, inputs)
        let quantized = try QuantizedLinear(weight, .int8PerChannel)
        let error = try quantized.dequantized().subtracting(weight).abs().max(1)
        let step = try weight.abs().max(1).divided(by: Tensor([127] as [Float]))
        #expect(try error.lessOrEqual(to: step.multiplied(by: 0.5001)).all())
        #expect(quantized.byteCount < weight.byteCount / 2 || outputs < 32)
    }

    /// 4 bits: no worse than the nearest of sixteen steps over each group's range, and on average better.
    @Test(arguments: [32, 128]) func fourBitsAreNoWorseThanTheWholeRange(group: Int) throws {
        let weight = try weight(64, 256), count = 256 / group
        let cut = try weight.reshaped([64, count, group])
        let low = try cut.min(2, keepDim: true).clamped(max: 0), high = try cut.max(2, keepDim: true).clamped(min: 0)
        let scale = try high.subtracting(low).multiplied(by: 1.0 / 15)
        // Rounded to even, as torch rounds.
        func rounded(_ x: Tensor) throws -> Tensor { try x.adding(12_582_912).subtracting(12_582_912) }
        let zero = try rounded(low.negated().divided(by: scale))
        let codes = try rounded(cut.divided(by: scale)).adding(zero).clamped(min: 0, max: 15)
        let plain = try codes.subtracting(zero).multiplied(by: scale).subtracting(cut).squared().sum(2)
        let mine = try QuantizedLinear(weight, .int4(group: group)).dequantized().reshaped([64, count, group])
            .subtracting(cut).squared().sum(2)
        #expect(try mine.lessOrEqual(to: plain.multiplied(by: 1.0001)).all())
        #expect(try mine.sum().item() < plain.sum().item())
    }

    /// What lies on a grid of sixteen whole steps is kept as it is.
    @Test func numbersOnAGridAreKept() throws {
        let codes = (0..<4 * 64).map { Float(($0 * 7) % 16) - 5 }
        let weight = try Tensor(codes, shape: [4, 64]).multiplied(by: 0.25)
        #expect(try QuantizedLinear(weight, .int4(group: 32)).dequantized().equals(weight))
    }

    @Test(arguments: schemes, shapes)
    func productsAreThoseOfTheDequantisedWeight(scheme: WeightQuantization, shape: (Int, Int)) throws {
        let quantized = try QuantizedLinear(try weight(shape.0, shape.1), scheme)
        let dense = try quantized.dequantized()
        let bias = try Tensor.randomNormal([shape.0], generator: RandomGenerator(seed: 4))
        for rows in [1, 2, 3, 4, 5, 8, 19] {
            let x = try weight(rows, shape.1, seed: 2)
            let wanted = try x.linear(dense)
            let tolerance = 1e-5 * (try wanted.abs().max().item())
            #expect(try distance(quantized(x), wanted) < tolerance, "\(rows) rows")
            #expect(try distance(quantized(x, bias: bias), wanted.adding(bias)) < tolerance, "\(rows) rows")
        }
    }

    @Test(arguments: schemes) func halfPrecisionIsRoundedOnce(scheme: WeightQuantization) throws {
        let quantized = try QuantizedLinear(try weight(64, 192, dtype: .bfloat16), scheme)
        let x = try weight(3, 192, dtype: .bfloat16, seed: 2)
        let wanted = try x.to(dtype: .float32).linear(quantized.dequantized())
        let mine = try quantized(x)
        #expect(mine.dtype == .bfloat16)
        #expect(try distance(mine, wanted) < 0.005 * (try wanted.abs().max().item()))
        #expect(try quantized.dequantized(.bfloat16).equals(quantized.dequantized().to(dtype: .bfloat16)))
    }

    /// Rows of zeros, and a row of one number, have scales that are numbers.
    @Test(arguments: schemes) func constantRowsSurvive(scheme: WeightQuantization) throws {
        let weight = try Tensor.stack([Tensor.zeros([64]), Tensor.full([64], 3), Tensor.full([64], -0.5)])
        #expect(try distance(QuantizedLinear(weight, scheme).dequantized(), weight) < 1e-6)
    }

    /// A weight that is no number makes products that are none: nothing hides it.
    @Test(arguments: schemes) func whatIsNoNumberStaysNone(scheme: WeightQuantization) throws {
        let weight = try weight(4, 64)
        try weight.narrowed(0, 1..<2).narrowed(1, 5..<6).fill(.nan)
        let product = try QuantizedLinear(weight, scheme)(Tensor.ones([1, 64]))
        #expect(try product.isNaN().values(Bool.self)[1])
    }

    /// The layout of the CUDA kernels, by its description in quantized.cu, and back.
    @Test(arguments: [4, 8]) func tilesHoldEachCodeInItsPlace(bits: Int) throws {
        let outputs = 32, inputs = 128
        let codes = try Tensor.randomIntegers(
            0..<(1 << bits), [outputs, inputs], generator: RandomGenerator(seed: 3), dtype: .uint8)
        let scheme = bits == 8 ? WeightQuantization.int8PerChannel : .int4(group: 64)
        let groups = bits == 8 ? 1 : 2
        let tiled = try QuantizedLinear(
            codes: codes, scales: Tensor.ones([groups, 32]),
            zeros: bits == 8 ? nil : Tensor.zeros([groups, 32], dtype: .uint8),
            scheme: scheme, inTiles: true)
        let bytes = try tiled.packed.values(UInt8.self), all = try codes.values(UInt8.self)
        for output in 0..<outputs {
            for input in 0..<inputs {
                let tile = output / 16, upper = output % 16 / 8, g = output % 8
                let block = input / 64, half = input % 64 / 32, thread = input % 32 / 8
                let fragment = input % 8 / 4, pair = input % 4 / 2, element = input % 2
                let place = tile * (inputs / 64) + block, lane = g * 4 + thread, code = all[output * inputs + input]
                if bits == 8 {
                    let at = (place * 2 + half) * 512 + lane * 16 + fragment * 8 + pair * 4 + upper * 2 + element
                    #expect(bytes[at] == code)
                } else {
                    let nibble = element * 4 + pair * 2 + upper
                    let byte = bytes[place * 512 + lane * 16 + (half * 2 + fragment) * 4 + nibble / 2]
                    #expect(byte >> UInt8(nibble % 2 * 4) & 15 == code)
                }
            }
        }
        let values = try codes.to(dtype: .float32)
        #expect(try tiled.dequantized().equals(bits == 8 ? values.subtracting(128) : values))
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let quantized = try QuantizedLinear(try weight(8, 64), .int8PerChannel)
        #expect(throws: TorchError.self) { try quantized(Tensor.ones([2, 63])) }
        #expect(throws: TorchError.self) { try QuantizedLinear(Tensor.ones([4, 4], dtype: .int64), .int8PerChannel) }
        #expect(try !QuantizedLinear.fits(Tensor.ones([4])) && QuantizedLinear.fits(Tensor.ones([3, 5])))
    }
}

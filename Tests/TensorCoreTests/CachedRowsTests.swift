import TensorCore
import Testing

/// Keys and values stored in float8e4m3.
@Suite struct CachedRowsTests {
    /// Every finite value of e4m3 but -0, ascending: sign, four bits of exponent with a bias of 7, three of fraction.
    static let values: [Float] = {
        let positive = (1...0x7e).map { code in
            let exponent = code >> 3, fraction = Float(code & 7)
            return exponent == 0
                ? fraction * 0x1p-9 : (1 + fraction / 8) * Float(sign: .plus, exponent: exponent - 7, significand: 1)
        }
        return positive.reversed().map { -$0 } + [0] + positive
    }()

    func rounded(_ x: [Float]) throws -> [Float] {
        try Tensor(x).saturatedToFloat8().to(dtype: .float32).values(Float.self)
    }

    @Test func everyValueIsKept() throws {
        #expect(Self.values.count == 253)
        #expect(try rounded(Self.values) == Self.values)
    }

    /// Between two neighbours: the nearer one, and in the middle the one whose last bit is 0, which is every second.
    @Test func theNearestIsTakenAndTiesGoToEven() throws {
        let zero = 126
        for (index, (low, high)) in zip(Self.values, Self.values.dropFirst()).enumerated() {
            let middle = (low + high) / 2, even = abs(index - zero) % 2 == 0 ? low : high
            #expect(try rounded([middle.nextDown, middle, middle.nextUp]) == [low, even, high])
        }
    }

    @Test func whatIsTooLargeSaturates() throws {
        #expect(
            try rounded([448.1, 464, 480, 1e30, .infinity, -460, -.infinity])
                == [448, 448, 448, 448, 448, -448, -448])
        #expect(try rounded([.nan])[0].isNaN)
    }

    @Test func rowsComeBackAsTheyWereStored() throws {
        let pool = try Tensor.zeros([9, 2, 4], dtype: .uint8).viewed(as: .float8e4m3)
        let rows = try Tensor((0..<16).map { Float($0 - 8) * 3.3 }, shape: [2, 2, 4])
        let slots = try Tensor([7, 2] as [Int64])
        try pool.storeRows(slots, rows)
        #expect(try pool.storedRows(slots, as: .float32).equals(rows.saturatedToFloat8().to(dtype: .float32)))
        #expect(
            try pool.storedRows(Tensor([0, 8] as [Int64]), as: .bfloat16).to(dtype: .float32).abs().max().item() == 0)
    }

    /// Attention reads float8 exactly: as over the same numbers in float32. All head sizes' loops, and one number at a time.
    @Test(arguments: [64, 96, 128, 256, 24], [DType.float32, .bfloat16])
    func attentionIsThatOverTheRoundedNumbers(headDim: Int, dtype: DType) throws {
        let generator = try RandomGenerator(seed: 4)
        let query = try Tensor.randomNormal([3, 4, headDim], generator: generator).to(dtype: dtype)
        // Subnormal values among them.
        let keys = try Tensor.randomNormal([50, 2, headDim], generator: generator).multiplied(by: 0.05)
            .saturatedToFloat8()
        let values = try Tensor.randomNormal([50, 2, headDim], generator: generator).multiplied(by: 40)
            .saturatedToFloat8()
        let slots = try Tensor((0..<3 * 40).map { Int32($0 * 7 % 50) }, shape: [3, 40])
        func attend(_ keys: Tensor, _ values: Tensor) throws -> Tensor {
            try Tensor.cachedAttention(
                query: query, keyPool: keys, valuePool: values, slots: slots, lengths: Tensor([40, 1, 23] as [Int32]),
                kind: AttentionKind(scale: 0.2, window: 30, softCap: 5))
        }
        let plain = try attend(keys.to(dtype: dtype), values.to(dtype: dtype))
        #expect(try attend(keys, values).equals(plain))
    }

    @Test func notANumberStaysOne() throws {
        for headDim in [64, 24] {
            let keys = try Tensor.ones([1, 1, headDim]).multiplied(by: .nan).saturatedToFloat8()
            let result = try Tensor.cachedAttention(
                query: Tensor.ones([1, 1, headDim]), keyPool: keys, valuePool: keys,
                slots: Tensor([0 as Int32], shape: [1, 1]),
                lengths: Tensor([1 as Int32]), kind: AttentionKind(scale: 1))
            #expect(try result.values(Float.self).allSatisfy(\.isNaN))
        }
    }

    @Test func poolsOfAnotherTypeAreRefused() throws {
        let query = try Tensor.ones([1, 1, 64]), pool = try Tensor.ones([1, 1, 64]).to(dtype: .bfloat16)
        let error = #expect(throws: TorchError.self) {
            try Tensor.cachedAttention(
                query: query, keyPool: pool, valuePool: pool, slots: Tensor([0 as Int32], shape: [1, 1]),
                lengths: Tensor([1 as Int32]), kind: AttentionKind(scale: 1))
        }
        #expect(error?.message.contains("float8_e4m3fn") == true)
    }
}

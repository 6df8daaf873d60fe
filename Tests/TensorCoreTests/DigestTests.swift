import TensorCore
import Testing

/// What tells one set of weights from another.
@Suite struct DigestTests {
    private let values: Tensor

    init() throws {
        values = try Tensor.randomNormal([20_003], generator: RandomGenerator(seed: 19)).to(.cpu, dtype: .bfloat16)
    }

    /// Of every length around a block's 16 KiB, wherever the bytes lie.
    @Test(arguments: [0..<1, 3..<20, 0..<8192, 0..<8193, 1..<8195, 5..<20_003])
    func itIsOfTheBytesAlone(range: Range<Int>) throws {
        let part = try values.narrowed(0, range)
        #expect(try part.digest() == part.cloned().digest())
        // Every other element of a wider tensor.
        let spread = try Tensor.stack([part, part], dim: 1)
        #expect(try spread.selected(1, 1).digest() == part.digest())
    }

    @Test(arguments: [0, 1, 8191, 8192, 12_345, 20_002])
    func oneElementChangesIt(place: Int) throws {
        let changed = try values.cloned()
        try changed.narrowed(0, place..<place + 1).copy(from: changed.narrowed(0, place..<place + 1).multiplied(by: 2))
        #expect(try changed.digest() != values.digest())
    }

    @Test func orderAndLengthCount() throws {
        let first = try values.narrowed(0, 0..<8192), second = try values.narrowed(0, 8192..<16_384)
        let swapped = try Tensor.concatenate([second, first])
        #expect(try swapped.digest() != values.narrowed(0, 0..<16_384).digest())
        let zeros = try Tensor.zeros([8192], dtype: .bfloat16)
        #expect(try zeros.digest() != zeros.narrowed(0, 0..<8191).digest())
        #expect(try zeros.narrowed(0, 0..<0).digest() != zeros.digest())
    }
}

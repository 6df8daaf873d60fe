import Checkpoints
import Testing

@Suite struct DequantizerTests {
    private static func decode(_ hex: String) -> [UInt8] {
        let digits = hex.compactMap(\.hexDigitValue)
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }

    @Test(arguments: DequantizerVectors.all.map(\.name))
    func equalsTheReferenceBitForBit(_ name: String) throws {
        let vector = try #require(DequantizerVectors.all.first { $0.name == name })
        let type = try #require(GGMLType.allCases.first { $0.name == name })
        let expected = Self.decode(vector.floats).withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) }
        }
        let floats = try Dequantizer.floats(type, Self.decode(vector.blocks))
        #expect(floats.map(\.bitPattern) == expected)
    }

    @Test(arguments: GGMLType.allCases)
    func refusesPartOfABlock(_ type: GGMLType) {
        #expect(throws: CheckpointError.self) {
            try Dequantizer.floats(type, [UInt8](repeating: 0, count: type.blockBytes + 1))
        }
    }
}

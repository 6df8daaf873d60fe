/// The alphabet of byte-level tokenizers: each byte as one printable scalar (GPT-2's table).
enum ByteAlphabet {
    /// The scalar of each byte.
    static let scalars: [UInt32] = {
        var table = [UInt32](repeating: 0, count: 256)
        var next: UInt32 = 256
        for byte in 0..<256 {
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: table[byte] = UInt32(byte)
            default:
                table[byte] = next
                next += 1
            }
        }
        return table
    }()

    private static let bytes: [Int16] = {
        var table = [Int16](repeating: -1, count: 0x144)
        for (byte, scalar) in scalars.enumerated() { table[Int(scalar)] = Int16(byte) }
        return table
    }()

    /// The byte that a scalar stands for, or nil if it is not of the alphabet.
    @inline(__always) static func byte(of scalar: UInt32) -> UInt8? {
        guard scalar < 0x144 else { return nil }
        let byte = bytes[Int(scalar)]
        return byte < 0 ? nil : UInt8(byte)
    }

    /// Appends the bytes that a token's spelling stands for; false, with nothing appended, if a scalar is not of the
    /// alphabet.
    static func appendBytes(of spelling: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) -> Bool {
        let before = output.count
        var position = 0
        while position < spelling.count {
            let (scalar, length) = UTF8Scanner.scalar(in: spelling, at: position)
            guard let byte = byte(of: scalar) else {
                output.removeLast(output.count - before)
                return false
            }
            output.append(byte)
            position += length
        }
        return true
    }

    /// Rewrites a text in the alphabet.
    static func encode(_ text: inout AlignedText) {
        var result = AlignedText.empty(like: text)
        let bytes = text.bytes
        for position in bytes.indices {
            result.append(UTF8Scanner.encode(scalars[Int(bytes[position])]), from: text.span(at: position))
        }
        text = result
    }
}

/// One `tensorflow.Event` message, encoded by hand: the few fields that scalars need (event.proto, summary.proto).
struct TensorBoardEvent {
    enum Content {
        /// The first record of a file.
        case fileVersion
        /// Says that this file goes on from here: readers drop what earlier files hold from this step on.
        case sessionStart
        case scalars([(tag: String, value: Float)])
    }

    /// Seconds since 1970.
    var wallTime: Double
    var step: Int
    var content: Content

    func encoded() -> [UInt8] {
        var message = ProtobufMessage()
        message.double(field: 1, wallTime)
        if step != 0 { message.varint(field: 2, UInt64(bitPattern: Int64(step))) }
        switch content {
        case .fileVersion: message.bytes(field: 3, Array("brain.Event:2".utf8))
        case .sessionStart:
            var log = ProtobufMessage()
            log.varint(field: 1, 1)
            message.bytes(field: 7, log.encoded)
        case .scalars(let scalars):
            var summary = ProtobufMessage()
            for (tag, value) in scalars {
                var entry = ProtobufMessage()
                entry.bytes(field: 1, Array(tag.utf8))
                entry.float(field: 2, value)
                summary.bytes(field: 1, entry.encoded)
            }
            message.bytes(field: 5, summary.encoded)
        }
        return message.encoded
    }
}

/// Appends protobuf fields in wire format.
private struct ProtobufMessage {
    private(set) var encoded: [UInt8] = []

    mutating func varint(field: UInt64, _ value: UInt64) {
        base128(field << 3)
        base128(value)
    }

    mutating func double(field: UInt64, _ value: Double) {
        base128(field << 3 | 1)
        encoded += value.bitPattern.littleEndianBytes
    }

    mutating func bytes(field: UInt64, _ value: [UInt8]) {
        base128(field << 3 | 2)
        base128(UInt64(value.count))
        encoded += value
    }

    mutating func float(field: UInt64, _ value: Float) {
        base128(field << 3 | 5)
        encoded += value.bitPattern.littleEndianBytes
    }

    private mutating func base128(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            encoded.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        encoded.append(UInt8(rest))
    }
}

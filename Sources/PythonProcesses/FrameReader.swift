import Subprocess

/// Cuts a process's output into frames: a length in four bytes, the greatest first, and so many bytes.
public struct FrameReader {
    public enum Next: Sendable {
        case frame([UInt8])
        /// The process closed its end.
        case end
        /// Bytes that are no frame.
        case broken
    }

    private let maximumLength: Int
    private var chunks: SubprocessOutputSequence.AsyncIterator
    private var bytes: [UInt8] = []
    /// Where the next frame begins.
    private var start = 0

    init(_ output: SubprocessOutputSequence, maximumLength: Int) {
        chunks = output.makeAsyncIterator()
        self.maximumLength = maximumLength
    }

    public mutating func next() async -> Next {
        while true {
            if bytes.count - start >= 4 {
                let length = bytes[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
                guard length <= maximumLength else { return .broken }
                if bytes.count - start >= 4 + length {
                    let body = Array(bytes[(start + 4)..<(start + 4 + length)])
                    start += 4 + length
                    if start == bytes.count {
                        bytes.removeAll(keepingCapacity: true)
                        start = 0
                    }
                    return .frame(body)
                }
            }
            if start > 1 << 16 {
                bytes.removeFirst(start)
                start = 0
            }
            // A failed read ends the process as the end of its output does.
            guard let chunk = try? await chunks.next(isolation: #isolation) else { return .end }
            chunk.withUnsafeBytes { bytes.append(contentsOf: $0) }
        }
    }

    /// A body as a frame.
    public static func frame(_ body: some Collection<UInt8>) -> [UInt8] {
        let length = UInt32(body.count)
        return [UInt8(length >> 24), UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255)] + body
    }
}

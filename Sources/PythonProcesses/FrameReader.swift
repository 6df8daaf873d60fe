import Subprocess

/// Cuts a process's output into frames.
public struct FrameReader {
    public enum Framing: Sendable {
        /// A length in four bytes, the greatest first, and so many bytes.
        case lengths
        /// Bytes up to a line feed, which is not theirs.
        case lines
    }

    public enum Next: Sendable {
        case frame([UInt8])
        /// The process closed its end.
        case end
        /// Bytes that are no frame.
        case broken
    }

    private let maximumLength: Int
    private let framing: Framing
    private var chunks: SubprocessOutputSequence.AsyncIterator
    private var bytes: [UInt8] = []
    /// Where the next frame begins.
    private var start = 0
    /// Up to where there is no line feed.
    private var searched = 0

    init(_ output: SubprocessOutputSequence, maximumLength: Int, framing: Framing = .lengths) {
        chunks = output.makeAsyncIterator()
        self.maximumLength = maximumLength
        self.framing = framing
    }

    /// The bytes from `start` to the frame's end; nil before it is there.
    private mutating func whole() -> Next? {
        switch framing {
        case .lengths:
            guard bytes.count - start >= 4 else { return nil }
            let length = bytes[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
            guard length <= maximumLength else { return .broken }
            guard bytes.count - start >= 4 + length else { return nil }
            defer { start += 4 + length }
            return .frame(Array(bytes[(start + 4)..<(start + 4 + length)]))
        case .lines:
            guard let end = bytes[max(start, searched)...].firstIndex(of: UInt8(ascii: "\n")) else {
                searched = bytes.count
                return bytes.count - start > maximumLength ? .broken : nil
            }
            guard end - start <= maximumLength else { return .broken }
            defer {
                start = end + 1
                searched = start
            }
            return .frame(Array(bytes[start..<end]))
        }
    }

    public mutating func next() async -> Next {
        while true {
            if let next = whole() {
                if start == bytes.count { forget() }
                return next
            }
            if start > 1 << 16 { forget() }
            // A failed read ends the process as the end of its output does.
            guard let chunk = try? await chunks.next(isolation: #isolation) else { return .end }
            chunk.withUnsafeBytes { bytes.append(contentsOf: $0) }
        }
    }

    /// Drops what was given out.
    private mutating func forget() {
        bytes.removeFirst(start)
        searched = max(0, searched - start)
        start = 0
    }

    /// A body as a frame.
    public static func frame(_ body: some Collection<UInt8>) -> [UInt8] {
        let length = UInt32(body.count)
        return [UInt8(length >> 24), UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255)] + body
    }
}

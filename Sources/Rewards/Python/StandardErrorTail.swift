import Synchronization

/// The last bytes that a worker wrote to standard error.
final class StandardErrorTail: Sendable {
    static let maximumLength = 2048

    private let bytes = Mutex<[UInt8]>([])

    func append(_ more: UnsafeRawBufferPointer) {
        bytes.withLock {
            $0.append(contentsOf: more.suffix(Self.maximumLength))
            $0.removeFirst(max(0, $0.count - Self.maximumLength))
        }
    }

    func clear() { bytes.withLock { $0.removeAll(keepingCapacity: true) } }

    /// For the end of a message; empty when nothing was written.
    var note: String {
        let text = String(decoding: bytes.withLock { $0 }, as: UTF8.self)
        let trimmed = String(text.trimmed)
        return trimmed.isEmpty ? "" : "; its last output: \(trimmed)"
    }
}

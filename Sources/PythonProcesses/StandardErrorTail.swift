import Synchronization

/// The last bytes that a process wrote to standard error.
public final class StandardErrorTail: Sendable {
    static let maximumLength = 2048

    private let bytes = Mutex<[UInt8]>([])

    public init() {}

    func append(_ more: UnsafeRawBufferPointer) {
        bytes.withLock {
            $0.append(contentsOf: more.suffix(Self.maximumLength))
            $0.removeFirst(max(0, $0.count - Self.maximumLength))
        }
    }

    public func clear() { bytes.withLock { $0.removeAll(keepingCapacity: true) } }

    /// For the end of a message; empty when nothing was written.
    public var note: String { Self.note(String(decoding: bytes.withLock { $0 }, as: UTF8.self)) }

    static func note(_ text: String) -> String {
        var scalars = text.unicodeScalars[...]
        while let first = scalars.first, first.properties.isWhitespace { scalars.removeFirst() }
        while let last = scalars.last, last.properties.isWhitespace { scalars.removeLast() }
        return scalars.isEmpty ? "" : "; its last output: \(String(scalars))"
    }
}

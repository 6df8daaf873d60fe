import Synchronization

/// Text gathered from a stream.
final class Collected: Sendable {
    private let pieces = Mutex("")
    func append(_ piece: String) { pieces.withLock { $0 += piece } }
    var text: String { pieces.withLock { $0 } }
}

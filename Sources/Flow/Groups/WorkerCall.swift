/// Something that a worker does when the controller asks: what it needs, and what comes back. A call is a value with a type, so a
/// call site cannot misspell it or hand it the wrong arguments, and it travels to a worker in another process as it is.
public protocol WorkerCall: Codable, Sendable {
    associatedtype Worker: Sendable
    associatedtype Answer: Codable & Sendable
    /// Whether it waits until the calls before it on the same worker are done. One that only looks, or that ends another, does not.
    static var waitsItsTurn: Bool { get }
    /// How long an answer may take; nil: as long as the worker shows life.
    var deadline: Duration? { get }
    func perform(on worker: Worker) async throws -> Answer
}

extension WorkerCall {
    public static var waitsItsTurn: Bool { true }
    public var deadline: Duration? { nil }
    /// What it is called between processes and in messages.
    public static var name: String { "\(Self.self)" }
}

/// The answer of a call that has none to give.
public struct Done: Codable, Sendable, Hashable {
    public init() {}
}

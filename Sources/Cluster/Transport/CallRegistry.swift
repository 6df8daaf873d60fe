public import Flow

/// The calls that a worker knows when they come from another process.
public struct CallRegistry<Worker: Sendable>: Sendable {
    typealias Handler = @Sendable (Worker, [UInt8]) async throws -> [UInt8]
    private(set) var handlers: [String: Handler] = [:]

    public init() {}

    /// Lets the worker be asked for `Call`.
    public mutating func add<Call: WorkerCall>(_: Call.Type) where Call.Worker == Worker {
        precondition(handlers[Call.name] == nil, "two calls are named \(Call.name)")
        handlers[Call.name] = { worker, bytes in
            let call = try CallCoder.decode(Call.self, from: bytes)
            return try CallCoder.encode(try await call.perform(on: worker))
        }
    }
}

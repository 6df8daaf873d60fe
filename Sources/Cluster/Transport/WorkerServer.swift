public import Flow
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import Synchronization

/// A worker's end of the transport: carries out the calls that come, says that the worker lives, and gives out the rows it keeps.
public final class WorkerServer<Worker: Sendable>: Sendable {
    public let name: String
    public let settings: TransportSettings
    public let rows: RowsStore
    private let service: WorkerService<Worker>

    /// - Parameters:
    ///   - describe: what an error of the worker's is to the controller.
    ///   - check: throws what is wrong with the worker between calls; asked at each heartbeat.
    public init(
        name: String, worker: Worker, calls: CallRegistry<Worker>, settings: TransportSettings,
        rows: RowsStore = RowsStore(),
        describe: @escaping @Sendable (any Error) -> WorkerCallError = { WorkerCallError(.failed, "\($0)") },
        check: @escaping @Sendable () throws -> Void = {}
    ) {
        self.name = name
        self.settings = settings
        self.rows = rows
        service = WorkerService(
            name: name, worker: worker, calls: calls, rows: rows, limit: settings.messageLimit, describe: describe,
            check: check)
    }

    /// What it does now.
    public var pulse: WorkerPulse { service.pulse }

    /// Serves while `body` runs, which gets the address.
    /// - Throws: ``ClusterError`` with code `system` when no port can be had at `host`.
    public func run<Result: Sendable>(host: String, _ body: (Address) async throws -> Result) async throws -> Result {
        let server = Wire.server(host: host, settings, services: [service])
        return try await server.whileServing(host: host, body)
    }

    /// Returns when no heartbeat came for three times ``TransportSettings/lostAfter``: the controller is gone. Time in which this
    /// process stood still does not count.
    public func orphaned() async throws {
        let part = settings.beatTimeout
        var missed = 0, seen = service.beats
        while missed < 3 * TransportSettings.beatsUntilLost {
            try await Task.sleep(for: part)
            let beats = service.beats
            missed = beats == seen ? missed + 1 : 0
            seen = beats
        }
    }
}

/// What a worker says of itself at a heartbeat.
public struct WorkerPulse: Sendable, Hashable, Codable {
    /// The call that it carries out; nil: none.
    public var call: String?
    /// Since when, in seconds.
    public var seconds: Double
    public var callsDone: Int
}

extension Wire.Server {
    func whileServing<Result: Sendable>(
        host: String, _ body: (Address) async throws -> Result
    ) async throws -> Result {
        let serving = Task { try await self.serve() }
        let address: Address
        do {
            guard let bound = try await transport.listeningAddress.ipv4 else {
                throw ClusterError(.system, "the server at \(host) has no IPv4 address")
            }
            address = Address(host: bound.host, port: bound.port)
        } catch {
            // What was wrong with the address or the certificates is known to the other task.
            beginGracefulShutdown()
            if case .failure(let cause) = await serving.result {
                throw ClusterError(.system, "no server at \(host): \(cause)")
            }
            throw error
        }
        // In good order, and without waiting for calls under way: to cut a server off while somebody connects is a trap in it.
        defer { beginGracefulShutdown() }
        return try await body(address)
    }
}

private final class WorkerService<Worker: Sendable>: RegistrableRPCService {
    private let name: String
    private let worker: Worker
    private let calls: CallRegistry<Worker>
    private let rows: RowsStore
    private let limit: Int
    private let describe: @Sendable (any Error) -> WorkerCallError
    private let check: @Sendable () throws -> Void

    private struct State {
        var running: [(number: Int, call: String, since: ContinuousClock.Instant)] = []
        var next = 0
        var done = 0
        var beats = 0
    }
    private let state = Mutex(State())
    var beats: Int { state.withLock { $0.beats } }

    init(
        name: String, worker: Worker, calls: CallRegistry<Worker>, rows: RowsStore, limit: Int,
        describe: @escaping @Sendable (any Error) -> WorkerCallError, check: @escaping @Sendable () throws -> Void
    ) {
        self.name = name
        self.worker = worker
        self.calls = calls
        self.rows = rows
        self.limit = limit
        self.describe = describe
        self.check = check
    }

    func registerMethods<Transport: ServerTransport>(with router: inout RPCRouter<Transport>) {
        func unary(
            _ method: MethodDescriptor,
            _ body: @escaping @Sendable (ServerRequest<Wire.Frame>) async throws -> [UInt8]
        ) {
            router.registerHandler(
                forMethod: method, deserializer: Wire.Deserializer(), serializer: Wire.Serializer()
            ) { [self] request, _ in
                let request = try await ServerRequest(stream: request)
                return StreamingServerResponse(
                    single: ServerResponse(message: try await answer { try await body(request) }))
            }
        }
        unary(Wire.Worker.call) { [self] request in
            try await carryOut(
                request.metadata[stringValues: Wire.callKey].first { _ in true } ?? "", request.message.body)
        }
        unary(Wire.Worker.beat) { [self] _ in try beat() }
        unary(Wire.Worker.release) { [self] request in
            rows.release(try CallCoder.decode(UInt64.self, from: request.message.body))
            return []
        }
        router.registerHandler(
            forMethod: Wire.Worker.rows, deserializer: Wire.Deserializer(), serializer: Wire.Serializer()
        ) { [self] request, _ in
            let request = try await ServerRequest(stream: request)
            return StreamingServerResponse { writer in
                try await self.send(request.message.body, writer)
                return [:]
            }
        }
    }

    /// An error of the worker's is an answer too: status messages of HTTP/2 are short.
    private func answer(_ body: @Sendable () async throws -> [UInt8]) async throws -> Wire.Frame {
        do {
            let bytes = try await body()
            guard bytes.count < limit else {
                throw WorkerCallError(
                    .tooLarge,
                    "an answer of \(bytes.count) bytes is over the limit of \(limit): keep rows with the worker")
            }
            return Wire.Frame(body: bytes)
        } catch {
            var fault =
                switch error {
                case let known as WorkerCallError: known
                case is CancellationError: WorkerCallError(.cancelled, "the call was cancelled")
                case let broken as DecodingError: WorkerCallError(.failed, "\(broken)")
                default: describe(error)
                }
            if fault.worker.isEmpty { fault.worker = name }
            return Wire.Frame(kind: .fault, body: try CallCoder.encode(fault))
        }
    }

    private func carryOut(_ call: String, _ bytes: [UInt8]) async throws -> [UInt8] {
        guard let handler = calls.handlers[call] else {
            throw WorkerCallError(
                .unknownCall,
                "\(name) knows no call '\(call)', only \(calls.handlers.keys.sorted().joined(separator: ", ")): are controller and "
                    + "workers of one version?")
        }
        let number = state.withLock { state in
            state.next += 1
            state.running.append((state.next, call, .now))
            return state.next
        }
        defer {
            state.withLock { state in
                state.running.removeAll { $0.number == number }
                state.done += 1
            }
        }
        let task = Task { [worker] in try await handler(worker, bytes) }
        return try await withRPCCancellationHandler {
            try await withTaskCancellationHandler {
                try await task.value
            } onCancel: {
                task.cancel()
            }
        } onCancelRPC: {
            task.cancel()
        }
    }

    var pulse: WorkerPulse {
        state.withLock { state in
            let oldest = state.running.first
            return WorkerPulse(
                call: oldest?.call, seconds: oldest.map { ($0.since.duration(to: .now)) / .seconds(1) } ?? 0,
                callsDone: state.done)
        }
    }

    private func beat() throws -> [UInt8] {
        state.withLock { $0.beats += 1 }
        try check()
        return try CallCoder.encode(pulse)
    }

    /// Rows one after the other, long ones in pieces; the receiver knows how long each is.
    private func send(_ request: [UInt8], _ writer: RPCWriter<Wire.Frame>) async throws {
        let reference = try CallCoder.decode(RowsReference.self, from: request)
        guard let kept = rows.rows(reference.id, reference.rows.map(\.index)) else {
            let fault = WorkerCallError(
                .missingRows,
                "\(name) keeps no rows \(reference.id) with \(reference.rows.count) places asked for: they were released, or it "
                    + "was started anew", worker: name)
            return try await writer.write(Wire.Frame(kind: .fault, body: try CallCoder.encode(fault)))
        }
        // Small rows go together.
        var piece: [UInt8] = []
        piece.reserveCapacity(RowsTransfer.piece)
        for row in kept {
            var start = 0
            while start < row.count {
                let end = min(row.count, start + RowsTransfer.piece - piece.count)
                piece += row[start..<end]
                start = end
                if piece.count == RowsTransfer.piece {
                    try await writer.write(Wire.Frame(body: piece))
                    piece.removeAll(keepingCapacity: true)
                }
            }
        }
        if !piece.isEmpty { try await writer.write(Wire.Frame(body: piece)) }
    }
}

enum RowsTransfer {
    /// Bytes of one message.
    static let piece = 1 << 20
}

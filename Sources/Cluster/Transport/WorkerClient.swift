import Flow
import GRPCCore
import GRPCNIOTransportHTTP2Posix

/// A connection to a worker, or to the controller. Connects when it is first used, and again after the connection broke.
final class WorkerClient: Sendable {
    let name: String
    let address: Address
    private let settings: TransportSettings
    private let client: Wire.Client
    private let running: Task<Void, any Error>

    init(name: String, address: Address, settings: TransportSettings) throws {
        self.name = name
        self.address = address
        self.settings = settings
        let client = try Wire.client(address, settings)
        self.client = client
        running = Task { try await client.runConnections() }
    }

    /// Ends the connection, and what is under way on it.
    func close() {
        client.beginGracefulShutdown()
        running.cancel()
    }

    deinit { close() }

    private func options(_ timeout: Duration?) -> CallOptions {
        var options = CallOptions.defaults
        options.timeout = timeout
        options.maxResponseMessageBytes = settings.messageLimit
        return options
    }

    /// Sends `body` and returns the answer's.
    /// - Throws: ``WorkerCallError``, or `CancellationError` when the caller was cancelled.
    func ask(
        _ method: MethodDescriptor, _ body: [UInt8], call: String? = nil, timeout: Duration? = nil
    ) async throws -> [UInt8] {
        let what = call ?? method.method
        guard body.count < settings.messageLimit else {
            throw WorkerCallError(
                .tooLarge,
                "\(what) for \(name) has \(body.count) bytes; the limit is \(settings.messageLimit): keep rows with the worker that "
                    + "made them and send a reference", worker: name)
        }
        var metadata = Wire.metadata(settings)
        if let call { metadata.addString(call, forKey: Wire.callKey) }
        let frame: Wire.Frame
        do {
            frame = try await client.unary(
                request: ClientRequest(message: Wire.Frame(body: body), metadata: metadata), descriptor: method,
                serializer: Wire.Serializer(), deserializer: Wire.Deserializer(), options: options(timeout)
            ) { try $0.message }
        } catch { throw explained(error, what, timeout) }
        guard frame.kind == .content else { throw try CallCoder.decode(WorkerCallError.self, from: frame.body) }
        return frame.body
    }

    /// Takes rows from a worker, and checks each.
    func pull(_ reference: RowsReference) async throws -> [[UInt8]] {
        let request = ClientRequest(
            message: Wire.Frame(body: try CallCoder.encode(reference)), metadata: Wire.metadata(settings))
        let bytes: [UInt8]
        do {
            bytes = try await client.serverStreaming(
                request: request, descriptor: Wire.Worker.rows, serializer: Wire.Serializer(),
                deserializer: Wire.Deserializer(), options: options(nil)
            ) { response in
                var bytes: [UInt8] = []
                bytes.reserveCapacity(reference.byteCount)
                for try await frame in response.messages {
                    guard frame.kind == .content else {
                        throw try CallCoder.decode(WorkerCallError.self, from: frame.body)
                    }
                    guard bytes.count + frame.body.count <= reference.byteCount else {
                        throw WorkerCallError(
                            .missingRows,
                            "\(reference.owner) sends more than the \(reference.byteCount) bytes asked for",
                            worker: reference.owner)
                    }
                    bytes += frame.body
                }
                return bytes
            }
        } catch { throw explained(error, "rows \(reference.id)", nil) }
        guard bytes.count == reference.byteCount else {
            throw WorkerCallError(
                .missingRows, "\(reference.owner) sent \(bytes.count) bytes of \(reference.byteCount)",
                worker: reference.owner)
        }
        var start = 0
        let rows = reference.rows.map { row in
            defer { start += row.byteCount }
            return Array(bytes[start..<start + row.byteCount])
        }
        try reference.verify(rows)
        return rows
    }

    private func explained(_ error: any Error, _ what: String, _ timeout: Duration?) -> any Error {
        if let known = error as? WorkerCallError { return known }
        if Task.isCancelled { return CancellationError() }
        guard let broken = error as? RPCError else {
            return WorkerCallError(.connection, "\(what) for \(name) at \(address): \(error)", worker: name)
        }
        // What the reader of a stream threw.
        if let known = broken.cause as? WorkerCallError { return known }
        let (code, text): (WorkerCallError.Code, String) =
            switch broken.code {
            case .deadlineExceeded: (.deadline, "no answer within \(timeout.map { "\($0)" } ?? "its deadline")")
            // The worker's clock may be the first to end it.
            case .cancelled where timeout != nil: (.deadline, "no answer within \(timeout.map { "\($0)" } ?? "")")
            case .unauthenticated: (.refused, broken.message)
            case .resourceExhausted: (.tooLarge, "\(broken.message) (limit \(settings.messageLimit) bytes)")
            default: (.connection, "the connection broke: \(broken.message)")
            }
        return WorkerCallError(code, "\(what) for \(name) at \(address): \(text)", worker: name)
    }
}

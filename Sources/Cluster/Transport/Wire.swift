import Flow
import GRPCCore
import GRPCNIOTransportHTTP2Posix

/// The services between controller and workers, and how their messages become bytes.
enum Wire {
    enum Worker {
        private static let service = ServiceDescriptor(fullyQualifiedService: "fledge.Worker")
        /// Carries a call out; its name is in the metadata.
        static let call = MethodDescriptor(service: service, method: "Call")
        /// Whether the worker lives, and what it does.
        static let beat = MethodDescriptor(service: service, method: "Beat")
        /// Streams rows that the worker keeps.
        static let rows = MethodDescriptor(service: service, method: "Rows")
        /// Drops rows.
        static let release = MethodDescriptor(service: service, method: "Release")
    }

    enum Registry {
        private static let service = ServiceDescriptor(fullyQualifiedService: "fledge.Registry")
        static let register = MethodDescriptor(service: service, method: "Register")
    }

    static let tokenKey = "fledge-token"
    static let callKey = "fledge-call"

    /// Bytes with a mark before them.
    struct Frame: Sendable {
        enum Kind: UInt8, Sendable { case content, fault }
        var kind = Kind.content
        var body: [UInt8]
    }

    struct Serializer: MessageSerializer {
        func serialize<Bytes: GRPCContiguousBytes>(_ frame: Frame) throws -> Bytes {
            var bytes = Bytes(repeating: frame.kind.rawValue, count: frame.body.count + 1)
            bytes.withUnsafeMutableBytes { target in
                frame.body.withUnsafeBytes {
                    UnsafeMutableRawBufferPointer(rebasing: target[1...]).copyMemory(from: $0)
                }
            }
            return bytes
        }
    }

    struct Deserializer: MessageDeserializer {
        func deserialize<Bytes: GRPCContiguousBytes>(_ bytes: Bytes) throws -> Frame {
            try bytes.withUnsafeBytes { bytes in
                guard let first = bytes.first, let kind = Frame.Kind(rawValue: first) else {
                    throw RPCError(
                        code: .invalidArgument, message: "a message of \(bytes.count) bytes is none of Fledge's")
                }
                return Frame(kind: kind, body: Array(bytes.dropFirst()))
            }
        }
    }

    // MARK: - Transports

    typealias Client = GRPCClient<HTTP2ClientTransport.Posix>
    typealias Server = GRPCServer<HTTP2ServerTransport.Posix>

    /// What HTTP/2 has in flight: rows of many megabytes are common.
    private static let window = 16 << 20
    private static let frame = 1 << 20

    static func client(_ address: Address, _ settings: TransportSettings) throws -> Client {
        let security: HTTP2ClientTransport.Posix.TransportSecurity =
            if let tls = settings.tls {
                .mTLS(
                    certificateChain: [.file(path: tls.certificate, format: .pem)],
                    privateKey: .file(path: tls.key, format: .pem)
                ) {
                    // Workers are known by the authority and the token; their addresses are of the moment.
                    $0.serverCertificateVerification = .noHostnameVerification
                    $0.trustRoots = .certificates([.file(path: tls.authority, format: .pem)])
                }
            } else { .plaintext }
        let config = HTTP2ClientTransport.Posix.Config.defaults { config in
            config.http2.targetWindowSize = window
            config.http2.maxFrameSize = frame
            config.backoff = .init(initial: .milliseconds(50), max: .seconds(2), multiplier: 1.6, jitter: 0.2)
            config.connection.maxIdleTime = nil
            config.connection.keepalive = .init(
                time: settings.keepAlive, timeout: settings.lostAfter, allowWithoutCalls: true)
        }
        return Client(
            transport: try .http2NIOPosix(
                target: .ipv4(address: address.host, port: address.port), transportSecurity: security, config: config))
    }

    static func server(
        host: String, _ settings: TransportSettings, services: [any RegistrableRPCService]
    ) -> Server {
        let security: HTTP2ServerTransport.Posix.TransportSecurity =
            if let tls = settings.tls {
                .mTLS(
                    certificateChain: [.file(path: tls.certificate, format: .pem)],
                    privateKey: .file(path: tls.key, format: .pem)
                ) { $0.trustRoots = .certificates([.file(path: tls.authority, format: .pem)]) }
            } else { .plaintext }
        let config = HTTP2ServerTransport.Posix.Config.defaults { config in
            config.http2.targetWindowSize = window
            config.http2.maxFrameSize = frame
            config.rpc.maxRequestPayloadSize = settings.messageLimit
            config.connection.keepalive = .init(
                time: settings.keepAlive, timeout: settings.lostAfter,
                clientBehavior: .init(minPingIntervalWithoutCalls: settings.keepAlive / 2, allowWithoutCalls: true))
        }
        return Server(
            transport: .http2NIOPosix(
                address: .ipv4(host: host, port: 0), transportSecurity: security, config: config),
            services: services, interceptors: [TokenCheck(token: settings.token)])
    }

    /// The metadata of every request.
    static func metadata(_ settings: TransportSettings) -> Metadata { [tokenKey: .string(settings.token.text)] }
}

/// Refuses whoever does not know the run's token.
private struct TokenCheck: ServerInterceptor {
    let token: RunToken

    func intercept<Input: Sendable, Output: Sendable>(
        request: StreamingServerRequest<Input>, context: ServerContext,
        next: @Sendable (StreamingServerRequest<Input>, ServerContext) async throws -> StreamingServerResponse<Output>
    ) async throws -> StreamingServerResponse<Output> {
        let given = Array(request.metadata[stringValues: Wire.tokenKey])
        guard given.count == 1, token.matches(given[0]) else {
            return StreamingServerResponse(
                error: RPCError(code: .unauthenticated, message: "the run's token is missing or wrong"))
        }
        return try await next(request, context)
    }
}

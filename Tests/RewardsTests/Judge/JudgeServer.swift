import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// A server on this machine that answers as a test says, and notes what it was asked.
final class JudgeServer: Sendable {
    struct Asked: Sendable {
        var headers: [String: String]
        var body: String
        var path: String
    }

    enum Answer: Sendable {
        case say(String)
        case status(Int, headers: [(String, String)] = [], body: String = "")
        /// As it is, with status 200.
        case bytes([UInt8])
        /// Nothing, ever.
        case hang
        /// The head, and then nothing.
        case stall
        /// The connection is closed without a word.
        case close
        /// When so many requests are under way.
        case together(Int, String)
    }

    typealias Script = @Sendable (_ number: Int, Asked) -> Answer

    private struct State {
        var asked: [Asked] = []
        var open = 0
        var most = 0
        var waiting: [@Sendable () -> Void] = []
    }

    private let state = Mutex(State())
    private let script: Script
    private let channel: any Channel

    var asked: [Asked] { state.withLock { $0.asked } }
    /// The most requests that were under way at a time.
    var most: Int { state.withLock { $0.most } }

    let port: Int
    private let scheme: String
    var url: String { "\(scheme)://localhost:\(port)/v1" }

    private init(_ channel: any Channel, scheme: String, _ box: Box, _ script: @escaping Script) {
        self.channel = channel
        self.scheme = scheme
        self.script = script
        port = channel.localAddress?.port ?? 0
        box.server.withLock { $0 = self }
    }

    /// Runs a body with a server.
    static func with<Result: Sendable>(
        tls: (certificate: String, key: String)? = nil, _ script: @escaping Script,
        _ body: (JudgeServer) async throws -> Result
    ) async throws -> Result {
        let box = Box()
        let context = try tls.map { pem in
            try NIOSSLContext(
                configuration: .makeServerConfiguration(
                    certificateChain: NIOSSLCertificate.fromPEMBytes(Array(pem.certificate.utf8)).map {
                        .certificate($0)
                    },
                    privateKey: .privateKey(NIOSSLPrivateKey(bytes: Array(pem.key.utf8), format: .pem))))
        }
        let channel = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .serverChannelOption(.backlog, value: 64)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let context { try pipeline.addHandler(NIOSSLServerHandler(context: context)) }
                    try pipeline.configureHTTPServerPipeline()
                    try pipeline.addHandler(Handler(box: box))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let server = JudgeServer(channel, scheme: tls == nil ? "http" : "https", box, script)
        do {
            let result = try await body(server)
            try await channel.close()
            return result
        } catch {
            try? await channel.close()
            throw error
        }
    }

    final class Box: Sendable {
        let server = Mutex<JudgeServer?>(nil)
    }

    fileprivate func ask(_ asked: Asked) -> Answer {
        let number = state.withLock { state in
            state.asked.append(asked)
            state.open += 1
            state.most = max(state.most, state.open)
            return state.asked.count - 1
        }
        return script(number, asked)
    }

    fileprivate func answered() { state.withLock { $0.open -= 1 } }

    fileprivate func wait(for count: Int, _ go: @escaping @Sendable () -> Void) {
        let ready = state.withLock { state in
            state.waiting.append(go)
            guard state.waiting.count >= count else { return [@Sendable () -> Void]() }
            defer { state.waiting = [] }
            return state.waiting
        }
        for go in ready { go() }
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart
        private let box: Box
        private var head: HTTPRequestHead?
        private var body = ByteBuffer()

        init(box: Box) { self.box = box }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head): (self.head, body) = (head, ByteBuffer())
            case .body(var more): body.writeBuffer(&more)
            case .end: answer(context)
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

        private func answer(_ context: ChannelHandlerContext) {
            guard let server = box.server.withLock({ $0 }), let head else { return context.close(promise: nil) }
            var headers: [String: String] = [:]
            for (name, value) in head.headers { headers[name.lowercased()] = value }
            let answer = server.ask(Asked(headers: headers, body: String(buffer: body), path: head.uri))
            let channel = context.channel
            switch answer {
            case .say(let text): Self.write(channel, server, 200, [], Self.completion(text))
            case .status(let code, let headers, let body): Self.write(channel, server, code, headers, Array(body.utf8))
            case .bytes(let bytes): Self.write(channel, server, 200, [], bytes)
            case .hang: break
            case .stall:
                channel.writeAndFlush(
                    HTTPServerResponsePart.head(
                        HTTPResponseHead(version: .http1_1, status: .ok, headers: ["content-length": "1000"])),
                    promise: nil)
            case .close:
                server.answered()
                context.close(promise: nil)
            case .together(let count, let text):
                server.wait(for: count) { Self.write(channel, server, 200, [], Self.completion(text)) }
            }
        }

        private static func completion(_ text: String) -> [UInt8] {
            let object: [String: Any] = [
                "id": "x",
                "choices": [["index": 0, "message": ["role": "assistant", "content": text]] as [String: Any]],
            ]
            return Array((try? JSONSerialization.data(withJSONObject: object)) ?? Data())
        }

        private static func write(
            _ channel: any Channel, _ server: JudgeServer, _ status: Int, _ headers: [(String, String)],
            _ body: [UInt8]
        ) {
            server.answered()
            var head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: status))
            head.headers.add(name: "content-length", value: String(body.count))
            for (name, value) in headers { head.headers.add(name: name, value: value) }
            channel.write(HTTPServerResponsePart.head(head), promise: nil)
            channel.write(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(bytes: body))), promise: nil)
            channel.writeAndFlush(HTTPServerResponsePart.end(nil), promise: nil)
        }
    }
}

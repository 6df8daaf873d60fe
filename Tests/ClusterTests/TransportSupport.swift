import Cluster
import Flow
import Foundation
import Synchronization
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// A worker for tests.
actor Parrot {
    private(set) var heard: [String] = []
    private(set) var wasCancelled = false
    nonisolated let name: String
    nonisolated let rows = RowsStore()
    nonisolated let address = Mutex("")
    nonisolated let puller = Mutex<RowsPuller?>(nil)

    init(_ name: String) { self.name = name }

    func hear(_ text: String) { heard.append(text) }
    func noteCancelled() { wasCancelled = true }

    static var calls: CallRegistry<Parrot> {
        var calls = CallRegistry<Parrot>()
        calls.add(Repeat.self)
        calls.add(Wait.self)
        calls.add(WasCancelled.self)
        calls.add(Heard.self)
        calls.add(SumRows.self)
        calls.add(Keep.self)
        calls.add(Pull.self)
        calls.add(Break.self)
        calls.add(Die.self)
        return calls
    }
}

struct Repeat: WorkerCall {
    var text: String
    func perform(on worker: Parrot) async throws -> String {
        await worker.hear(text)
        return text
    }
}

/// Waits until it is cancelled, or for so long.
struct Wait: WorkerCall {
    var seconds: Double
    var limit: Double?
    var deadline: Duration? { limit.map { .seconds($0) } }
    func perform(on worker: Parrot) async throws -> Done {
        do { try await Task.sleep(for: .seconds(seconds)) } catch {
            await worker.noteCancelled()
            throw error
        }
        return Done()
    }
}

struct WasCancelled: WorkerCall {
    static var waitsItsTurn: Bool { false }
    func perform(on worker: Parrot) async throws -> Bool { await worker.wasCancelled }
}

struct Heard: WorkerCall {
    func perform(on worker: Parrot) async throws -> [String] { await worker.heard }
}

struct SumRows: WorkerCall {
    var rows: PackedRows<Int32>
    func perform(on worker: Parrot) async throws -> PackedRows<Int32> {
        PackedRows(rows.rows.map { [$0.reduce(0, &+)] })
    }
}

struct Keep: WorkerCall {
    var count: Int
    var size: Int
    func perform(on worker: Parrot) async throws -> RowsReference {
        try worker.rows.keep(
            (0..<count).map { row in (0..<size + row).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ row) } },
            owner: worker.name, address: worker.address.withLock { $0 })
    }
}

/// Takes rows from another worker, and says how many bytes came and what their digest is.
struct Pull: WorkerCall {
    var reference: RowsReference
    func perform(on worker: Parrot) async throws -> [UInt64] {
        let puller = try #require(worker.puller.withLock { $0 })
        let rows = try await puller.pull(reference)
        return [UInt64(rows.reduce(0) { $0 + $1.count }), RowsReference.digest(rows.flatMap { $0 })]
    }
}

struct Break: WorkerCall {
    struct Broken: Error, CustomStringConvertible { var description: String { "it is broken" } }
    func perform(on worker: Parrot) async throws -> Done { throw Broken() }
}

struct Die: WorkerCall {
    var aborts = false
    var code: Int32 = 1
    func perform(on worker: Parrot) async throws -> Done {
        FileHandle.standardError.write(Data("these are my last words\n".utf8))
        if aborts { abort() } else { _exit(code) }
    }
}

/// Not among what a parrot knows.
struct Sing: WorkerCall {
    func perform(on worker: Parrot) async throws -> Done { Done() }
}

/// Serves a parrot, registered under its name, while `body` runs with it.
func withParrot<Result: Sendable>(
    _ name: String, of registry: WorkerRegistry, at controller: Address, settings: TransportSettings,
    through proxy: Proxy? = nil, _ body: (RemoteWorker) async throws -> Result
) async throws -> Result {
    let parrot = Parrot(name)
    let server = WorkerServer(
        name: name, worker: parrot, calls: Parrot.calls, settings: settings, rows: parrot.rows)
    return try await server.run(host: "127.0.0.1") { address in
        parrot.address.withLock { $0 = "\(address)" }
        parrot.puller.withLock { $0 = RowsPuller(settings, own: ("\(address)", parrot.rows)) }
        try proxy?.forward(to: address.port)
        let shown = proxy.map { Address(host: "127.0.0.1", port: $0.port) } ?? address
        let place = WorkerPlace(name: name, controller: controller, settings: registry.settings)
        async let workers = registry.await([name], deadline: .seconds(60))
        while true {
            // The name may not be awaited yet.
            do {
                try await place.register(at: shown)
                break
            } catch let error as WorkerCallError where error.code == .refused && error.message.contains("is awaited") {
                await Task.yield()
            }
        }
        let worker = try #require(try await workers.first)
        defer { worker.stop() }
        let result = try await body(worker)
        parrot.puller.withLock { $0 }?.close()
        return result
    }
}

func group(_ workers: [RemoteWorker]) -> WorkerGroup<Parrot> {
    WorkerGroup(name: "parrots", endpoints: workers.map { RemoteEndpoint($0) }, mesh: .data(workers.count))
}

/// This test bundle, started again as a worker: ``ParrotProcess`` is what it runs.
func parrotPlan(_ name: String) -> WorkerProcessPlan {
    WorkerProcessPlan(
        name: name, arguments: ["--testing-library", "swift-testing", "--filter", "ParrotProcess/serve"])
}

func parrotHost(_ lines: WorkerLines) throws -> LocalWorkers {
    let executable = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path
    var environment = ProcessInfo.processInfo.environment
    // Pages of it would push the last words out.
    environment["SWIFT_BACKTRACE"] = "enable=no"
    return try LocalWorkers(executable: executable, environment: environment) { _, name, line in
        lines.add("\(name): \(line)")
    }
}

final class WorkerLines: Sendable {
    private let all = Mutex<[String]>([])
    func add(_ line: String) { all.withLock { $0.append(line) } }
    var text: String { all.withLock { $0.joined(separator: "\n") } }
}

/// What a worker process of these tests does. In a run of the tests it is not one, and does nothing.
@Suite struct ParrotProcess {
    static let place = Result { try WorkerPlace.given(ProcessInfo.processInfo.environment) }

    @Test(.enabled(if: (try? place.get()) != nil)) func serve() async throws {
        let place = try #require(try Self.place.get())
        RankEnvironment.dieWithStarter(ProcessInfo.processInfo.environment)
        let parrot = Parrot(place.name)
        let server = WorkerServer(
            name: place.name, worker: parrot, calls: Parrot.calls, settings: place.settings, rows: parrot.rows)
        let host = try Address.own(towards: place.controller)
        try await server.run(host: host) { address in
            parrot.address.withLock { $0 = "\(address)" }
            parrot.puller.withLock { $0 = RowsPuller(place.settings, own: ("\(address)", parrot.rows)) }
            try await place.register(at: address)
            try await server.orphaned()
        }
        _exit(0)
    }
}

/// Passes bytes on between a port of its own and another, until it is cut.
final class Proxy: Sendable {
    let port: Int
    private let listener: Int32
    private struct State {
        var target = 0
        var sockets: [Int32] = []
        var isCut = false
    }
    private let state = Mutex(State())

    init() throws {
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = Self.loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = listener
        let isBound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 16) == 0
                    && getsockname(descriptor, $0, &length) == 0
            }
        }
        try #require(isBound)
        port = Int(UInt16(bigEndian: address.sin_port))
    }

    private static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }

    func forward(to port: Int) throws {
        state.withLock { $0.target = port }
        Thread.detachNewThread { [self] in
            while true {
                let accepted = accept(listener, nil, nil)
                guard accepted >= 0 else { return }
                let other = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
                var address = Self.loopback(port)
                let connected = withUnsafePointer(to: &address) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        connect(other, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
                    }
                }
                let isCut = state.withLock { state in
                    state.sockets += [accepted, other]
                    return state.isCut
                }
                if !connected || isCut {
                    shutdown(accepted, Int32(SHUT_RDWR))
                    shutdown(other, Int32(SHUT_RDWR))
                }
                for (from, to) in [(accepted, other), (other, accepted)] {
                    Thread.detachNewThread {
                        var buffer = [UInt8](repeating: 0, count: 1 << 16)
                        while true {
                            let count = read(from, &buffer, buffer.count)
                            guard count > 0, send(to, &buffer, count, Int32(MSG_NOSIGNAL)) == count else { break }
                        }
                        shutdown(to, Int32(SHUT_RDWR))
                    }
                }
            }
        }
    }

    /// Ends the connections there are, and lets new ones through.
    func interrupt() {
        for socket in state.withLock({ state in
            defer { state.sockets = [] }
            return state.sockets
        }) { shutdown(socket, Int32(SHUT_RDWR)) }
    }

    /// For good.
    func cut() {
        state.withLock { $0.isCut = true }
        interrupt()
    }
}

import Cluster
import Flow
import Foundation
import Testing

@Suite(.timeLimit(.minutes(20))) struct TransportTests {
    /// A controller and workers that are other servers of this process.
    private func withWorkers<Result: Sendable>(
        _ count: Int, _ settings: TransportSettings = TransportSettings(), through proxy: Proxy? = nil,
        _ body: ([RemoteWorker]) async throws -> Result
    ) async throws -> Result {
        let registry = WorkerRegistry(settings)
        return try await registry.run(host: "127.0.0.1") { controller in
            func with(_ workers: [RemoteWorker]) async throws -> Result {
                if workers.count == count { return try await body(workers) }
                return try await withParrot(
                    "parrot \(workers.count)", of: registry, at: controller, settings: settings, through: proxy
                ) { try await with(workers + [$0]) }
            }
            return try await with([])
        }
    }

    private func failure(
        _ body: () async throws -> Void, at location: SourceLocation = #_sourceLocation
    ) async throws -> WorkerCallError {
        let error = await #expect(throws: WorkerCallError.self, sourceLocation: location) { try await body() }
        return try #require(error, sourceLocation: location)
    }

    @Test func callsAndRowsReachWorkersElsewhere() async throws {
        try await withWorkers(3) { workers in
            let group = group(workers)
            #expect(try await group.call(Repeat(text: "é")) == ["é", "é", "é"])
            let rows = (0..<100).map { row in (0..<row).map { Int32($0) } }
            let sums = try await group.call(
                rows, .split(by: { Double($0.count) }) { SumRows(rows: PackedRows($0)) }, .concat())
            #expect(sums == rows.map { [$0.reduce(0, +)] })
            for text in ["a", "b", "c"] { _ = try await group.call(Repeat(text: text), .rankZero, .first) }
            #expect(try await group.call(Heard(), .rankZero, .first) == ["é", "a", "b", "c"])
        }
    }

    @Test func aWorkersErrorIsTheControllers() async throws {
        try await withWorkers(1) { workers in
            let error = try await failure { _ = try await group(workers).call(Break()) }
            #expect(error.code == .failed && error.message == "it is broken" && error.worker == "parrot 0")
            let unknown = try await failure { _ = try await group(workers).call(Sing()) }
            #expect(unknown.code == .unknownCall && unknown.message.contains("Repeat"))
            #expect(try await group(workers).call(Repeat(text: "still here")) == ["still here"])
        }
    }

    @Test func aDeadlineEndsTheCallHereAndThere() async throws {
        try await withWorkers(1) { workers in
            // On a busy machine the time may be over before the call has begun.
            repeat {
                let error = try await failure { _ = try await group(workers).call(Wait(seconds: 1000, limit: 0.3)) }
                #expect(error.code == .deadline && error.message.contains("Wait"))
            } while try await group(workers).call(WasCancelled()) != [true]
        }
    }

    @Test func cancellationReachesTheWorker() async throws {
        try await withWorkers(1) { workers in
            let group = group(workers)
            let pending = try group.issue(Wait(seconds: 1000), .broadcast, .nothing)
            while workers[0].lastPulse?.call != "Wait" { try await Task.sleep(for: .milliseconds(10)) }
            pending.cancel()
            await #expect(throws: CancellationError.self) { try await pending.value }
            while try await group.call(WasCancelled()) != [true] { await Task.yield() }
            #expect(try await group.call(Repeat(text: "next")) == ["next"])
        }
    }

    @Test func messagesOverTheLimitAreRefusedOnBothWays() async throws {
        var settings = TransportSettings()
        settings.messageLimit = 1 << 12
        try await withWorkers(1, settings) { workers in
            let text = String(repeating: "x", count: 1 << 17)
            let out = try await failure { _ = try await group(workers).call(Repeat(text: text)) }
            #expect(out.code == .tooLarge && out.message.contains("4096"))
            // Fits on the way out, not on the way back.
            for _ in 0..<150 { _ = try await group(workers).call(Repeat(text: String(repeating: "y", count: 30))) }
            let back = try await failure { _ = try await group(workers).call(Heard()) }
            #expect(back.code == .tooLarge && back.worker == "parrot 0")
        }
    }

    @Test func theServerItselfRefusesWhatIsTooLong() async throws {
        var small = TransportSettings()
        small.messageLimit = 1 << 16
        var large = small
        large.messageLimit = 1 << 20
        let registry = WorkerRegistry(large)
        try await registry.run(host: "127.0.0.1") { controller in
            try await withParrot("parrot", of: registry, at: controller, settings: small) { worker in
                let text = String(repeating: "x", count: 1 << 17)
                let error = try await failure { _ = try await group([worker]).call(Repeat(text: text)) }
                // It ends the stream, and says no more.
                #expect([.tooLarge, .connection].contains(error.code))
                #expect(try await group([worker]).call(Heard()) == [[]])
            }
        }
    }

    @Test func aWrongTokenIsRefused() async throws {
        let registry = WorkerRegistry(TransportSettings())
        try await registry.run(host: "127.0.0.1") { controller in
            let stranger = WorkerPlace(name: "x", controller: controller, settings: TransportSettings())
            let error = try await failure { try await stranger.register(at: controller) }
            #expect(error.code == .refused)
            // A controller that does not know the worker's token.
            try await withParrot("parrot", of: registry, at: controller, settings: TransportSettings()) { worker in
                let error = try await failure { _ = try await group([worker]).call(Repeat(text: "x")) }
                #expect(error.code == .refused)
            }
        }
    }

    @Test func aNameThatIsNotAwaitedIsRefused() async throws {
        let registry = WorkerRegistry(TransportSettings())
        try await registry.run(host: "127.0.0.1") { controller in
            let place = WorkerPlace(name: "x", controller: controller, settings: registry.settings)
            let error = try await failure { try await place.register(at: controller) }
            #expect(error.code == .refused)
        }
    }

    @Test func aCutConnectionFailsTheCallAndTheNextOneConnectsAnew() async throws {
        let proxy = try Proxy()
        try await withWorkers(1, through: proxy) { workers in
            let group = group(workers)
            let pending = try group.issue(Wait(seconds: 1000), .broadcast, .nothing)
            while workers[0].lastPulse?.call != "Wait" { try await Task.sleep(for: .milliseconds(10)) }
            proxy.interrupt()
            let error = try await failure { try await pending.value }
            #expect(error.code == .connection && error.message.contains("Wait"))
            #expect(try await group.call(Repeat(text: "again")) == ["again"])
            #expect(workers[0].lostBecause == nil)
        }
    }

    @Test func aWorkerThatCannotBeReachedIsLost() async throws {
        var settings = TransportSettings()
        settings.beat = .milliseconds(50)
        settings.lostAfter = .seconds(45)
        let proxy = try Proxy()
        try await withWorkers(1, settings, through: proxy) { workers in
            #expect(try await group(workers).call(Repeat(text: "x")) == ["x"])
            proxy.cut()
            let loss = try await workers[0].lost()
            #expect(loss.code == .lost && loss.message.contains("has shown no life"))
            #expect(try await failure { _ = try await group(workers).call(Repeat(text: "x")) }.code == .lost)
        }
    }

    @Test func slowIsNotDead() async throws {
        var settings = TransportSettings()
        settings.beat = .milliseconds(20)
        // Tests that compute may have all threads for a while.
        settings.lostAfter = .seconds(45)
        try await withWorkers(1, settings) { workers in
            // Longer than a worker may be silent.
            _ = try await group(workers).call(Wait(seconds: 50))
            #expect(workers[0].lostBecause == nil && (workers[0].lastPulse?.callsDone ?? 0) <= 1)
        }
    }

    @Test func rowsGoFromWorkerToWorker() async throws {
        try await withWorkers(2) { workers in
            let group = group(workers)
            let reference = try await group.call(Keep(count: 5, size: 700_000), .only(0), .first)
            #expect(reference.owner == "parrot 0" && reference.rows.count == 5)
            let part = reference.selecting([4, 1])
            let pulled = try await group.call(Pull(reference: part), .only(1), .first)
            let expected = [4, 1].flatMap { row in
                (0..<700_000 + row).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ row) }
            }
            #expect(pulled == [UInt64(expected.count), RowsReference.digest(expected)])
            #expect(try await group.call(Pull(reference: part), .only(0), .first) == pulled)

            var lie = part
            lie.rows[1].digest ^= 1
            let damaged = try await failure { _ = try await group.call(Pull(reference: lie), .only(1), .first) }
            #expect(damaged.code == .missingRows && damaged.message.contains("damaged"))
            try await workers[0].release(reference)
            let gone = try await failure { _ = try await group.call(Pull(reference: part), .only(1), .first) }
            #expect(gone.code == .missingRows && gone.message.contains("released"))
        }
    }

    @Test func bothEndsShowCertificates() async throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "tls-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func file(_ text: String) throws -> String {
            let path = folder.appending(path: UUID().uuidString).path
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
            return path
        }
        let authority = try file(TestCertificates.authority)
        var settings = TransportSettings(
            tls: .init(
                authority: authority, certificate: try file(TestCertificates.certificate),
                key: try file(TestCertificates.key)))
        try await withWorkers(2, settings) { workers in
            let answers = try await group(workers).call(Repeat(text: "secret"))
            #expect(answers == ["secret", "secret"])
        }
        var stranger = settings
        stranger.tls = .init(
            authority: authority, certificate: try file(TestCertificates.strangersCertificate),
            key: try file(TestCertificates.strangersKey))
        var open = settings
        open.tls = nil
        let registry = WorkerRegistry(settings)
        try await registry.run(host: "127.0.0.1") { controller in
            for other in [stranger, open] {
                let place = WorkerPlace(name: "x", controller: controller, settings: other)
                await #expect(throws: WorkerCallError.self) {
                    try await place.register(at: controller, within: .seconds(3))
                }
            }
        }
        var broken = settings
        broken.tls?.key = authority
        await #expect(throws: ClusterError.self) {
            try await WorkerRegistry(broken).run(host: "127.0.0.1") { _ in }
        }
    }

    @Test func tokensAreLongRandomAndCompareWhole() throws {
        let token = RunToken.random()
        #expect(token.text.count == 64 && token != RunToken.random())
        #expect(token.matches(token.text) && RunToken(token.text) == token)
        for other in ["", String(token.text.dropLast()), token.text + "0", "x" + token.text.dropFirst()] {
            #expect(!token.matches(other))
        }
        #expect(RunToken("short") == nil && RunToken(String(repeating: " ", count: 64)) == nil)
    }

    @Test func placesTravelThroughTheEnvironment() throws {
        var settings = TransportSettings(tls: .init(authority: "a", certificate: "b", key: "c"))
        settings.lostAfter = .milliseconds(1500)
        settings.messageLimit = 77
        let place = WorkerPlace(name: "rank 1", controller: Address(host: "127.0.0.1", port: 5), settings: settings)
        #expect(try WorkerPlace.given(place.variables) == place)
        #expect(try WorkerPlace.given([:]) == nil)
        for missing in ["FLEDGE_TOKEN", "FLEDGE_CONTROLLER", "FLEDGE_TLS_KEY"] {
            var variables = place.variables
            variables[missing] = nil
            #expect(throws: ClusterError.self) { try WorkerPlace.given(variables) }
        }
        #expect(throws: ClusterError.self) { try Address("nowhere") }
        #expect(throws: ClusterError.self) { try Address("127.0.0.1:0") }
        #expect(try Address.own(towards: Address(host: "127.0.0.1", port: 9)) == "127.0.0.1")
    }
}

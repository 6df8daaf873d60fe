import AsyncHTTPClient
import FoundationEssentials
import NIOCore
import NIOHTTP1
import NIOSSL
import Synchronization

/// A language model behind an OpenAI-compatible server (`/v1/chat/completions`) grades each answer.
///
/// A request that finds no connection, no answer in time, 429 or a 5xx is made again, later each time. What still fails is a
/// `RewardFailure` of its item; when as many items as are under way at a time have failed so one after another, the server counts
/// as down and the batch's others fail at once: a run never stands still for it.
public final class JudgeReward: Reward {
    public let configuration: JudgeConfiguration
    private let dialogue: JudgeDialogue
    private let client: HTTPClient
    private let place: String

    /// - Throws: ``RewardError``: `badSetting`, `badPattern`.
    public init(_ configuration: JudgeConfiguration) throws {
        try configuration.check()
        dialogue = try JudgeDialogue(configuration)
        var place = configuration.url
        while place.hasSuffix("/") { place.removeLast() }
        self.place = place + "/chat/completions"
        guard let address = URL(string: self.place), let host = address.host, !host.isEmpty,
            ["http", "https"].contains(address.scheme ?? ""), address.user == nil, address.password == nil
        else {
            throw RewardError(
                .badSetting,
                "the judge's address must be http or https with a host and without a key in it, as https://host/v1")
        }
        var tls = TLSConfiguration.makeClientConfiguration()
        if let file = configuration.caFile {
            guard let certificates = try? NIOSSLCertificate.fromPEMFile(file), !certificates.isEmpty else {
                throw RewardError(.badSetting, "the judge's ca_file '\(file)' holds no PEM certificate")
            }
            tls.trustRoots = .certificates(certificates)
        }
        let limit = TimeAmount(configuration.timeout)
        // The key goes to the server that was named and to no other.
        var settings = HTTPClient.Configuration(
            tlsConfiguration: tls, redirectConfiguration: .disallow,
            timeout: .init(connect: min(limit, .seconds(10)), read: limit))
        settings.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = configuration.concurrency
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: settings)
        self.configuration = configuration
    }

    public func shutdown() async { try? await client.shutdown() }

    public func score(_ items: [RewardRequest]) async -> [RewardOutcome] {
        let health = ServerHealth(limit: configuration.concurrency)
        return await withTaskGroup(of: (Int, RewardOutcome).self) { group in
            var outcomes = [RewardOutcome?](repeating: nil, count: items.count)
            var next = 0
            func begin() {
                let index = next
                next += 1
                group.addTask { (index, await self.grade(items[index], health)) }
            }
            while next < min(configuration.concurrency, items.count) { begin() }
            for await (index, outcome) in group {
                outcomes[index] = outcome
                if next < items.count { begin() }
            }
            return outcomes.map { $0 ?? .failed(RewardFailure(.cancelled, "it was never asked")) }
        }
    }

    // MARK: - One item

    private enum Trial {
        case answered([UInt8])
        /// The server will not answer this otherwise another time.
        case refused(RewardFailure)
        case again(RewardFailure, after: Duration = .zero)
    }

    private func grade(_ item: RewardRequest, _ health: ServerHealth) async -> RewardOutcome {
        let end = ContinuousClock.now + configuration.deadline
        var wait = configuration.firstWait
        var last = RewardFailure(.unavailable, "the judge was not asked")
        for attempt in 0...configuration.retries {
            if Task.isCancelled { return .failed(RewardFailure(.cancelled, "the run was stopped")) }
            if let reason = health.reason { return .failed(reason) }
            let left = end - ContinuousClock.now
            guard left > .zero else { break }
            switch await trial(item, within: min(left, configuration.timeout)) {
            case .answered(let bytes):
                health.answered()
                return dialogue.outcome(bytes)
            case .refused(let failure):
                health.answered()
                return .failed(failure)
            case .again(let failure, let after):
                last = failure
                let pause = max(wait, after)
                wait = min(wait * 2, configuration.longestWait)
                guard attempt < configuration.retries, ContinuousClock.now + pause < end else { break }
                try? await Task.sleep(for: pause)
            }
        }
        if Task.isCancelled { return .failed(RewardFailure(.cancelled, "the run was stopped")) }
        let failure = RewardFailure(last.kind, "the judge gave no answer in its retries; the last: \(last.message)")
        health.failed(failure)
        return .failed(failure)
    }

    private func trial(_ item: RewardRequest, within limit: Duration) async -> Trial {
        do {
            var request = HTTPClientRequest(url: place)
            request.method = .POST
            request.headers.add(name: "content-type", value: "application/json")
            if let key = configuration.key { request.headers.add(name: "authorization", value: "Bearer " + key.text) }
            request.body = .bytes(try dialogue.body(item))
            let (status, bytes, after) = try await exchange(request, within: limit)
            if status == 200 { return .answered(bytes) }
            let said = String(decoding: bytes.prefix(200), as: UTF8.self)
            let failure = RewardFailure(.unavailable, "status \(status): \(said)")
            return status == 429 || status >= 500 ? .again(failure, after: after) : .refused(failure)
        } catch is NIOTooManyBytesError {
            return .refused(
                RewardFailure(.garbage, "the judge's answer is longer than \(configuration.answerBytes) bytes"))
        } catch is Late {
            return .again(RewardFailure(.timedOut, "no answer within \(limit)"))
        } catch is CancellationError {
            return .again(RewardFailure(.cancelled, "the run was stopped"))
        } catch {
            return .again(RewardFailure(.unavailable, "no connection to \(place): \(error)"))
        }
    }

    private struct Late: Error {}

    /// A request with all of its answer, or nothing when it is late: a body that trickles is no way around the limit.
    private func exchange(
        _ request: HTTPClientRequest, within limit: Duration
    ) async throws -> (status: Int, bytes: [UInt8], after: Duration) {
        typealias Whole = (status: Int, bytes: [UInt8], after: Duration)
        return try await withThrowingTaskGroup(of: Whole?.self) { group in
            group.addTask { [client, configuration] in
                let response = try await client.execute(request, timeout: TimeAmount(limit))
                let body = try await response.body.collect(upTo: configuration.answerBytes)
                let seconds = response.headers.first(name: "retry-after").flatMap { Double($0) } ?? 0
                return (
                    Int(response.status.code), Array(body.readableBytesView),
                    .seconds(seconds.isFinite ? min(max(0, seconds), 86_400) : 0)
                )
            }
            group.addTask {
                try await Task.sleep(for: limit)
                return nil
            }
            defer { group.cancelAll() }
            do {
                guard let whole = try await group.next() ?? nil else { throw Late() }
                return whole
            } catch let error as HTTPClientError
                where [.deadlineExceeded, .readTimeout, .connectTimeout].contains(error)
            {
                throw Late()
            }
        }
    }
}

/// Whether a server answers at all.
private final class ServerHealth: Sendable {
    private let limit: Int
    private let state = Mutex((failures: 0, reason: RewardFailure?.none))

    init(limit: Int) { self.limit = limit }

    var reason: RewardFailure? { state.withLock { $0.reason } }

    func answered() { state.withLock { $0.failures = 0 } }

    func failed(_ failure: RewardFailure) {
        state.withLock { state in
            state.failures += 1
            guard state.failures >= limit, state.reason == nil else { return }
            state.reason = RewardFailure(
                failure.kind, "not asked: the judge failed \(state.failures) times in a row; \(failure.message)")
        }
    }
}

extension TimeAmount {
    init(_ duration: Duration) { self = .nanoseconds(Int64(min(duration / .nanoseconds(1), 9e18))) }
}

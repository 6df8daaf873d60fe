import Foundation
import Testing

@testable import Rewards

@Suite struct JudgeRewardTests {
    static let pattern = #"[Ss]core: *(-?[0-9]+(?:\.[0-9]+)?)"#

    private func configuration(_ url: String) -> JudgeConfiguration {
        var judge = JudgeConfiguration(
            url: url, model: "m", prompt: "Q {prompt} A {response} T {ground_truth} {other}",
            scorePattern: Self.pattern)
        judge.firstWait = .milliseconds(1)
        return judge
    }

    private func items(_ count: Int) -> [RewardRequest] {
        (0..<count).map { RewardRequest(id: $0, prompt: "p\($0)", response: "r\($0)", groundTruth: "g\($0)") }
    }

    /// Scores items with a judge on a server that answers as the script says.
    private func score(
        _ count: Int, _ change: (inout JudgeConfiguration) -> Void = { _ in }, _ script: @escaping JudgeServer.Script
    ) async throws -> (outcomes: [RewardOutcome], server: JudgeServer) {
        try await JudgeServer.with(script) { server in
            var settings = configuration(server.url)
            change(&settings)
            let judge = try JudgeReward(settings)
            let outcomes = await judge.score(items(count))
            await judge.shutdown()
            return (outcomes, server)
        }
    }

    // MARK: - What is asked and read

    /// An answer that names another part is not filled in.
    @Test func partsAreFilledInOnce() throws {
        let dialogue = try JudgeDialogue(configuration("http://x"))
        let item = RewardRequest(id: 0, prompt: "{response}", response: "{ground_truth}{", groundTruth: "7")
        #expect(dialogue.question(item) == "Q {response} A {ground_truth}{ T 7 {other}")
    }

    @Test(arguments: [
        ("Score: 7", 0.7), ("score:10 and then\nScore: 2.5", 0.25), ("Because. Score:0", 0), ("Score: 10.", 1),
    ])
    func theLastGradeCounts(text: String, score: Double) async throws {
        let (outcomes, _) = try await self.score(1) { _, _ in .say(text) }
        #expect(outcomes == [.scored(score)])
    }

    @Test func itemsAreAskedAndScoresStandInTheirOrder() async throws {
        let (outcomes, server) = try await score(
            40,
            {
                $0.system = "be fair"
                $0.key = .init("secret-key")
                $0.concurrency = 8
            }
        ) { _, asked in
            let number = asked.body.split(separator: "A r").last?.prefix { $0.isNumber } ?? ""
            return .say("Score: \((Int(number) ?? -1) % 10)")
        }
        #expect(outcomes == (0..<40).map { .scored(Double($0 % 10) / 10) })
        #expect(server.asked.count == 40 && server.most <= 8)
        let asked = try #require(server.asked.first)
        #expect(asked.path == "/v1/chat/completions" && asked.headers["authorization"] == "Bearer secret-key")
        #expect(asked.body.contains("be fair") && asked.body.contains("\"model\":\"m\""))
    }

    /// As many as may be are under way at the same time: fewer would wait for ever here.
    @Test func requestsAreUnderWayTogether() async throws {
        let (outcomes, server) = try await score(12, { $0.concurrency = 6 }) { _, _ in .together(6, "Score: 5") }
        #expect(outcomes == Array(repeating: .scored(0.5), count: 12))
        #expect(server.most == 6)
    }

    // MARK: - Faults

    @Test(arguments: [429, 500, 503]) func statusesThatPassAreTriedAgain(status: Int) async throws {
        let (outcomes, server) = try await score(1) { number, _ in
            number < 3 ? .status(status, headers: [("retry-after", "0")]) : .say("Score: 5")
        }
        #expect(outcomes == [.scored(0.5)] && server.asked.count == 4)
    }

    @Test(arguments: [400, 401, 404, 307]) func otherStatusesAreNot(status: Int) async throws {
        let (outcomes, server) = try await score(1) { _, _ in
            .status(status, headers: [("location", "http://localhost:1/")], body: "no such model")
        }
        #expect(outcomes[0].failure?.kind == .unavailable && server.asked.count == 1)
        #expect(outcomes[0].failure?.message.contains("\(status)") == true)
    }

    @Test(arguments: ["not json", "{}", #"{"choices": []}"#, #"{"choices": [{"message": {"content": null}}]}"#])
    func whatIsNoCompletionIsGarbage(body: String) async throws {
        let (outcomes, _) = try await score(1) { _, _ in .bytes(Array(body.utf8)) }
        #expect(outcomes[0].failure?.kind == .garbage)
    }

    @Test(arguments: ["I like it.", "Score: high", "Score: 11", "Score: -1", ""])
    func whatIsNoGradeIsGarbageAndNoZero(text: String) async throws {
        let (outcomes, server) = try await score(1) { _, _ in .say(text) }
        #expect(outcomes[0].failure?.kind == .garbage && server.asked.count == 1)
    }

    @Test func anAnswerWithoutEndIsCutOff() async throws {
        let (outcomes, _) = try await score(1, { $0.answerBytes = 1000 }) { _, _ in
            .bytes([UInt8](repeating: 32, count: 5000))
        }
        #expect(outcomes[0].failure?.kind == .garbage)
    }

    /// Nothing at all, or a head without a body: only those items fail.
    @Test func aServerThatHangsCostsItsItemsOnly() async throws {
        let (outcomes, _) = try await score(
            6,
            {
                $0.timeout = .milliseconds(500)
                $0.retries = 0
            }
        ) { _, asked in
            asked.body.contains("A r1 ") ? .hang : asked.body.contains("A r4 ") ? .stall : .say("Score: 5")
        }
        for index in [1, 4] { #expect(outcomes[index].failure?.kind == .timedOut, "\(outcomes[index])") }
        for index in [0, 2, 3, 5] { #expect(outcomes[index] == .scored(0.5)) }
    }

    @Test func aServerThatIsBackIsAsked() async throws {
        let (outcomes, _) = try await score(4, { $0.concurrency = 1 }) { number, _ in
            number < 2 ? .close : .say("Score: 5")
        }
        #expect(outcomes == Array(repeating: .scored(0.5), count: 4))
    }

    /// Each item would try for long; what comes after the first ones that failed is not asked.
    @Test func aServerThatIsDownFailsTheBatchSoon() async throws {
        let (outcomes, server) = try await score(
            200,
            {
                $0.concurrency = 4
                $0.retries = 2
            }
        ) { _, _ in .status(503) }
        #expect(outcomes.allSatisfy { $0.failure?.kind == .unavailable })
        #expect(server.asked.count < 60, "\(server.asked.count)")
        #expect(outcomes.last?.failure?.message.contains("not asked") == true)
    }

    @Test func noServerIsAFailureOfItsKind() async throws {
        let port = try await JudgeServer.with({ _, _ in .hang }) { $0.port }
        var settings = configuration("http://127.0.0.1:\(port)/v1")
        settings.timeout = .milliseconds(500)
        settings.retries = 1
        let judge = try JudgeReward(settings)
        let outcomes = await judge.score(items(3))
        await judge.shutdown()
        #expect(outcomes.allSatisfy { [.unavailable, .timedOut].contains($0.failure?.kind) }, "\(outcomes)")
    }

    @Test func aRunThatIsStoppedDoesNotWait() async throws {
        try await JudgeServer.with({ _, _ in .hang }) { server in
            let judge = try JudgeReward(configuration(server.url))
            let work = Task { await judge.score(items(3)) }
            while server.asked.isEmpty { try await Task.sleep(for: .milliseconds(2)) }
            work.cancel()
            let outcomes = await work.value
            await judge.shutdown()
            #expect(outcomes.allSatisfy { $0.failure?.kind == .cancelled }, "\(outcomes)")
        }
    }

    // MARK: - Keys and certificates

    @Test func theKeyShowsNowhere() {
        var settings = configuration("http://x")
        settings.key = .init("hunter2")
        var text = "\(settings) \(String(reflecting: settings)) "
        dump(settings, to: &text)
        #expect(!text.contains("hunter2"))
    }

    @Test func strangersCertificatesAreRefused() async throws {
        let pem = (certificate: TestCertificate.certificate, key: TestCertificate.key)
        let file = FileManager.default.temporaryDirectory.appending(path: "fledge-\(UUID().uuidString).pem")
        try Data(pem.certificate.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        try await JudgeServer.with(tls: pem, { _, _ in .say("Score: 5") }) { server in
            var settings = configuration(server.url)
            settings.retries = 0
            settings.timeout = .seconds(5)
            let wary = try JudgeReward(settings)
            let refused = await wary.score(items(1))
            await wary.shutdown()
            #expect(refused[0].failure != nil && server.asked.isEmpty)
            settings.caFile = file.path
            settings.timeout = .seconds(60)
            let trusting = try JudgeReward(settings)
            let scored = await trusting.score(items(1))
            await trusting.shutdown()
            #expect(scored == [.scored(0.5)])
        }
    }

    @Test func whatCannotBeAskedIsRefusedAtOnce() {
        let changes: [(inout JudgeConfiguration) -> Void] = [
            { $0.url = "ftp://x" }, { $0.url = "x" }, { $0.url = "http://user:pass@x/v1" },
            { $0.scorePattern = "no group" }, { $0.scorePattern = "(" }, { $0.key = .init("with\nbreak") },
            { $0.concurrency = 0 }, { $0.caFile = "/nowhere.pem" },
        ]
        for (index, change) in changes.enumerated() {
            var settings = configuration("http://x")
            change(&settings)
            #expect(throws: RewardError.self, "change \(index)") { _ = try JudgeReward(settings) }
        }
    }
}

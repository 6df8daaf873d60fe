import OrderedCollections
import Rewards
import Testing

private func request(_ response: String, _ groundTruth: String) -> RewardRequest {
    RewardRequest(id: 0, response: response, groundTruth: groundTruth)
}

@Suite struct MatchRewardTests {
    @Test(arguments: [
        (" 42\n", "42", true), ("42.", "42", false), ("Paris", "paris", false), ("e\u{301}", "\u{E9}", false),
        ("", "", true),
    ])
    func exactMatch(response: String, truth: String, isRight: Bool) {
        #expect(ExactMatchReward().score(request(response, truth)) == .scored(isRight ? 1 : 0))
    }

    @Test func exactMatchOptions() {
        #expect(ExactMatchReward(trimsWhitespace: false).score(request(" a", "a")).score == 0)
        #expect(ExactMatchReward(trimsFinalPeriod: true).score(request("a. ", "a")).score == 1)
        #expect(ExactMatchReward(trimsFinalPeriod: true).score(request("a..", "a")).score == 0)
        #expect(ExactMatchReward(ignoresCase: true).score(request("ÀB", "àb")).score == 1)
    }

    @Test(arguments: [
        ("42", "42"), ("042", "42"), ("42.0", "42"), ("1,234,567", "1234567"), ("-3", "-3"), ("\u{2212}3", "-3"),
        ("0.50", "1/2"), (".5", "0.5"), ("2/4", "0.5"), ("1e3", "1000"), ("2.5E-1", "1/4"), ("-0", "0"), ("$7", "7"),
        ("7%", "7"), ("7.", "7"), ("(7)", "7"), ("x=7", "7"), ("=-7", "-7"), ("7kg", "7"), ("**7**", "7"),
        ("100000000000000000000000000000000000001", "100000000000000000000000000000000000001"),
        ("0.1", "0.10000000000000000000000000000000000000"),
    ])
    func oneNumberIsFound(response: String, truth: String) {
        for which in NumberMatchReward.Which.allCases {
            #expect(NumberMatchReward(which).score(request(response, truth)).score == 1, "\(which)")
        }
    }

    @Test(arguments: [
        ("", "0"), ("seven", "7"), ("GPT4", "4"), ("1.2.3", "1.2"), ("3/4/2025", "3"), ("7", "-7"), ("1/0", "1"),
        ("1,23", "123"), ("1,2345", "12345"), ("1e9999999999", "1"), ("0.1", "0.1000000000000000000000000001"),
        ("100000000000000000000000000000000000001", "100000000000000000000000000000000000002"), ("1 000", "1000"),
    ])
    func noSuchNumberIsFound(response: String, truth: String) {
        #expect(NumberMatchReward(.first).score(request(response, truth)).score == 0)
    }

    @Test(arguments: [
        (NumberMatchReward.Which.first, "3", 1.0), (.last, "3", 0), (.any, "3", 1), (.only, "3", 0), (.first, "7", 0),
        (.last, "7", 1), (.any, "4", 1), (.first, "-4", 0), (.any, "-4", 0),
    ])
    func theRightOneOfSeveralCounts(which: NumberMatchReward.Which, truth: String, score: Double) {
        #expect(NumberMatchReward(which).score(request("3-4, then 3 - 4 and 7", truth)).score == score)
    }

    @Test func theMarkerSaysWhereTheAnswerIs() {
        let reward = NumberMatchReward(.first, after: "####")
        #expect(reward.score(request("1 #### 2 #### 3 4", "3")).score == 1)
        #expect(reward.score(request("3", "3")).score == 0)
        #expect(reward.score(request("", "3")).score == 0)
    }

    @Test func aGroundTruthThatIsNoNumberIsAFailure() throws {
        #expect(NumberMatchReward().score(request("3", "three")).failure?.kind == .garbage)
        #expect(try BareNumberReward().score(request("3", "")).failure?.kind == .garbage)
    }

    @Test func manyDigitsAreBounded() {
        let long = String(repeating: "9", count: 1_000_000)
        #expect(NumberMatchReward(.any).score(request(long, "9")).score == 0)
        #expect(NumberMatchReward(.any).score(request("\(long) 9", "9")).score == 1)
    }
}

@Suite struct BareNumberRewardTests {
    private func score(_ response: String, _ truth: String = "12") throws -> Double {
        try #require(BareNumberReward().score(request(response, truth)).score)
    }

    @Test func answersOnTheWayAreRanked() throws {
        let ranked = [
            "12", "12.", "12 is it", "The answer is 12.", "The answer is 12, because six and six make that much.",
            "The answer is not clear to me, and I would not dare to guess it.",
        ]
        let scores = try ranked.map { try score($0) }
        #expect(scores == scores.sorted(by: >))
        #expect(Set(scores).count == scores.count)
        #expect(scores[0] == 1)
        #expect(scores.dropFirst().allSatisfy { $0 <= 0.8 })
    }

    @Test func wrongAnswersGetLessThanRightOnes() throws {
        // A bare number near the right one is worth more than a talk that contains it: the form comes first.
        #expect(try score("13") > score("13 or 12"))
        #expect(try score("13") > score("20"))
        #expect(try score("20") > score("the answer is 20"))
        #expect(try score("13 or 12") > score("13 or 14"))
        #expect(try score("13") > score("thirteen"))
        #expect(try score("13") > score("I think it is 13"))
        #expect(try score("") == 0)
        #expect(try score(" 12\n") == 1)
        #expect(try score("-12") < 0.5)
        #expect(try score("-12", "-12") == 1)
    }

    @Test func detailsTellWhatWasRight() throws {
        let outcome = try BareNumberReward().score(request("12 it is", "12"))
        guard case .scored(_, let details) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(details == ["exact": 0, "contains": 1, "begins": 1])
    }

    @Test func weightsAreParameters() throws {
        var weights = BareNumberReward.Weights()
        (weights.number, weights.closeness) = (0, 0)
        (weights.contains, weights.begins, weights.bare, weights.brevity, weights.rightBrevity) = (0.5, 0, 0, 0, 0)
        #expect(try BareNumberReward(weights).score(request("it is 12", "12")).score == 0.5)
        weights.brevityScale = 0
        #expect(throws: RewardError.self) { try BareNumberReward(weights) }
        weights.brevityScale = 1
        weights.maximumPartial = 1
        #expect(throws: RewardError.self) { try BareNumberReward(weights) }
    }
}

@Suite struct FormRewardTests {
    @Test func regex() throws {
        #expect(try RegexReward("\\d+").score(request("a 1", "")).score == 1)
        #expect(try RegexReward("\\d+").score(request("a", "")).score == 0)
        #expect(try RegexReward("\\d+", matchesWhole: true).score(request(" 12\n", "")).score == 1)
        #expect(try RegexReward("\\d+", matchesWhole: true).score(request("a 12", "")).score == 0)
        let boxed = try RegexReward("\\\\boxed\\{([^}]*)\\}", group: 1)
        #expect(boxed.score(request("so \\boxed{ 42 }.", "42")).score == 1)
        #expect(boxed.score(request("so \\boxed{43}.", "42")).score == 0)
        #expect(throws: RewardError.self) { try RegexReward("a", group: 1) }
        let heavy = try RegexReward("(a{1000}){10}b")
        #expect(heavy.score(request(String(repeating: "a", count: 100_000), "")).failure?.kind == .timedOut)
    }

    @Test(arguments: [
        ("<think>a</think><answer>b</answer>", 1.0), (" <think>\na\n</think>\n\n<answer> b </answer>\n", 1),
        ("<think></think><answer>b</answer>", 0.5), ("<think> </think><answer>b</answer>", 0.5),
        ("x<think>a</think><answer>b</answer>", 0.5), ("<think>a</think>x<answer>b</answer>", 0.5),
        ("<think>a</think><answer>b</answer>x", 0.5), ("<answer>b</answer><think>a</think>", 0.5),
        ("<think>a<answer>b</think></answer>", 0.5), ("<think>a</think>", 0.25),
        ("<think>a</think><think>a</think><answer>b</answer>", 0.25), ("", 0), ("b", 0),
    ])
    func format(response: String, score: Double) throws {
        #expect(try FormatReward(partial: 0.5).score(request(response, "")).score == score)
        #expect(try FormatReward().score(request(response, "")).score == (score == 1 ? 1 : 0))
    }

    @Test(arguments: [[], ["a", "a"], [""], ["a b"], ["<a>"]]) func badTagsAreErrors(tags: [String]) {
        #expect(throws: RewardError.self) { try FormatReward(tags: tags) }
    }
}

@Suite struct RewardRegistryTests {
    @Test func everyBuiltInRewardCanBeMadeByItsName() throws {
        for entry in RewardRegistry.builtIn.entries {
            let options: OrderedDictionary = entry.name == "regex" ? ["pattern": "a"] : [:]
            _ = try RewardRegistry.builtIn.make(entry.name, options: options)
        }
    }

    @Test func settingsArrive() async throws {
        func score(_ name: String, _ options: OrderedDictionary<String, String>, _ response: String) async throws
            -> Double?
        {
            await (try RewardRegistry.builtIn.make(name, options: options)).score([request(response, "5")])[0].score
        }
        #expect(try await score("number_match", ["which": "first"], "5 6") == 1)
        #expect(try await score("number_match", [:], "5 6") == 0)
        #expect(try await score("exact_match", ["trim_final_period": "true"], "5.") == 1)
        #expect(try await score("bare_number", ["exact": "3"], "5") == 3)
        #expect(try await score("regex", ["pattern": "(.)x", "group": "1"], "5x") == 1)
        #expect(try await score("format", ["tags": "a, b"], "<a>1</a><b>2</b>") == 1)
    }

    @Test(
        arguments: [
            ("no_such", [:], "known are exact_match"), ("exact_match", ["trim": "true"], "has no setting 'trim'"),
            ("exact_match", ["ignore_case": "maybe"], "true or false"),
            ("number_match", ["which": "2nd"], "first, last"),
            ("bare_number", ["exact": "nan"], "a finite number"),
            ("bare_number", ["maximum_partial": "1"], "below exact"),
            ("regex", [:], "needs a pattern"), ("regex", ["pattern": "("], "')' is missing"),
            ("regex", ["pattern": "a", "group": "x"], "an integer"),
            ("regex", ["pattern": "a", "group": "-2"], "group -2"),
        ] as [(String, OrderedDictionary<String, String>, String)])
    func badSettingsAreNamed(name: String, options: OrderedDictionary<String, String>, message: String) throws {
        let error = try #require(throws: RewardError.self) { try RewardRegistry.builtIn.make(name, options: options) }
        #expect(error.message.contains(message), "\(error.message)")
    }
}

import OrderedCollections
import Rewards
import Testing

@Suite struct RewardOutcomeTests {
    private let died = RewardFailure(.workerDied, "gone")
    private var outcomes: [RewardOutcome] { [.scored(1), .failed(died), .scored(0.5), .scored(0)] }

    @Test func policies() throws {
        let groups = [0, 0, 1, 1]
        #expect(try RewardFailurePolicy.dropSample.resolve(outcomes, groups: groups) == [1, nil, 0.5, 0])
        #expect(try RewardFailurePolicy.dropGroup.resolve(outcomes, groups: groups) == [nil, nil, 0.5, 0])
        #expect(try RewardFailurePolicy.scoreAs(-1).resolve(outcomes, groups: groups) == [1, -1, 0.5, 0])
        let error = try #require(throws: RewardError.self) {
            try RewardFailurePolicy.abort.resolve(outcomes, groups: groups)
        }
        #expect(error.message == "1 of 4 rewards failed, the first: worker_died: gone")
        #expect(try RewardFailurePolicy.abort.resolve([.scored(1)], groups: [0]) == [1])
    }

    @Test func cancellationIsNoFailureToSettle() {
        let cancelled = [RewardOutcome.scored(1), .failed(RewardFailure(.cancelled, ""))]
        for policy in [RewardFailurePolicy.dropSample, .dropGroup, .abort, .scoreAs(0)] {
            #expect(throws: CancellationError.self) { try policy.resolve(cancelled, groups: [0, 1]) }
        }
    }

    @Test func statisticsCountFailuresApart() {
        var statistics = RewardStatistics(outcomes)
        #expect(statistics.scored == 3)
        #expect(statistics.failed == 1)
        #expect(statistics.failures == [.workerDied: 1])
        #expect(statistics.examples == [.workerDied: "gone"])
        #expect(statistics.mean == 0.5)
        #expect(statistics.minimum == 0)
        #expect(statistics.maximum == 1)
        statistics.add(.scored(2, details: ["a": 1, "b": 0]))
        statistics.add(.scored(2, details: ["a": 2]))
        #expect(statistics.detailMeans == ["a": 1.5, "b": 0])
        #expect(RewardStatistics([.failed(died)]).mean == nil)
    }

    @Test(arguments: [Double.nan, .infinity, -.infinity]) func aNumberThatIsNoneIsAFailure(score: Double) {
        #expect(RewardOutcome.checked(score).failure?.kind == .nonFinite)
    }

    @Test func weightedSums() async throws {
        struct Fixed: ItemReward {
            let outcomes: [RewardOutcome]
            func score(_ item: RewardRequest) -> RewardOutcome { outcomes[item.id] }
        }
        let reward = try WeightedReward([
            .init(
                "a", weight: 2,
                Fixed(outcomes: [.scored(1, details: ["x": 3]), .scored(1), .scored(.greatestFiniteMagnitude)])),
            .init("b", weight: -1, Fixed(outcomes: [.scored(0.5), .failed(died), .scored(0)])),
        ])
        let outcomes = await reward.score(items(["", "", ""]))
        #expect(outcomes[0] == .scored(1.5, details: ["a": 1, "a/x": 3, "b": 0.5]))
        #expect(outcomes[1] == .failed(RewardFailure(.workerDied, "b: gone")))
        #expect(outcomes[2].failure?.kind == .nonFinite)
        #expect(throws: RewardError.self) { try WeightedReward([]) }
        #expect(throws: RewardError.self) { try WeightedReward([reward.parts[0], reward.parts[0]]) }
        #expect(throws: RewardError.self) { try WeightedReward([.init("a", weight: .nan, ExactMatchReward())]) }
    }
}

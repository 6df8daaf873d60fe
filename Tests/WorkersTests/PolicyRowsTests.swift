import Flow
import Foundation
import Testing

@testable import Workers

@Suite struct PolicyRowsTests {
    /// As a worker in another process gets it.
    private func roundTrip<Call: WorkerCall>(_ call: Call) throws -> Call {
        try CallCoder.decode(Call.self, from: CallCoder.encode(call))
    }

    @Test func rowsArriveBitForBit() throws {
        let rows: [[Float]] = [[], [.nan, -.infinity, 1.1754944e-38], [-0.0]]
        let packed = try JSONDecoder().decode(PackedRows<Float>.self, from: JSONEncoder().encode(PackedRows(rows)))
        #expect(packed.rows.map { $0.map(\.bitPattern) } == rows.map { $0.map(\.bitPattern) })
    }

    @Test func trainingRowsKeepWhatTrainingNeeds() throws {
        var first = Trajectory(
            prompt: PromptTask(group: 3, tokens: [1, 2], text: "two", dataSource: "d", groundTruth: "2"),
            response: [7, 8, 9], text: "x", rolloutLogProbs: [-1, -2, -3], isTruncated: true, weightVersion: 4,
            weightDigest: "ab")
        first.advantages = [0.5, 0.5, 0.5]
        var second = first
        second.prompt.group = 4
        second.response = []
        second.rolloutLogProbs = []
        second.advantages = []
        first.responseMask = [true, false, true]
        first.values = [3, 2, 1]
        second.values = []
        let update = try roundTrip(UpdateModel(model: .critic, rows: TrainingRows([first, second]), seed: .max))
        #expect(update.seed == .max)
        let found = update.rows.trajectories
        #expect(found[0].responseMask == [true, false, true] && found.map(\.values) == [[3, 2, 1], []])
        #expect(found.map(\.prompt.group) == [3, 4] && found.map(\.prompt.tokens) == [[1, 2], [1, 2]])
        #expect(found.map(\.response) == [[7, 8, 9], []] && found[0].advantages == first.advantages)
        #expect(found[0].rolloutLogProbs == first.rolloutLogProbs && found[0].oldLogProbs == nil)
        first.oldLogProbs = [1, 2, 3]
        second.oldLogProbs = []
        #expect(TrainingRows([first, second]).trajectories.map(\.oldLogProbs) == [[1, 2, 3], []])
    }

    @Test func generationRequestsKeepTheirSettings() throws {
        let settings = RolloutRequestSettings(
            n: 3, temperature: 0.7, topK: 5, maxTokens: 9, seed: 0x9E37_79B9_7F4A_7C15)
        let prompt = PromptTask(group: 0, tokens: [5, 6], text: "", dataSource: "", groundTruth: "")
        let request = try roundTrip(GenerateShare(request: GenerationRequest([prompt], settings))).request
        #expect(request.settings == settings && request.prompts.rows == [[5, 6]])
    }
}

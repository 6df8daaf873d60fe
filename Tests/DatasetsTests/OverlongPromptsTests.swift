import Datasets
import Testing

@Suite struct OverlongPromptsTests {
    private let rows = PromptList(
        [3, 9, 5, 12].enumerated().map { index, length in
            PromptRow(
                dataSource: "t", prompt: .text(String(repeating: "x", count: length)), groundTruth: .null,
                origin: RowOrigin(source: "t", line: index + 1))
        })

    private func length(_ row: PromptRow) -> Int {
        guard case .text(let text) = row.prompt else { return 0 }
        return text.utf8.count
    }

    @Test func filterCountsWhatItLeavesOut() throws {
        let filtered = try OverlongPrompts(.filter, maximumTokens: 5).filter(rows, tokenCount: length)
        #expect(filtered.source.indices == [0, 2])
        #expect(filtered.dropped.map(\.line) == [2, 4])
        #expect(filtered.longest == 12)
    }

    @Test func nothingLeftIsAnError() throws {
        let error = try #require(throws: DatasetError.self) {
            try OverlongPrompts(.filter, maximumTokens: 2).filter(rows, tokenCount: length)
        }
        #expect(error.code == .empty)
        #expect(error.message.contains("the longest has 12"))
    }

    @Test func errorNamesTheRow() throws {
        let error = try #require(throws: DatasetError.self) {
            try OverlongPrompts(.error, maximumTokens: 5).filter(rows, tokenCount: length)
        }
        #expect(error.code == .promptTooLong)
        #expect(error.origin?.line == 2)
        #expect(throws: DatasetError.self) { try OverlongPrompts(.error, maximumTokens: 2).fit([1, 2, 3]) }
    }

    @Test(arguments: [
        (OverlongPrompts.Side.left, 4, [6, 7, 8, 9]), (.right, 4, [1, 2, 3, 4]), (.middle, 4, [1, 2, 8, 9]),
        (.middle, 5, [1, 2, 7, 8, 9]), (.middle, 1, [9]), (.left, 9, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ])
    func truncatesAsVerlDoes(side: OverlongPrompts.Side, maximum: Int, kept: [Int]) throws {
        #expect(try OverlongPrompts(.truncate(side), maximumTokens: maximum).fit(Array(1...9)) == kept)
    }

    @Test func truncationKeepsAllRows() throws {
        let policy = OverlongPrompts(.truncate(.left), maximumTokens: 5)
        #expect(try policy.filter(rows, tokenCount: length).source.count == 4)
    }

    @Test func aLimitUnderOneIsAnError() {
        #expect(throws: DatasetError.self) { try OverlongPrompts(.truncate(.left), maximumTokens: 0).fit([1]) }
    }
}

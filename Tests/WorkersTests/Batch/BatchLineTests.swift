import Datasets
import Testing

@testable import Workers

/// What a line of a batch may say, without a tokenizer.
@Suite struct BatchLineTests {
    private func read(_ text: String, _ change: (inout BatchSettings) -> Void = { _ in }) throws -> BatchLine {
        var settings = BatchSettings(input: "", output: "")
        settings.sampling.temperature = 1
        settings.sampling.n = 4
        settings.sampling.seed = 3
        change(&settings)
        guard case .object(let object) = try JSONParser.parse(text) else { throw BatchProblem(nil, "no object", "") }
        return try BatchLine(object, index: 7, settings: settings)
    }

    @Test func aLinesOwnSettingsWin() throws {
        let plain = try read(#"{"prompt": "a", "top_k": null}"#)
        #expect(plain.sampling.n == 4 && plain.sampling.temperature == 1 && plain.sampling.topK == 0)
        #expect(plain.sampling.seed == BatchSampling.seed(run: 3, index: 7))
        let own = try read(
            #"""
            {"prompt": "a", "n": 2, "temperature": 0.25, "top_k": 5, "top_p": 0.9, "min_p": 1e-2, "max_tokens": 12,
             "stop": "x", "stop_token_ids": [1, 2], "ignore_eos": true, "seed": 18446744073709551615}
            """#
        ).sampling
        #expect(own.n == 2 && own.temperature == 0.25 && own.topK == 5 && own.topP == 0.9 && own.minP == 0.01)
        #expect(own.maxTokens == 12 && own.stop == ["x"] && own.stopTokenIDs == [1, 2] && own.ignoresEndOfTurn)
        #expect(own.seed == .max)
    }

    /// Every line of a run draws from a seed of its own that other readers of JSON keep whole.
    @Test func seedsAreApartAndShort() {
        let seeds = (0..<1000).map { BatchSampling.seed(run: 1, index: $0) }
        #expect(Set(seeds).count == 1000)
        #expect(seeds.allSatisfy { $0 < 1 << 53 })
        #expect(BatchSampling.seed(run: 2, index: 0) != seeds[0])
    }
}

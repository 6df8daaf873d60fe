import Datasets
import RolloutCore
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
             "stop": "x", "stop_token_ids": [1, 2], "ignore_eos": true, "seed": 18446744073709551615,
             "repetition_penalty": 1.25, "presence_penalty": -2, "frequency_penalty": 0.5, "min_tokens": 3,
             "logit_bias": {"7": -100, "12": 1.5}}
            """#
        ).sampling
        #expect(own.n == 2 && own.temperature == 0.25 && own.topK == 5 && own.topP == 0.9 && own.minP == 0.01)
        #expect(own.maxTokens == 12 && own.stop == ["x"] && own.stopTokenIDs == [1, 2] && own.ignoresEndOfTurn)
        #expect(own.seed == .max)
        #expect(own.repetitionPenalty == 1.25 && own.presencePenalty == -2 && own.frequencyPenalty == 0.5)
        #expect(own.minTokens == 3 && own.logitBias == [7: -100, 12: 1.5])
        // All of it reaches the engine.
        let parameters = own.parameters(endingAt: [9])
        #expect(parameters.n == 2 && parameters.temperature == 0.25 && parameters.topK == 5 && parameters.topP == 0.9)
        #expect(parameters.minP == 0.01 && parameters.maxTokens == 12 && parameters.minTokens == 3)
        #expect(parameters.repetitionPenalty == 1.25 && parameters.presencePenalty == -2)
        #expect(parameters.frequencyPenalty == 0.5 && parameters.logitBias == [7: -100, 12: 1.5])
        #expect(parameters.stop == ["x"] && parameters.stopTokenIDs == [1, 2, 9] && parameters.seed == .max)
    }

    @Test(arguments: [
        (#""repetition_penalty": 0"#, "'repetition_penalty' is 0.0; give a positive number"),
        (#""repetition_penalty": "high""#, "'repetition_penalty' is \"high\"; give a number"),
        (#""presence_penalty": 2.5"#, "'presence_penalty' is 2.5; give a number from -2 to 2"),
        (#""frequency_penalty": -3"#, "'frequency_penalty' is -3.0; give a number from -2 to 2"),
        (#""min_tokens": -1"#, "'min_tokens' is -1; give an integer from 0"),
        (#""min_tokens": 9, "max_tokens": 8"#, "'min_tokens' is 9; give 0 to max_tokens, which is 8"),
        (#""logit_bias": [1]"#, "'logit_bias' is a list; give an object of numbers by token id"),
        (#""logit_bias": {"x": 1}"#, "'logit_bias['x']' is no token id"),
        (#""logit_bias": {"7": 1, "07": 1}"#, "'logit_bias['07']' is no token id, or there twice"),
        (#""logit_bias": {"7": null}"#, "'logit_bias['7']' is null; give a number"),
        (#""logit_bias": {"7": 1e99}"#, "'logit_bias['7']' is 1e99; give a number"),
        (#""min_p": 1.5"#, "'min_p' is 1.5; give a share"), (#""top_p": 0"#, "'top_p' is 0.0; give a share"),
        (#""stop": ["a", ""]"#, "'stop[1]' is empty; give a text"),
        (#""temperature": -1"#, "'temperature' is -1.0; give 0 (greedy)"),
        (#""bad_words": ["a"]"#, "'bad_words' is not supported yet"),
        (#""min_new_tokens": 2"#, "'min_new_tokens' is min_tokens here"),
    ])
    func badSettings(_ members: String, _ message: String) throws {
        let error = try #require(throws: BatchProblem.self) { try read("{\"prompt\": \"a\", \(members)}") }
        #expect("\(error)".hasPrefix(message), "\(error)")
    }

    /// Every line of a run draws from a seed of its own that other readers of JSON keep whole.
    @Test func seedsAreApartAndShort() {
        let seeds = (0..<1000).map { BatchSampling.seed(run: 1, index: $0) }
        #expect(Set(seeds).count == 1000)
        #expect(seeds.allSatisfy { $0 < 1 << 53 })
        #expect(BatchSampling.seed(run: 2, index: 0) != seeds[0])
    }
}

import RolloutCore
import Testing

@Suite struct SamplingParametersTests {
    /// The formulas, written out: what a row's logits become.
    private func adjusted(
        _ logits: [Float], _ s: SamplingParameters, prompt: [Int32], generated: [Int32]
    ) -> [Float] {
        logits.enumerated().map { index, logit in
            let token = Int32(index), count = generated.count { $0 == token }
            var x = logit
            if prompt.contains(token) || count > 0 {
                x = x > 0 ? x / Float(s.repetitionPenalty) : x * Float(s.repetitionPenalty)
            }
            x -= Float(s.frequencyPenalty) * Float(count)
            if count > 0 { x -= Float(s.presencePenalty) }
            x += s.logitBias[token] ?? 0
            if generated.count < s.minTokens, !s.ignoreEOS, s.stopTokenIDs.contains(token) { x = -.infinity }
            return x
        }
    }

    private func apply(_ list: LogitAdjustmentList, to logits: [Float], row: Int32) -> [Float] {
        var out = logits
        for i in 0..<list.count where list.rows[i] == row {
            let x = out[Int(list.tokens[i])]
            out[Int(list.tokens[i])] = (x > 0 ? x / list.factors[i] : x * list.factors[i]) + list.offsets[i]
        }
        return out
    }

    private static let cases: [SamplingParameters] = [
        SamplingParameters(),
        SamplingParameters(repetitionPenalty: 1.3), SamplingParameters(repetitionPenalty: 0.8),
        SamplingParameters(presencePenalty: 0.7), SamplingParameters(frequencyPenalty: -0.4),
        SamplingParameters(logitBias: [1: 5, 6: -.infinity, 9: -2.5]),
        SamplingParameters(minTokens: 3, stopTokenIDs: [2, 7]),
        SamplingParameters(minTokens: 3, stopTokenIDs: [2, 7], ignoreEOS: true),
        SamplingParameters(
            repetitionPenalty: 1.5, presencePenalty: 0.5, frequencyPenalty: 0.25, logitBias: [3: 1, 2: 4],
            minTokens: 4, stopTokenIDs: [2]),
    ]

    @Test(arguments: cases) func entriesFollowTheFormulas(sampling: SamplingParameters) {
        let prompt: [Int32] = [3, 5, 5, 8], answer: [Int32] = [1, 3, 3, 9, 1, 2]
        let logits = (0..<10).map { Float($0 % 4) - 1.5 }
        var adjuster = LogitAdjuster(sampling, prompt: prompt)
        for length in 0...answer.count {
            var list = LogitAdjustmentList()
            adjuster.append(to: &list, row: 4)
            let expected = adjusted(logits, sampling, prompt: prompt, generated: Array(answer.prefix(length)))
            for (a, b) in zip(apply(list, to: logits, row: 4), expected) { #expect(a == b || abs(a - b) < 1e-5) }
            #expect(Set(list.tokens).count == list.count, "one entry a token")
            #expect(list.isEmpty || sampling.adjustsLogits)
            if length < answer.count { adjuster.append(answer[length]) }
        }
        // Refused drafts leave no trace.
        var before = LogitAdjustmentList()
        adjuster.append(to: &before, row: 0)
        adjuster.append(6)
        adjuster.append(1)
        adjuster.removeLast(1)
        adjuster.removeLast(6)
        var after = LogitAdjustmentList()
        adjuster.append(to: &after, row: 0)
        #expect(before == after)
    }

    @Test func rowsShareAList() {
        var list = LogitAdjustmentList()
        LogitAdjuster(SamplingParameters(logitBias: [1: 2]), prompt: [0]).append(to: &list, row: 0)
        LogitAdjuster(SamplingParameters(repetitionPenalty: 2), prompt: [4, 4]).append(to: &list, row: 2)
        #expect(list.rows == [0, 2] && list.tokens == [1, 4] && list.factors == [1, 2] && list.offsets == [2, 0])
        list.removeAll()
        #expect(list.isEmpty)
    }

    @Test func onlyPenaltiesNeedTheTokens() {
        #expect(!SamplingParameters().needsTokenHistory && !SamplingParameters().adjustsLogits)
        #expect(SamplingParameters(repetitionPenalty: 1.1).needsTokenHistory)
        #expect(SamplingParameters(presencePenalty: -1).needsTokenHistory)
        #expect(SamplingParameters(frequencyPenalty: 0.1).needsTokenHistory)
        let counted = SamplingParameters(logitBias: [1: 1], minTokens: 2, stopTokenIDs: [1])
        #expect(!counted.needsTokenHistory && counted.adjustsLogits)
    }

    @Test func stopIDsEndUnlessIgnored() {
        #expect(SamplingParameters(stopTokenIDs: [7]).ends(at: 7))
        #expect(!SamplingParameters(stopTokenIDs: [7]).ends(at: 8))
        #expect(!SamplingParameters(stopTokenIDs: [7], ignoreEOS: true).ends(at: 7))
    }

    @Test(arguments: [
        (SamplingParameters(n: 0), "n is 0"), (SamplingParameters(temperature: -1), "temperature is -1"),
        (SamplingParameters(temperature: .nan), "temperature is nan"), (SamplingParameters(topP: 0), "topP is 0"),
        (SamplingParameters(topP: 1.2), "topP is 1.2"), (SamplingParameters(minP: -0.1), "minP is -0.1"),
        (SamplingParameters(repetitionPenalty: 0), "repetitionPenalty is 0"),
        (SamplingParameters(presencePenalty: 3), "presencePenalty is 3"),
        (SamplingParameters(frequencyPenalty: .nan), "frequencyPenalty is nan"),
        (SamplingParameters(logitBias: [4: .infinity]), "logitBias[4] is inf"),
        (SamplingParameters(maxTokens: 0), "maxTokens is 0"),
        (SamplingParameters(maxTokens: 4, minTokens: 5), "minTokens is 5"),
        (SamplingParameters(stop: ["a", ""]), "stop[1] is empty"), (SamplingParameters(logProbs: -1), "logProbs is -1"),
        (SamplingParameters(promptLogProbs: -2), "promptLogProbs is -2"),
        (SamplingParameters(logitBias: [100: 1]), "logitBias names token 100"),
        (SamplingParameters(stopTokenIDs: [-3]), "stopTokenIDs names token -3"),
        (SamplingParameters(logProbs: 101), "logProbs is 101"),
    ])
    func problemsAreNamed(sampling: SamplingParameters, start: String) throws {
        let problem = try #require(sampling.problem(vocabulary: 100))
        #expect(problem.hasPrefix(start))
    }

    @Test(arguments: cases) func goodOnesHaveNoProblem(sampling: SamplingParameters) {
        #expect(sampling.problem(vocabulary: 100) == nil && sampling.problem() == nil)
    }
}

extension SamplingParameters {
    /// What is wrong with these parameters: the field, its value and what it may be; nil when nothing is.
    /// - Parameter vocabulary: the model's tokens; nil: ids and counts are not held against it.
    public func problem(vocabulary: Int? = nil) -> String? {
        func says(_ name: String, _ value: some Any, _ remedy: String) -> String { "\(name) is \(value); \(remedy)" }
        if n < 1 { return says("n", n, "ask for 1 sample or more") }
        if !(temperature >= 0 && temperature.isFinite) {
            return says("temperature", temperature, "give 0 (greedy) or a positive number")
        }
        if !(topP > 0 && topP <= 1) { return says("topP", topP, "give a share above 0 and up to 1 (off)") }
        if !(minP >= 0 && minP <= 1) { return says("minP", minP, "give a share from 0 (off) to 1") }
        if !(repetitionPenalty > 0 && repetitionPenalty.isFinite) {
            return says("repetitionPenalty", repetitionPenalty, "give a positive number; 1 is off")
        }
        for (name, value) in [("presencePenalty", presencePenalty), ("frequencyPenalty", frequencyPenalty)]
        where !(abs(value) <= 2) {
            return says(name, value, "give a number from -2 to 2; 0 is off")
        }
        for (token, bias) in logitBias.sorted(by: { $0.key < $1.key }) where bias.isNaN || bias == .infinity {
            return says("logitBias[\(token)]", bias, "give a number, or minus infinity to forbid the token")
        }
        if maxTokens < 1 { return says("maxTokens", maxTokens, "allow 1 token or more") }
        if !(0...maxTokens).contains(minTokens) {
            return says("minTokens", minTokens, "give 0 to maxTokens, which is \(maxTokens)")
        }
        if let index = stop.firstIndex(of: "") { return says("stop[\(index)]", "empty", "give a text or leave it out") }
        if logProbs < 0 { return says("logProbs", logProbs, "give how many alternatives to report; 0 is none") }
        if let count = promptLogProbs, count < 0 {
            return says("promptLogProbs", count, "give how many alternatives to report, 0 for none, or leave it out")
        }
        return vocabulary.flatMap(problem(in:))
    }

    private func problem(in vocabulary: Int) -> String? {
        for (name, ids) in [("logitBias", Array(logitBias.keys)), ("stopTokenIDs", Array(stopTokenIDs))] {
            if let bad = ids.sorted().first(where: { $0 < 0 || Int($0) >= vocabulary }) {
                return "\(name) names token \(bad); the model's are 0 to \(vocabulary - 1)"
            }
        }
        for (name, count) in [("logProbs", logProbs), ("promptLogProbs", promptLogProbs ?? 0)]
        where count > vocabulary {
            return "\(name) is \(count); the model has \(vocabulary) tokens"
        }
        if logitBias.count(where: { $0.value == -.infinity }) >= vocabulary {
            return "logitBias forbids all \(vocabulary) tokens; leave one"
        }
        return nil
    }
}

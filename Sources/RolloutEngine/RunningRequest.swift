import RolloutCore

/// What is known of one request's samples while they are on their way.
struct RunningRequest {
    struct Sample {
        var tokens: [Int32] = []
        var logProbs: [Float] = []
        var versions: [Int32] = []
        var detokenize: ((Int32) -> String)?
        var text = ""
        var adjuster: LogitAdjuster?
        var top: [[TokenLogProb]] = []
        var isFinished = false
    }

    let sampling: SamplingParameters
    let prompt: [Int32]
    var samples: [Sample]
    var unfinished: Int
    /// Of the prompt's tokens but the first, where they are asked for.
    var promptLogProbs: [PromptLogProb] = []

    init(_ request: RolloutRequest, makeDetokenizer: (() -> (Int32) -> String)?) {
        sampling = request.sampling
        prompt = request.prompt
        let wantsText = !request.sampling.stop.isEmpty
        let adjuster = sampling.adjustsLogits ? LogitAdjuster(sampling, prompt: request.prompt) : nil
        samples = (0..<request.sampling.n).map { _ in
            Sample(detokenize: wantsText ? makeDetokenizer?() : nil, adjuster: adjuster)
        }
        if sampling.promptLogProbs != nil {
            promptLogProbs = request.prompt.dropFirst().map { PromptLogProb(token: $0, logProb: .nan) }
        }
        unfinished = request.sampling.n
    }

    /// Adds a drawn token; gives whether a stop text has appeared.
    mutating func take(sample: Int, token: Int32, logProb: Float, version: Int) -> Bool {
        samples[sample].tokens.append(token)
        samples[sample].logProbs.append(logProb)
        samples[sample].versions.append(Int32(version))
        samples[sample].adjuster?.append(token)
        guard let detokenize = samples[sample].detokenize else { return false }
        samples[sample].text += detokenize(token)
        guard samples[sample].tokens.count >= sampling.minTokens else { return false }
        let text = samples[sample].text
        return sampling.stop.contains { text.utf8Contains($0) }
    }

    /// Takes a finished sample out.
    mutating func finish(sample: Int, _ reason: FinishReason) -> GeneratedSample {
        let taken = samples[sample]
        samples[sample] = Sample(isFinished: true)
        unfinished -= 1
        return GeneratedSample(
            tokens: taken.tokens, logProbs: taken.logProbs, finishReason: reason, weightVersions: taken.versions,
            topLogProbs: taken.top, promptLogProbs: promptLogProbs)
    }
}

extension String {
    /// Whether the bytes of `other` occur in this text's; String's own search would compare by canonical equivalence.
    fileprivate func utf8Contains(_ other: String) -> Bool {
        let needle = Array(other.utf8), hay = Array(utf8)
        guard !needle.isEmpty, hay.count >= needle.count else { return false }
        return (0...hay.count - needle.count).contains { start in
            hay[start] == needle[0] && hay[start..<start + needle.count].elementsEqual(needle)
        }
    }
}

public import TensorCore

/// One prompt and one answer to it, as token ids.
public struct TrainingSequence: Sendable, Hashable {
    public var prompt: [Int32]
    public var response: [Int32]

    public init(prompt: [Int32], response: [Int32]) {
        self.prompt = prompt
        self.response = response
    }
}

/// Sequences laid end to end without padding. What they share is there once: the tokens that every prompt begins with, and each
/// prompt itself for all its answers. The last token of an answer is left out, since nothing is predicted from it.
public struct Pack: Sendable {
    /// Token ids and their positions in their own sequences, `[T]`.
    public private(set) var ids: [Int64] = []
    public private(set) var positions: [Int64] = []
    public private(set) var segments: [PackedSegment] = []
    /// How many of the sequences go through each segment.
    public private(set) var sharers: [Int] = []
    /// For every answer token, sequence after sequence: the token itself, and the pack's token that predicts it.
    public private(set) var targets: [Int64] = []
    public private(set) var predictors: [Int64] = []
    /// Answer tokens of each sequence, in the order given.
    public private(set) var responseLengths: [Int] = []

    /// Shorter common beginnings stay where they are: a segment costs more than it saves.
    static let shortestSharedPrefix = 8

    /// - Parameter sharesPrefixes: off computes every prompt anew for each answer, with the same result.
    public init(_ sequences: [TrainingSequence], sharesPrefixes: Bool = true) {
        let common = sharesPrefixes ? Self.commonPrefix(sequences) : 0
        var root: Int?
        if common > 0 {
            append(sequences[0].prompt.prefix(common), at: 0, parent: nil)
            root = 0
            sharers[0] = sequences.count
        }
        // Where each distinct prompt ends: its last token in the pack, and its segment.
        var prompts: [[Int32]: (last: Int, segment: Int)] = [:]
        for sequence in sequences {
            let prompt: (last: Int, segment: Int)
            if sharesPrefixes, let known = prompts[sequence.prompt] {
                prompt = known
            } else {
                append(sequence.prompt.dropFirst(common), at: common, parent: root)
                prompt = (ids.count - 1, segments.count - 1)
                prompts[sequence.prompt] = prompt
                sharers[prompt.segment] = 0
            }
            sharers[prompt.segment] += 1
            responseLengths.append(sequence.response.count)
            for (index, token) in sequence.response.enumerated() {
                targets.append(Int64(token))
                predictors.append(Int64(index == 0 ? prompt.last : ids.count + index - 1))
            }
            if sequence.response.count > 1 {
                append(sequence.response.dropLast(), at: sequence.prompt.count, parent: prompt.segment)
            }
        }
    }

    private mutating func append(_ tokens: ArraySlice<Int32>, at position: Int, parent: Int?) {
        segments.append(PackedSegment(start: ids.count, length: tokens.count, parent: parent))
        sharers.append(1)
        ids += tokens.map(Int64.init)
        positions += (position..<position + tokens.count).map(Int64.init)
    }

    /// The tokens that all prompts begin with, less one so that every prompt keeps a token of its own; zero when there is only
    /// one distinct prompt or too little to share.
    static func commonPrefix(_ sequences: [TrainingSequence]) -> Int {
        guard let first = sequences.first?.prompt, sequences.contains(where: { $0.prompt != first }) else { return 0 }
        var common = first.count - 1
        for sequence in sequences {
            common = min(common, sequence.prompt.count - 1)
            var length = 0
            while length < common, sequence.prompt[length] == first[length] { length += 1 }
            common = length
        }
        return common >= shortestSharedPrefix ? common : 0
    }

    public var tokenCount: Int { ids.count }
    /// What ``sharers`` says of each token, `[T]`; together the tokens of all sequences, each alone.
    public var sharersOfTokens: [Float] {
        zip(segments, sharers).flatMap { [Float](repeating: Float($1), count: $0.length) }
    }
    public var longestResponse: Int { responseLengths.max() ?? 0 }
}

/// Splits a batch into micro-batches.
public enum MicroBatches {
    /// Indices of `sequences` in micro-batches of at most `tokenBudget` computed tokens each, keeping answers to one prompt
    /// together where they fit. A sequence longer than the budget is a micro-batch of its own.
    public static func split(
        _ sequences: [TrainingSequence], indices: [Int], tokenBudget: Int, sharesPrefixes: Bool
    ) -> [[Int]] {
        // Answers to one prompt side by side, in order of first appearance.
        var order: [[Int32]] = [], groups: [[Int32]: [Int]] = [:]
        for index in indices {
            let prompt = sequences[index].prompt
            if groups[prompt] == nil { order.append(prompt) }
            groups[prompt, default: []].append(index)
        }
        let common = sharesPrefixes ? Pack.commonPrefix(indices.map { sequences[$0] }) : 0
        var result: [[Int]] = [], current: [Int] = [], tokens = 0, lastPrompt: [Int32]?
        for prompt in order {
            for index in groups[prompt, default: []] {
                let answer = max(0, sequences[index].response.count - 1)
                let isNew = !sharesPrefixes || lastPrompt != prompt
                let cost = answer + (isNew ? prompt.count - common : 0)
                if !current.isEmpty, tokens + cost > tokenBudget {
                    result.append(current)
                    current = []
                }
                if current.isEmpty {
                    tokens = prompt.count + answer
                } else {
                    tokens += cost
                }
                current.append(index)
                lastPrompt = prompt
            }
        }
        if !current.isEmpty { result.append(current) }
        return result
    }
}

public import TensorCore

/// One prompt and one answer to it, as token ids.
public struct TrainingSequence: Sendable, Hashable {
    public var prompt: [Int32]
    public var response: [Int32]

    public init(prompt: [Int32], response: [Int32]) {
        self.prompt = prompt
        self.response = response
    }

    /// What a forward pass computes: nothing is predicted from an answer's last token.
    var computed: [Int32] { prompt + response.dropLast() }
    var computedCount: Int { prompt.count + max(0, response.count - 1) }
}

/// Sequences laid end to end without padding. What they share at their beginnings is there once: the tokens that prompts begin
/// with, each prompt for all its answers, and the turns that branches of a conversation have in common, answers of the model
/// among them. The last token of an answer is left out, since nothing is predicted from it.
///
/// Segments follow one another by depth, those of one depth by their parents, so that attention gathers nothing.
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
    /// What the head computes: an answer token that sequences share is one row.
    public private(set) var headRows = HeadRows()

    /// Rows of the head, each a predicting token of the pack and what it is to predict.
    public struct HeadRows: Sendable {
        public fileprivate(set) var predictors: [Int64] = []
        public fileprivate(set) var targets: [Int64] = []
        /// The row of every answer token, sequence after sequence.
        public fileprivate(set) var ofAnswerTokens: [Int64] = []

        /// Whether each answer token has a row of its own.
        var isOnePerToken: Bool { ofAnswerTokens.count == predictors.count }
        /// Sums of one value an answer token by row.
        func sums(_ values: [Float]) -> [Float] {
            guard !isOnePerToken else { return values }
            var sums = [Float](repeating: 0, count: predictors.count)
            for (row, value) in zip(ofAnswerTokens, values) { sums[Int(row)] += value }
            return sums
        }
    }

    /// - Parameters:
    ///   - sequences: with prompts of one token at least.
    ///   - sharesPrefixes: off computes every sequence anew, with the same result.
    public init(_ sequences: [TrainingSequence], sharesPrefixes: Bool = true) {
        precondition(sequences.allSatisfy { !$0.prompt.isEmpty }, "the first answer token needs one before it")
        let tokens = sequences.map(\.computed)
        let tree =
            sharesPrefixes
            ? PrefixTree(tokens, promptLengths: sequences.map(\.prompt.count)) : PrefixTree(apart: tokens)
        let total = tree.runs.reduce(0) { $0 + $1.length }
        ids.reserveCapacity(total)
        positions.reserveCapacity(total)
        for run in tree.runs {
            segments.append(PackedSegment(start: ids.count, length: run.length, parent: run.parent))
            ids += tokens[run.sequence][run.start..<run.end].lazy.map(Int64.init)
            positions += (Int64(run.start)..<Int64(run.end))
        }
        sharers = [Int](repeating: 0, count: segments.count)
        for (index, sequence) in sequences.enumerated() {
            responseLengths.append(sequence.response.count)
            targets += sequence.response.lazy.map(Int64.init)
            let path = tree.path(index)
            for run in path { sharers[run] += 1 }
            // The token before each answer token, where its run lies in the pack.
            let predicting = sequence.prompt.count - 1..<sequence.prompt.count + sequence.response.count - 1
            for run in path.reversed() {
                let own = predicting.clamped(to: tree.runs[run].start..<tree.runs[run].end)
                let offset = segments[run].start - tree.runs[run].start
                predictors += own.lazy.map { Int64($0 + offset) }
            }
        }
        headRows = rows()
    }

    /// All that go through a run have the same tokens in it; what follows its last one differs.
    private func rows() -> HeadRows {
        var rows = HeadRows(), rowOf = [Int64](repeating: -1, count: ids.count)
        var isLast = [Bool](repeating: false, count: ids.count)
        for segment in segments { isLast[segment.start + segment.length - 1] = true }
        rows.ofAnswerTokens.reserveCapacity(targets.count)
        for (predictor, target) in zip(predictors, targets) {
            let place = Int(predictor)
            if isLast[place] || rowOf[place] < 0 {
                rowOf[place] = Int64(rows.predictors.count)
                rows.predictors.append(predictor)
                rows.targets.append(target)
            }
            rows.ofAnswerTokens.append(rowOf[place])
        }
        return rows
    }

    public var tokenCount: Int { ids.count }
    /// Whether each token is one row of the head, in order: hidden states then are taken as they are.
    var predictsAll: Bool { headRows.predictors.elementsEqual(0..<Int64(ids.count)) }
    /// What ``sharers`` says of each token, `[T]`; together the tokens of all sequences, each alone.
    public var sharersOfTokens: [Float] {
        zip(segments, sharers).flatMap { [Float](repeating: Float($1), count: $0.length) }
    }
    public var longestResponse: Int { responseLengths.max() ?? 0 }
}

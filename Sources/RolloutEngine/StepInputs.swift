import Models
import RolloutCore
import TensorCore

/// Where the parts of one step's inputs lie in the step buffer. It depends on the counts alone, so that a captured graph finds the
/// inputs of every later step of its size.
struct StepLayout: Hashable {
    /// Tokens; of these, those that see the cache as rows of their own (chunks' tokens among them); and tokens to draw.
    let tokens, rows, draws: Int
    let ids, sources, positions, slots: Range<Int>
    let lengths, starts: Range<Int>
    /// The token whose logits each draw takes.
    let drawnFrom: Range<Int>
    /// What decides each draw; all but the top k bits of float32.
    let temperatures, uniforms, topK, topP, minP: Range<Int>
    let chunkQueries, chunkKeys, promptEnds: Range<Int>
    /// Where the blocks of all rows begin.
    let table: Int

    init(tokens: Int, rows: Int, draws: Int, chunks: Int, prompts: Int) {
        self.tokens = tokens
        self.rows = rows
        self.draws = draws
        var end = 0
        func next(_ count: Int) -> Range<Int> {
            defer { end += count }
            return end..<end + count
        }
        (ids, sources, positions, slots) = (next(tokens), next(tokens), next(tokens), next(tokens))
        (lengths, starts) = (next(rows), next(rows))
        (drawnFrom, temperatures, uniforms) = (next(draws), next(draws), next(draws))
        (topK, topP, minP) = (next(draws), next(draws), next(draws))
        (chunkQueries, chunkKeys) = (next(chunks == 0 ? 0 : chunks + 1), next(chunks == 0 ? 0 : chunks + 1))
        promptEnds = next(prompts == 0 ? 0 : prompts + 1)
        table = end
    }
}

/// One step's inputs on the host: a plan of the scheduler's in the order and the numbers that the model takes.
struct StepInputs {
    let layout: StepLayout
    /// Everything, in the layout's order.
    private(set) var words: [Int32]
    /// In the plan's order.
    let draws: [StepPlan.Draw]
    private(set) var chunkTokens = 0, longestChunk = 0, longestChunkKeys = 0, longestRow = 0
    private(set) var promptLengths: [Int] = []
    private(set) var extents: [SequenceExtent] = []
    private(set) var tableCount = 0
    /// Slots of all the keys that the chunks see, one chunk after another.
    private(set) var keySlots: [Int32] = []
    /// Each work's first token among the step's.
    private(set) var firstTokens: [Int]
    /// Whether every token decodes, and every one draws: what graphs are made of.
    let isDecode: Bool
    /// Whether an id is one that the step before draws.
    private(set) var readsDrawn = false
    /// Whether a draw leaves out tokens of the vocabulary.
    private(set) var isFiltered = false

    /// - Parameters:
    ///   - sampling: what decides each draw.
    ///   - padding: rows to fill up to, for a decoding step; the filling writes to `trash`, sees nothing, and draws nothing.
    ///   - tracksExtents: whether the model asks how long sequences are.
    init(
        _ plan: StepPlan, tokens known: (SequenceID) -> [Int32], blockSize: Int, padding: (Int) -> Int, trash: Int32,
        tracksExtents: Bool, sampling: (StepPlan.Draw) -> RowSampling
    ) {
        // Rows, chunks, prompts: the order of a step's tokens.
        var rows: [Int] = [], chunks: [Int] = [], prompts: [Int] = []
        for (index, work) in plan.work.enumerated() {
            if work.count == 1 {
                rows.append(index)
            } else if work.start > 0 {
                chunks.append(index)
            } else {
                prompts.append(index)
            }
        }
        isDecode = chunks.isEmpty && prompts.isEmpty && plan.work.allSatisfy { $0.draws.count == 1 }
        let chunkTokens = chunks.reduce(0) { $0 + plan.work[$1].count }
        self.chunkTokens = chunkTokens
        let used = isDecode ? padding(rows.count) : rows.count
        layout = StepLayout(
            tokens: isDecode ? used : plan.tokens, rows: used + chunkTokens, draws: isDecode ? used : plan.drawCount,
            chunks: chunks.count, prompts: prompts.count)
        words = [Int32](repeating: 0, count: layout.table)
        firstTokens = [Int](repeating: 0, count: plan.work.count)
        var table: [Int32] = []
        table.reserveCapacity(rows.count * 64)

        draws = plan.draws
        if isDecode, used > rows.count {
            for place in rows.count..<used {
                words[layout.sources.lowerBound + place] = -1
                words[layout.slots.lowerBound + place] = trash
            }
        }

        let shift = blockSize.trailingZeroBitCount
        var token = 0
        func addTokens(_ index: Int, _ words: inout [Int32]) {
            let work = plan.work[index]
            firstTokens[index] = token
            let last = token + work.count - 1
            switch work.input {
            case .known:
                let ids = known(work.sequence), certain = work.count - work.drafts.count
                for offset in 0..<work.count {
                    words[layout.ids.lowerBound + token + offset] =
                        offset < certain ? ids[work.start + offset] : work.drafts[offset - certain]
                    words[layout.sources.lowerBound + token + offset] = -1
                }
            case .drawn(_, let draw):
                words[layout.sources.lowerBound + token] = Int32(draw)
                readsDrawn = true
            }
            for position in work.start..<work.start + work.count {
                let place = token + position - work.start
                words[layout.positions.lowerBound + place] = Int32(position)
                words[layout.slots.lowerBound + place] =
                    work.blocks[position >> shift] << Int32(shift) | Int32(position & (blockSize - 1))
            }
            for draw in work.draws {
                words[layout.drawnFrom.lowerBound + draw] = Int32(token + plan.draws[draw].offset)
            }
            if tracksExtents {
                let length =
                    work.count == 1 && work.start > 0 ? work.start + 1 : known(work.sequence).count
                extents.append(
                    SequenceExtent(
                        tokens: token..<last + 1, shortest: length, longest: length,
                        isCached: work.count == 1 && work.start > 0))
            }
            token = last + 1
        }
        func addRows(_ index: Int, _ words: inout [Int32]) {
            let work = plan.work[index], start = Int32(table.count)
            for position in work.start..<work.start + work.count {
                let row = token + position - work.start
                words[layout.lengths.lowerBound + row] = Int32(position + 1)
                words[layout.starts.lowerBound + row] = start
            }
            longestRow = max(longestRow, work.start + work.count)
            table += work.blocks
        }
        for index in rows {
            addRows(index, &words)
            addTokens(index, &words)
        }
        if isDecode { token = used }
        var queries = 0, keys = 0
        for (place, index) in chunks.enumerated() {
            let work = plan.work[index]
            addRows(index, &words)
            addTokens(index, &words)
            queries += work.count
            keys += work.start + work.count
            words[layout.chunkQueries.lowerBound + place + 1] = Int32(queries)
            words[layout.chunkKeys.lowerBound + place + 1] = Int32(keys)
            longestChunk = max(longestChunk, work.count)
            longestChunkKeys = max(longestChunkKeys, work.start + work.count)
        }
        for (place, index) in prompts.enumerated() {
            addTokens(index, &words)
            promptLengths.append(plan.work[index].count)
            words[layout.promptEnds.lowerBound + place + 1] =
                words[layout.promptEnds.lowerBound + place] + Int32(plan.work[index].count)
        }
        for (place, draw) in draws.enumerated() {
            let row = sampling(draw)
            isFiltered = isFiltered || row.isFiltered(vocabulary: .max)
            func put(_ value: Float, _ range: Range<Int>) {
                words[range.lowerBound + place] = Int32(bitPattern: value.bitPattern)
            }
            put(Float(row.temperature), layout.temperatures)
            put(SamplingTerms.narrowed(uniform: row.uniform), layout.uniforms)
            words[layout.topK.lowerBound + place] = Int32(clamping: row.topK)
            put(Float(row.topP), layout.topP)
            put(Float(row.minP), layout.minP)
        }
        words += table
        tableCount = table.count
        for index in chunks {
            let work = plan.work[index]
            for position in 0..<work.start + work.count {
                keySlots.append(work.blocks[position >> shift] << Int32(shift) | Int32(position & (blockSize - 1)))
            }
        }
    }
}

import Models
import RolloutCore
import TensorCore

/// One `generate` call from its first prefill to its last token.
final class GenerationRun {
    private struct Row {
        let request, sample: Int
        /// Slots of the whole context, the prompt's shared ones first.
        var slots: [Int32]
        let promptLength: Int
        var tokens: [Int32] = []
        var logProbs: [Float] = []
        var detokenize: ((Int32) -> String)?
        var text = ""

        var ownSlots: [Int32] { Array(slots.dropFirst(promptLength)) }
    }

    private let model: any CausalLanguageModel
    private let cache: KeyValueCache
    private let weightVersion: Int
    private var scheduler: RolloutScheduler
    private let makeDetokenizer: (() -> (Int32) -> String)?
    private let onToken: ((GeneratedToken) -> Bool)?
    private var rows: [Row] = []
    private var results: [[GeneratedSample?]]
    private(set) var firstToken: ContinuousClock.Instant?
    private(set) var prefilledTokens = 0, generatedTokens = 0, decodeSteps = 0, prefills = 0

    init(
        model: any CausalLanguageModel, cache: KeyValueCache, weightVersion: Int, scheduler: RolloutScheduler,
        makeDetokenizer: (() -> (Int32) -> String)?, onToken: ((GeneratedToken) -> Bool)?
    ) {
        self.model = model
        self.cache = cache
        self.weightVersion = weightVersion
        self.scheduler = scheduler
        self.makeDetokenizer = makeDetokenizer
        self.onToken = onToken
        results = scheduler.requests.map { Array(repeating: nil, count: $0.sampling.n) }
    }

    func finishAll() throws -> [[GeneratedSample]] {
        while !scheduler.isDone {
            let wave = scheduler.admit()
            if !wave.isEmpty {
                try prefill(wave)
            } else if let stuck = scheduler.stuck {
                throw RolloutError(
                    .outOfSlots, "request \(stuck) needs more cache than the \(cache.slotCount) slots there are")
            } else {
                try decode()
            }
        }
        return results.map { $0.map { sample in sample! } }
    }

    // MARK: - Prefill

    private func prefill(_ wave: [RolloutScheduler.Admission]) throws {
        let common = scheduler.commonPrefix
        var ids: [Int64] = [], positions: [Int64] = [], slots: [Int64] = [], last: [Int64] = []
        var segments: [PackedSegment] = []
        if common > 0 {
            ids += scheduler.requests[wave[0].request].prompt.prefix(common).map(Int64.init)
            positions += (0..<common).map(Int64.init)
            slots += scheduler.prefixSlots.map(Int64.init)
            segments.append(PackedSegment(start: 0, length: common))
        }
        for admission in wave {
            let prompt = scheduler.requests[admission.request].prompt
            segments.append(
                PackedSegment(start: ids.count, length: prompt.count - common, parent: common > 0 ? 0 : nil))
            ids += prompt.dropFirst(common).map(Int64.init)
            positions += (common..<prompt.count).map(Int64.init)
            slots += admission.ownSlots.map(Int64.init)
            last.append(Int64(ids.count - 1))
        }
        let device = model.device
        let hidden_TC = try model.hiddenStates(
            ids: Tensor(ids, device: device), positions: Tensor(positions, device: device),
            attention: PrefillAttention(cache: cache, segments: segments, slots: Tensor(slots, device: device)))
        let logits_PV = try model.logits(hidden_TC.indexSelect(0, Tensor(last, device: device)))
        prefills += 1
        prefilledTokens += ids.count

        // Every sample of a prompt draws its first token from the prompt's one row of logits.
        var fresh: [Row] = [], source: [Int64] = []
        for (index, admission) in wave.enumerated() {
            let request = scheduler.requests[admission.request]
            for sample in 0..<request.sampling.n {
                fresh.append(
                    Row(
                        request: admission.request, sample: sample,
                        slots: scheduler.prefixSlots.prefix(common) + admission.ownSlots,
                        promptLength: request.prompt.count,
                        detokenize: request.sampling.stop.isEmpty ? nil : makeDetokenizer?()))
                source.append(Int64(index))
            }
        }
        let logits =
            source.count == wave.count
            ? logits_PV : try logits_PV.indexSelect(0, Tensor(source, device: device))
        rows += try draw(logits, for: fresh)
    }

    // MARK: - Decode

    private func decode() throws {
        var ids: [Int64] = [], positions: [Int64] = [], newSlots: [Int64] = [], lengths: [Int32] = []
        for index in rows.indices {
            let slot = scheduler.slotForToken()
            rows[index].slots.append(slot)
            ids.append(Int64(rows[index].tokens[rows[index].tokens.count - 1]))
            newSlots.append(Int64(slot))
            positions.append(Int64(rows[index].slots.count - 1))
            lengths.append(Int32(rows[index].slots.count))
        }
        let longest = Int(lengths.max() ?? 0)
        var table = [Int32](repeating: 0, count: rows.count * longest)
        for (index, row) in rows.enumerated() {
            table.replaceSubrange(index * longest..<index * longest + row.slots.count, with: row.slots)
        }
        let device = model.device
        let attention = DecodeAttention(
            cache: cache, slotTable: try Tensor(table, shape: [rows.count, longest], device: device),
            lengths: try Tensor(lengths, device: device), newSlots: try Tensor(newSlots, device: device))
        let hidden_BC = try model.hiddenStates(
            ids: Tensor(ids, device: device), positions: Tensor(positions, device: device), attention: attention)
        decodeSteps += 1
        rows = try draw(model.logits(hidden_BC), for: rows)
    }

    // MARK: - Sampling

    /// Draws the next token of each row; gives back the rows that go on.
    private func draw(_ logits_BV: Tensor, for drawing: [Row]) throws -> [Row] {
        let draws = drawing.map { row in
            let sampling = scheduler.requests[row.request].sampling
            return RowSampling(
                temperature: sampling.temperature, topK: sampling.topK, topP: sampling.topP, minP: sampling.minP,
                uniform: sampling.uniform(sample: row.sample, position: row.tokens.count))
        }
        let (tokens, logProbs) = try logits_BV.sample(draws)
        generatedTokens += tokens.count
        firstToken = firstToken ?? .now
        var going: [Row] = []
        going.reserveCapacity(drawing.count)
        for (index, row) in drawing.enumerated() {
            var row = row
            let token = Int32(tokens[index])
            row.tokens.append(token)
            row.logProbs.append(logProbs[index])
            var reason = finishReason(&row, token)
            if let onToken,
                !onToken(GeneratedToken(request: row.request, sample: row.sample, token: token, finishReason: reason)),
                reason == nil
            {
                reason = .abort
            }
            if let reason {
                scheduler.finish(request: row.request, taken: row.ownSlots)
                results[row.request][row.sample] = GeneratedSample(
                    tokens: row.tokens, logProbs: row.logProbs, finishReason: reason, weightVersion: weightVersion)
            } else {
                going.append(row)
            }
        }
        return going
    }

    private func finishReason(_ row: inout Row, _ token: Int32) -> FinishReason? {
        let sampling = scheduler.requests[row.request].sampling
        if sampling.stopTokenIDs.contains(token) { return .stop }
        if let detokenize = row.detokenize {
            row.text += detokenize(token)
            if sampling.stop.contains(where: { row.text.utf8Contains($0) }) { return .stop }
        }
        return row.tokens.count >= sampling.maxTokens ? .length : nil
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

import ChatTemplates
import Config
import Conversations
import Datasets
import Foundation
import Tokenizers
import TrainingEngine

/// A held-out prompt to answer, and the answer that is wanted.
struct HeldOutQuestion: Sendable, Hashable {
    var prompt: [Int32]
    /// The prompt for people: the last turn before the answer.
    var text: String
    var reference: String
}

/// Rows of supervised data as tokens with the learnt ones marked: system turn added, template rendered, length settled.
struct SupervisedEncoder: Sendable {
    /// What became of a row.
    struct Encoded: Sendable {
        /// nil where the row is left out: too long, or cut so that nothing is left to learn.
        var example: SupervisedExample?
        /// Tokens of the row's longest sequence, before any cut.
        var longest: Int
    }

    private struct Tokens {
        var ids: [Int32]
        var mask: [UInt8]
    }

    let text: TextProcessor
    let kind: SupervisedKind
    let data: SupervisedDataSettings
    /// nil where the checkpoint has no template: rows of plain text do without.
    private let format: ChatFormat?
    private let endID: Int32?
    /// Reward models do not read it at the end of a sequence, as in `transformers`.
    private let padID: Int32?

    /// - Parameter padID: a reward model's.
    init(text: TextProcessor, kind: SupervisedKind, data: SupervisedDataSettings, padID: Int32? = nil) throws {
        self.text = text
        self.kind = kind
        self.data = data
        self.padID = padID
        format = text.template == nil ? nil : try text.chatFormat()
        endID = text.specialID("eos_token")
    }

    /// - Throws: `DatasetError` with file, line and column for a row that cannot be told apart or is too long.
    func encode(_ row: SupervisedRow) throws -> Encoded {
        try located(row) {
            switch row.content {
            case .conversation(let messages):
                return try learnt([conversation(messages, from: 0, row)], row)
            case .completion(let prompt, let completion):
                return try learnt([answer(prompt, completion, row)], row)
            case .pair(let prompt, let chosen, let rejected, let margin):
                let sides = try separated(prompt, chosen, rejected, row)
                if kind == .rewardModel { return try read(sides, margin, row) }
                guard let prompt = sides.prompt else {
                    throw DatasetError(
                        .badColumn,
                        "missing, and '\(data.chosenKey)' and '\(data.rejectedKey)' begin differently; give "
                            + "the prompt that both answer", origin: row.origin, column: data.promptKey)
                }
                return try learnt(
                    [answer(prompt, sides.chosen, row), answer(prompt, sides.rejected, row)], row, margin: margin)
            }
        }
    }

    /// The prompt of a row's last answer, or of its chosen one.
    func question(_ row: SupervisedRow) throws -> HeldOutQuestion {
        try located(row) {
            switch row.content {
            case .conversation(let messages):
                let last = messages.lastIndex { $0["role"] == .string("assistant") } ?? 0
                return try question(messages[..<last], messages[last], row)
            case .completion(let prompt, let completion): return try question(prompt, completion, row)
            case .pair(let prompt, let chosen, let rejected, _):
                let sides = try separated(prompt, chosen, rejected, row)
                return try question(sides.prompt ?? .messages([]), sides.chosen, row)
            }
        }
    }

    // MARK: - Sequences

    /// A prompt with its answer: learnt is the answer, of a conversation its turns of the assistant.
    private func answer(_ prompt: SupervisedText, _ answer: SupervisedText, _ row: SupervisedRow) throws -> Tokens {
        switch (prompt, answer) {
        case (.messages(let before), .messages(let after)):
            return try conversation(before + after, from: before.count, row)
        case (.text(let before), .text(let after)):
            let promptIDs = try text.encode(before)
            let ids = try ended(text.encode(before + after))
            guard ids.starts(with: promptIDs) else {
                let place = zip(ids, promptIDs).prefix { $0 == $1 }.count
                throw DatasetError(
                    .badColumn,
                    "tokens merge over its end: token \(place) of \(promptIDs.count) is another with the answer behind it; "
                        + "move the space or sign at its end to the answer",
                    origin: row.origin, column: data.promptKey)
            }
            let mask = ids.indices.map { UInt8($0 < promptIDs.count && data.assistantOnlyLoss ? 0 : 1) }
            return Tokens(ids: ids, mask: mask)
        default: preconditionFailure("columns were checked to be of one kind")
        }
    }

    private func conversation(_ messages: [JSONObject], from first: Int, _ row: SupervisedRow) throws -> Tokens {
        let (turns, added) = try turns(messages)
        let chat = try chatFormat(row).masked(turns, from: first == 0 ? 0 : first + added)
        return Tokens(
            ids: chat.ids, mask: data.assistantOnlyLoss ? chat.mask : [UInt8](repeating: 1, count: chat.ids.count))
    }

    /// A whole sequence, of which nothing is marked.
    private func whole(_ prompt: SupervisedText?, _ answer: SupervisedText, _ row: SupervisedRow) throws -> [Int32] {
        var ids: [Int32]
        switch answer {
        case .messages(let after):
            var before: [JSONObject] = []
            if case .messages(let messages)? = prompt { before = messages }
            let format = try chatFormat(row)
            ids = try format.encode(format.render(turns(before + after).turns, addGenerationPrompt: false).text)
        case .text(let after):
            var before = ""
            if case .text(let text)? = prompt { before = text }
            ids = try ended(text.encode(before + after))
        }
        // At least one token is read, whatever it is.
        while ids.count > 1, ids.last == padID { ids.removeLast() }
        return ids
    }

    private func ended(_ ids: [Int32]) -> [Int32] {
        guard let endID, ids.last != endID else { return ids }
        return ids + [endID]
    }

    /// The sides of a pair, with the turns that both begin with as their prompt where none is given.
    private func separated(
        _ prompt: SupervisedText?, _ chosen: SupervisedText, _ rejected: SupervisedText, _ row: SupervisedRow
    ) throws -> (prompt: SupervisedText?, chosen: SupervisedText, rejected: SupervisedText) {
        guard prompt == nil, case .messages(let one) = chosen, case .messages(let other) = rejected else {
            return (prompt, chosen, rejected)
        }
        let common = min(zip(one, other).prefix { $0 == $1 }.count, one.count - 1, other.count - 1)
        if common == 0 { return (nil, chosen, rejected) }
        return (
            .messages(Array(one[..<common])), .messages(Array(one[common...])), .messages(Array(other[common...]))
        )
    }

    // MARK: - Templates

    private func turns(_ messages: [JSONObject]) throws -> (turns: [ChatMessage], added: Int) {
        var turns: [ChatMessage] = []
        for message in messages {
            guard let turn = ChatMessage(try TemplateValue(json: Datasets.JSONValue.object(message).text)) else {
                preconditionFailure("messages were checked to have a role")
            }
            turns.append(turn)
        }
        guard let system = data.systemPrompt, turns.first?.role != "system" else { return (turns, 0) }
        return ([.system(system)] + turns, 1)
    }

    private func chatFormat(_ row: SupervisedRow) throws -> ChatFormat {
        // Without a template, its absence is what there is to say.
        guard var format else { return try text.chatFormat() }
        if let tools = row.tools { format.tools = try TemplateValue(json: tools.text) }
        for member in row.templateVariables.members {
            format.variables[member.name] = try TemplateValue(json: member.value.text)
        }
        return format
    }

    private func question(
        _ before: some Sequence<JSONObject>, _ answer: JSONObject, _ row: SupervisedRow
    ) throws -> HeldOutQuestion {
        let before = Array(before), format = try chatFormat(row)
        guard case .string(let reference)? = answer["content"] else {
            throw DatasetError(
                .badColumn, "the answer to compare with is no text; set eval.max_new_tokens to 0", origin: row.origin)
        }
        var shown = ""
        if case .string(let text)? = before.last?["content"] { shown = text }
        let prompt = try format.encode(format.render(turns(before).turns, addGenerationPrompt: true).text)
        return HeldOutQuestion(prompt: prompt, text: shown, reference: reference)
    }

    private func question(
        _ prompt: SupervisedText, _ answer: SupervisedText, _ row: SupervisedRow
    ) throws -> HeldOutQuestion {
        switch (prompt, answer) {
        case (.text(let before), .text(let after)):
            return HeldOutQuestion(prompt: try text.encode(before), text: before, reference: after)
        case (.messages(let before), .messages(let after)):
            return try question(before + after.dropLast(), after[after.count - 1], row)
        default: preconditionFailure("columns were checked to be of one kind")
        }
    }

    // MARK: - Lengths

    private func learnt(_ sides: [Tokens], _ row: SupervisedRow, margin: Double? = nil) throws -> Encoded {
        let longest = sides.map(\.ids.count).max() ?? 0
        guard try isKept(longest, row) else { return Encoded(longest: longest) }
        var sequences: [SupervisedSequence] = []
        for side in sides {
            let kept = kept(side.ids.count)
            guard let sequence = SupervisedSequence(ids: Array(side.ids[kept]), mask: Array(side.mask[kept])) else {
                guard longest > data.maxLength else {
                    throw DatasetError(
                        .malformedRow,
                        "the template gives the assistant's turns no token, so there is nothing to learn",
                        origin: row.origin)
                }
                return Encoded(longest: longest)
            }
            sequences.append(sequence)
        }
        return Encoded(example: SupervisedExample(sequences, margin: margin.map(Float.init)), longest: longest)
    }

    private func read(
        _ sides: (prompt: SupervisedText?, chosen: SupervisedText, rejected: SupervisedText), _ margin: Double?,
        _ row: SupervisedRow
    ) throws -> Encoded {
        let whole = [try whole(sides.prompt, sides.chosen, row), try whole(sides.prompt, sides.rejected, row)]
        let longest = max(whole[0].count, whole[1].count)
        guard try isKept(longest, row) else { return Encoded(longest: longest) }
        let cut = whole.map { Array($0[kept($0.count)]) }
        if cut[0] == cut[1] {
            guard longest > data.maxLength else {
                throw DatasetError(
                    .malformedRow, "chosen and rejected have the same tokens, so neither is better", origin: row.origin)
            }
            return Encoded(longest: longest)
        }
        // What both begin with is computed once; each keeps a token of its own.
        let common = zip(cut[0], cut[1]).prefix { $0 == $1 }.count
        let shared = max(1, min(common, cut[0].count - 1, cut[1].count - 1))
        let sequences = cut.map { SupervisedSequence(prompt: Array($0[..<shared]), response: Array($0[shared...])) }
        return Encoded(example: SupervisedExample(sequences, margin: margin.map(Float.init)), longest: longest)
    }

    private func isKept(_ length: Int, _ row: SupervisedRow) throws -> Bool {
        guard length > data.maxLength else { return true }
        switch data.truncation {
        case .left, .right: return true
        case .drop: return false
        case .error:
            throw DatasetError(
                .promptTooLong,
                "the sequence has \(length) tokens, \(data.maxLength) are allowed; raise data.max_length, or set "
                    + "data.truncation to drop, left or right", origin: row.origin)
        }
    }

    private func kept(_ length: Int) -> Range<Int> {
        guard length > data.maxLength else { return 0..<length }
        return data.truncation == .left ? length - data.maxLength..<length : 0..<data.maxLength
    }

    /// Adds file and line to what templates and tokenizers say.
    private func located<Result>(_ row: SupervisedRow, _ body: () throws -> Result) throws -> Result {
        do { return try body() } catch let error as DatasetError { throw error } catch let error as WorkerError {
            // Nothing that is the row's fault: there is no template.
            throw error
        } catch {
            throw DatasetError(.malformedRow, "\(error)", origin: row.origin)
        }
    }
}

public import ChatTemplates
public import Config
public import Datasets
public import Flow
import Foundation
public import OrderedCollections
public import Telemetry

/// Rows of a dataset as the model's token ids: system turn and few-shot turns added, template rendered, length settled.
public struct PromptEncoder: Sendable {
    public let text: TextProcessor
    public let systemPrompt: String?
    public let fewShot: [ChatMessage]
    public let overlong: OverlongPrompts
    /// What the model is told that it can call, as templates take it.
    public let tools: TemplateValue

    public init(text: TextProcessor, data: DataSettings, tools: TemplateValue = .null) {
        self.text = text
        self.tools = tools
        systemPrompt = data.systemPrompt
        fewShot = data.fewShot.flatMap { turn in
            [ChatMessage(role: turn.isTool ? "tool" : "user", content: .string(turn.user)), .assistant(turn.assistant)]
        }
        let policy: OverlongPrompts.Policy =
            if data.filterOverlongPrompts { .filter } else {
                switch data.truncation {
                case .error: .error
                case .left: .truncate(.left)
                case .right: .truncate(.right)
                case .middle: .truncate(.middle)
                }
            }
        overlong = OverlongPrompts(policy, maximumTokens: data.maxPromptLength)
    }

    func tokens(_ row: PromptRow) throws -> [Int32] {
        if case .text(let plain) = row.prompt { return try text.encode(plain) }
        return try text.encode(messages(row), tools: tools)
    }

    /// What is rendered: the row's turns with system turn and examples; none for plain text.
    private func messages(_ row: PromptRow) -> [ChatMessage] {
        switch row.prompt {
        case .text: return []
        case .messages(let messages):
            var all = messages.map { ChatMessage(role: $0.role, content: .string($0.content)) }
            var start = all.first?.role == "system" ? 1 : 0
            if start == 0, let systemPrompt {
                all.insert(.system(systemPrompt), at: 0)
                start = 1
            }
            all.insert(contentsOf: fewShot, at: start)
            return all
        }
    }

    /// A row as the loop hands it about; `group` tells its samples from others'.
    public func task(_ row: PromptRow, group: Int) throws -> PromptTask {
        let shown =
            switch row.prompt {
            case .text(let plain): plain
            case .messages(let messages): messages.last?.content ?? ""
            }
        return PromptTask(
            group: group, tokens: try overlong.fit(tokens(row), origin: row.origin), text: shown,
            dataSource: row.dataSource, groundTruth: row.groundTruthText, groundTruthJSON: row.groundTruth.text,
            extraInfoJSON: row.extraInfo.map { JSONValue.object($0).text },
            messages: messages(row).map { .init(role: $0.role, content: $0.content.string ?? "") })
    }

    /// Leaves out what is too long, or refuses it, as configured. The count of what went is in the result.
    public func settleLengths(_ source: any PromptSource) throws -> OverlongPrompts.Filtered {
        try overlong.filter(source) { try tokens($0).count }
    }
}

extension TextProcessor {
    /// A prompt as the model expects it: messages through the chat template, text as it is.
    public func tokens(_ prompt: Prompt) throws -> [Int32] {
        switch prompt {
        case .text(let plain): try encode(plain)
        case .messages(let messages):
            try encode(messages.map { ChatMessage(role: $0.role, content: .string($0.content)) })
        }
    }
}

/// Hands the loop its batches.
public actor PromptPipeline: PromptProvider {
    private var loader: PromptLoader
    private let encoder: PromptEncoder
    private let leftOut: Int
    private let cut: Int

    /// - Parameters:
    ///   - leftOut: how many over-long prompts the loader's source lacks, for the metrics.
    ///   - cut: how many of its prompts are cut.
    public init(loader: PromptLoader, encoder: PromptEncoder, leftOut: Int = 0, cut: Int = 0) {
        self.loader = loader
        self.encoder = encoder
        self.leftOut = leftOut
        self.cut = cut
    }

    public func nextBatch() throws -> [PromptTask]? {
        guard let batch = try loader.next() else { return nil }
        return try batch.rows.enumerated().map { try encoder.task($1, group: $0) }
    }

    /// The pass over the data, with its part that is done; and the over-long prompts of the whole of the data.
    public func metrics() -> PhaseMetrics {
        let state = loader.state
        return [
            "data/epoch": Double(state.epoch) + Double(state.position) / Double(max(1, state.rowCount)),
            "data/overlong_left_out": Double(leftOut), "data/overlong_cut": Double(cut),
        ]
    }

    public func state() throws -> String {
        String(decoding: try JSONEncoder().encode(loader.state), as: UTF8.self)
    }

    public func restore(_ state: String) throws {
        try loader.restore(try JSONDecoder().decode(LoaderState.self, from: Data(state.utf8)))
    }
}

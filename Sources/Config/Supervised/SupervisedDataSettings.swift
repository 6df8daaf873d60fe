/// `data` of supervised runs: rows, their columns and lengths.
public struct SupervisedDataSettings: Hashable, Sendable {
    public enum Truncation: String, CaseIterable, Hashable, Sendable, SettingWord {
        case error, drop, left, right
    }

    public let trainFiles: [String]
    public let valFiles: [String]
    public let trainBatchSize: Int
    public let maxLength: Int
    public let truncation: Truncation
    public let shuffle: Bool
    /// nil for the run's.
    public let seed: Int?
    public let systemPrompt: String?
    public let promptKey: String
    public let messagesKey: String
    public let completionKey: String
    public let assistantOnlyLoss: Bool
    public let chosenKey: String
    public let rejectedKey: String
    public let marginKey: String

    init(_ section: inout SectionReader, _ kind: SupervisedKind) {
        let rows =
            kind == .sft
            ? "rows with messages, or with a prompt and a completion"
            : "rows with chosen and rejected answers, after a prompt or what both begin with"
        trainFiles = section.requiredStrings(
            "train_files", example: ["data/arithmetic/train.jsonl"],
            doc: "What to train on: files (.jsonl, .parquet, .json) or patterns such as data/*.parquet; \(rows).")
        valFiles = section.strings("val_files", doc: "What to measure by, never trained on: as train_files.")
        trainBatchSize = section.int(
            "train_batch_size", default: 64, in: 1...1_048_576, doc: "Rows an optimizer step.")
        maxLength = section.int(
            "max_length", default: 2048, in: 2...16_777_216, doc: "The most tokens of a sequence, template included.")
        truncation = section.choice(
            "truncation", default: .error,
            doc:
                "What becomes of a longer one: error refuses it, drop leaves the row out (they are counted), left and right "
                + "say which end goes.")
        shuffle = section.bool("shuffle", default: true, doc: "A new random order of the rows in every epoch.")
        seed = section.optionalInt("seed", in: 0...Int.max, doc: "The seed of that order; null for the run's seed.")
        systemPrompt = section.optionalString(
            "system_prompt", doc: "A system turn put before conversations that have none.")
        promptKey = section.string("prompt_key", default: "prompt", doc: "The column that holds the prompt.")
        let isSFT = kind == .sft
        messagesKey =
            isSFT
            ? section.string(
                "messages_key", default: "messages", doc: "The column that holds a whole conversation.") : "messages"
        completionKey =
            isSFT
            ? section.string("completion_key", default: "completion", doc: "The column that holds the completion.")
            : "completion"
        assistantOnlyLoss =
            isSFT
            ? section.bool(
                "assistant_only_loss", default: true,
                doc: "Learn the assistant's turns (or the completion) only, not what they answer.") : true
        chosenKey =
            isSFT
            ? "chosen"
            : section.string("chosen_key", default: "chosen", doc: "The column that holds the better answer.")
        rejectedKey =
            isSFT
            ? "rejected"
            : section.string("rejected_key", default: "rejected", doc: "The column that holds the worse answer.")
        marginKey =
            kind == .rewardModel
            ? section.string(
                "margin_key", default: "margin",
                doc: "The column that holds by how much the chosen answer should be better, where there is one.")
            : "margin"
    }
}

/// `data`: prompts and their lengths.
public struct DataSettings: Hashable, Sendable {
    public enum Truncation: String, CaseIterable, Hashable, Sendable, SettingWord {
        case error, left, right, middle
    }

    /// A solved example that is put before every prompt, as a user's or a tool's turn and an assistant turn.
    public struct FewShotTurn: Hashable, Sendable {
        public let user: String
        /// Whether a tool said it, in answer to the turn before.
        public let isTool: Bool
        public let assistant: String

        init(_ section: inout SectionReader) {
            isTool = section.holds("tool")
            user =
                isTool
                ? section.requiredString("tool", example: "4", doc: "What a tool says, in place of the user.")
                : section.requiredString("user", example: "2 + 2", doc: "What the user says.")
            assistant = section.requiredString("assistant", example: "4", doc: "What the model should answer.")
        }
    }

    /// The name of the built-in generator among the files.
    public static let builtinArithmetic = "builtin:arithmetic"

    public let trainFiles: [String]
    /// The share of each of `trainFiles`; empty for every row once in an epoch.
    public let trainWeights: [Double]
    public let valFiles: [String]
    public let trainBatchSize: Int
    public let valBatchSize: Int?
    public let maxPromptLength: Int
    public let maxResponseLength: Int
    public let filterOverlongPrompts: Bool
    public let truncation: Truncation
    public let shuffle: Bool
    /// nil for the run's.
    public let seed: Int?
    public let promptKey: String
    public let rewardFnKey: String
    public let systemPrompt: String?
    public let fewShot: [FewShotTurn]
    public let arithmetic: ArithmeticSettings

    init(_ section: inout SectionReader) {
        trainFiles = section.requiredStrings(
            "train_files", example: [Self.builtinArithmetic],
            doc:
                "Prompts to train on: files with verl's columns (.parquet, .jsonl, .json, .csv, .tsv) or patterns such as "
                + "data/*.parquet; or builtin:arithmetic.")
        trainWeights = section.numberList(
            "train_weights", in: .positive,
            doc:
                "What share of the rows of an epoch comes from each of train_files, relative to the others; [] for every row "
                + "once.")
        valFiles = section.strings(
            "val_files",
            doc:
                "Prompts to measure by, never trained on: as train_files; builtin:arithmetic gives its held-out problems."
        )
        trainBatchSize = section.int(
            "train_batch_size", default: 64, in: 1...1_048_576,
            doc: "Prompts a step; each is sampled rollout.n times.")
        valBatchSize = section.optionalInt(
            "val_batch_size", in: 1...1_048_576, doc: "Prompts a validation batch; null for all at once.")
        maxPromptLength = section.int(
            "max_prompt_length", default: 512, in: 1...16_777_216,
            doc: "The most tokens of a prompt, template included.")
        maxResponseLength = section.int(
            "max_response_length", default: 512, in: 1...16_777_216,
            doc: "The most tokens of a response; sampling stops there.")
        filterOverlongPrompts = section.bool(
            "filter_overlong_prompts", default: false,
            doc: "Leave out prompts that are too long (they are counted) before training begins.")
        truncation = section.choice(
            "truncation", default: .error,
            doc: "What becomes of a prompt that is too long and not filtered: error refuses it; left, right and middle "
                + "say which tokens go.")
        shuffle = section.bool("shuffle", default: true, doc: "A new random order of the prompts in every epoch.")
        seed = section.optionalInt(
            "seed", in: 0...Int.max, doc: "The seed of that order and of builtin:arithmetic; null for the run's seed.")
        promptKey = section.string("prompt_key", default: "prompt", doc: "The column that holds the prompt.")
        rewardFnKey = section.string(
            "reward_fn_key", default: "data_source", doc: "The column that says which data a row belongs to.")
        systemPrompt = section.optionalString(
            "system_prompt", doc: "A system turn put before prompts that have none.")
        fewShot = section.records(
            "few_shot", accepts: "a list of {user: text, assistant: text}",
            doc: "Solved examples put before every prompt, as turns; tool: text in place of user: is a tool's result.",
            FewShotTurn.init)
        arithmetic = section.section(
            "arithmetic", doc: "The problems of builtin:arithmetic.", ArithmeticSettings.init)
    }
}

/// `data.arithmetic`: the built-in generator's problems.
public struct ArithmeticSettings: Hashable, Sendable {
    /// The signs of a problem in order: `+` is `a + b`, `+-` is `a + b - c`.
    public struct Form: Hashable, Sendable, SettingWord {
        public enum Sign: Character, Hashable, Sendable, CaseIterable {
            case add = "+"
            case subtract = "-"
            case multiply = "*"
        }

        public let signs: [Sign]

        init?(word: String) {
            let signs = word.compactMap(Sign.init)
            guard (1...3).contains(signs.count), signs.count == word.count else { return nil }
            self.signs = signs
        }

        public var word: String { String(signs.map(\.rawValue)) }
    }

    public let forms: [Form]
    public let minOperand: Int
    public let maxOperand: Int
    public let minAnswer: Int?
    public let maxAnswer: Int?
    public let heldout: Int
    public let examples: Int
    public let template: String
    public let multiplicationSign: String

    init(_ section: inout SectionReader) {
        forms = section.words(
            "forms", default: ["+", "-", "*", "+-"].compactMap(Form.init(word:)),
            accepts: "a list of texts of one to three of the signs + - *",
            doc: "The signs of the problems: \"+\" is a + b, \"+-\" is a + b - c.")
        minOperand = section.int(
            "min_operand", default: 0, in: -1_000_000...1_000_000, doc: "The least operand.")
        maxOperand = section.int(
            "max_operand", default: 9, in: -1_000_000...1_000_000, doc: "The greatest operand.")
        minAnswer = section.optionalInt(
            "min_answer", in: Int.min...Int.max, doc: "Problems with a lesser answer are left out.")
        maxAnswer = section.optionalInt(
            "max_answer", in: Int.min...Int.max, doc: "Problems with a greater answer are left out.")
        heldout = section.int(
            "heldout", default: 200, in: 0...1_048_576, doc: "How many problems are held out to measure by.")
        examples = section.int(
            "examples", default: 0, in: 0...64,
            doc: "How many solved problems, used for nothing else, come before every prompt as turns.")
        template = section.string(
            "template", default: "What is {problem}? Reply with only the number.",
            doc: "The user's turn; {problem} stands for the problem.")
        multiplicationSign = section.string(
            "multiplication_sign", default: "×", doc: "How multiplication is written.")
    }
}

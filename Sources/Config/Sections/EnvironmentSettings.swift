/// `environment`: the world that episodes are played in, where `rollout.multi_turn` is on.
public struct EnvironmentSettings: Hashable, Sendable {
    public enum Tool: String, CaseIterable, Hashable, Sendable, SettingWord {
        case calculator, python
    }

    /// What an episode's score is made of.
    public enum Score: String, CaseIterable, Hashable, Sendable, SettingWord {
        /// What the environment gave, and what the section `reward` gives the last reply.
        case sum
        case environment
        case answer
    }

    public let tools: [Tool]
    public let shaping: ShapingSettings
    public let path: String?
    public let name: String
    public let interpreter: String
    public let timeoutSeconds: Double
    public let processorSeconds: Int
    public let memoryLimitMB: Int?
    public let score: Score
    public let python: PythonToolSettings

    init(_ section: inout SectionReader) {
        tools = section.choices(
            "tools", default: [],
            doc: "What the model can call; a reply without a call is its answer. Set these or path.")
        path = section.optionalString(
            "path", doc: "A Python file with a class of its own environment: reset, step, and tools if it has some.")
        name = section.string("name", default: "Environment", doc: "The class in that file.")
        interpreter = section.string(
            "interpreter", default: "python3", doc: "What runs that file: a name to look up in PATH, or a path.")
        timeoutSeconds = section.number(
            "timeout_s", default: 30, in: .positive, doc: "Seconds that one call of that class may take.")
        processorSeconds = section.int(
            "cpu_s", default: 600, in: 1...1_048_576, doc: "Seconds of processor time that one call of it may take.")
        memoryLimitMB = section.optionalInt(
            "memory_limit_mb", in: 64...1_048_576,
            doc: "The most address space of an episode's process, in MiB; null for no limit.")
        score = section.choice(
            "score", default: .sum,
            doc:
                "What an episode is worth: the environment's rewards, what the section reward gives the last reply, or the sum."
        )
        shaping = section.section("shaping", doc: "Small rewards of tools on the way; 0 is off.", ShapingSettings.init)
        python = section.section("python", doc: "The tool python's sandbox.", PythonToolSettings.init)
    }
}

/// `environment.shaping`.
public struct ShapingSettings: Hashable, Sendable {
    public let firstSuccess: Double
    public let malformedReply: Double
    public let answerWithoutTool: Double

    init(_ section: inout SectionReader) {
        firstSuccess = section.number(
            "first_success", default: 0, in: .any, doc: "For the first call that succeeds, once an episode.")
        malformedReply = section.number(
            "malformed_reply", default: 0, in: .any,
            doc: "For each reply with a malformed call; negative discourages it.")
        answerWithoutTool = section.number(
            "answer_without_tool", default: 0, in: .any, doc: "For an answer without a successful call before it.")
    }
}

/// `environment.python`.
public struct PythonToolSettings: Hashable, Sendable {
    /// What code is kept from; the names of `SandboxMeasure`.
    public enum Measure: String, CaseIterable, Hashable, Sendable, SettingWord {
        case network, processes
        case fileWrites = "file_writes"
        case fileReads = "file_reads"
        case signals, memory
        case processorTime = "processor_time"
    }

    public let interpreter: String
    public let timeoutSeconds: Double
    public let processorSeconds: Int
    public let memoryLimitMB: Int
    public let concurrency: Int
    public let preload: [String]
    public let waive: [Measure]

    init(_ section: inout SectionReader) {
        interpreter = section.string(
            "interpreter", default: "python3", doc: "What runs the code: a name to look up in PATH, or a path.")
        timeoutSeconds = section.number(
            "timeout_s", default: 10, in: .positive, doc: "Seconds that a piece of code may take.")
        processorSeconds = section.int(
            "cpu_s", default: 5, in: 1...1_048_576, doc: "Seconds of processor time that it may take.")
        memoryLimitMB = section.int(
            "memory_limit_mb", default: 1024, in: 64...1_048_576,
            doc: "The most address space that it may take, in MiB.")
        concurrency = section.int(
            "concurrency", default: 8, in: 1...4096, doc: "Pieces of code that run at the same time; others wait.")
        preload = section.moduleNames("preload", doc: "Modules that are imported once, before any code runs.")
        waive = section.choices(
            "waive", default: [],
            doc:
                "What this host need not enforce. Whatever else it cannot ends the run before it begins; what is waived and does not "
                + "hold is said at the start.")
    }
}

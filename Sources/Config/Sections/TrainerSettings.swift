/// `trainer`: the run's length, its folder, and what it reports.
public struct TrainerSettings: Hashable, Sendable {
    public enum ResumeMode: String, CaseIterable, Hashable, Sendable, SettingWord {
        case auto, disable
        case resumePath = "resume_path"
    }

    public enum Logger: String, CaseIterable, Hashable, Sendable, SettingWord {
        case console, jsonl, tensorboard, html
    }

    public let totalTrainingSteps: Int?
    public let totalEpochs: Int
    public let saveFreq: Int
    public let testFreq: Int
    public let valBeforeTrain: Bool
    /// Steps in which the critic alone learns.
    public let criticWarmup: Int
    public let defaultLocalDir: String?
    public let resumeMode: ResumeMode
    public let resumeFromPath: String?
    public let maxActorCheckpointsToKeep: Int?
    public let logger: [Logger]
    public let logSamples: Int
    /// nil: all visible GPUs; on the CPU one.
    public let gpusPerNode: Int?
    public let nodes: Int
    /// Seconds that an operation between ranks waits for one that does nothing.
    public let collectiveTimeout: Double
    /// How often ranks that were lost are started anew.
    public let maxRestarts: Int
    public let numThreads: Int?
    public let deterministic: Bool
    public let plan: MemoryPlan
    /// Whether roles that share devices lie in host memory but for their turns; nil: where the devices have no room for all.
    public let takesTurns: Bool?

    /// What a run does when its planned memory does not fit.
    public enum MemoryPlan: String, CaseIterable, Hashable, Sendable, SettingWord {
        case refuse, warn, off
    }

    init(_ section: inout SectionReader) { self.init(&section, isSupervised: false) }

    /// - Parameter isSupervised: whether rows are learnt: then there is neither a critic nor a role that could rest.
    init(_ section: inout SectionReader, isSupervised: Bool) {
        totalTrainingSteps = section.optionalInt(
            "total_training_steps", in: 1...Int.max, doc: "The run's steps, if set whatever total_epochs says.")
        totalEpochs = section.int("total_epochs", default: 1, in: 1...1_048_576, doc: "Passes over the prompts.")
        saveFreq = section.int(
            "save_freq", default: -1, in: -1...Int.max, doc: "Steps between checkpoints; -1 or 0 for one at the end.")
        testFreq = section.int(
            "test_freq", default: -1, in: -1...Int.max, doc: "Steps between validations; -1 or 0 for none on the way.")
        valBeforeTrain = section.bool(
            "val_before_train", default: true, doc: "Validate before the first step, when there are data.val_files.")
        criticWarmup =
            isSupervised
            ? 0
            : section.int(
                "critic_warmup", default: 0, in: 0...Int.max,
                doc: "Steps in which the critic alone learns, so that it knows something before the policy heeds it.")
        defaultLocalDir = section.optionalString(
            "default_local_dir", doc: "The run's folder; null for runs/ and the experiment_name.")
        resumeMode = section.choice(
            "resume_mode", default: .auto,
            doc:
                "auto goes on from the folder's last checkpoint, if any; disable begins anew; resume_path goes on from "
                + "resume_from_path.")
        resumeFromPath = section.optionalString("resume_from_path", doc: "The checkpoint for resume_path.")
        maxActorCheckpointsToKeep = section.optionalInt(
            "max_actor_ckpt_to_keep", in: 1...Int.max,
            doc: "How many checkpoints are kept, the last ones; null for all.")
        logger = section.choices(
            "logger", default: [.console, .jsonl],
            doc: "Where metrics go. jsonl, which resuming needs, is always written.")
        logSamples = section.int(
            "log_samples", default: 4, in: 0...65_536,
            doc: "Samples a step (prompt, answer, reward) that are kept to read.")
        gpusPerNode = section.optionalInt(
            "n_gpus_per_node", in: 1...1024,
            doc: "Ranks, one process and device each; null for all visible GPUs, on the CPU for one.")
        nodes = section.int(
            "nnodes", default: 1, in: 1...65_536,
            doc: "Hosts, each with n_gpus_per_node ranks; several take a cluster.type.")
        maxRestarts = section.int(
            "max_restarts", default: 0, in: 0...1_048_576,
            doc:
                "How often, when a rank is lost, all ranks are ended, started anew and go on from the last checkpoint; 0 to end the run."
        )
        collectiveTimeout = section.number(
            "nccl_timeout", default: 600, in: NumberRange(lower: 0.1, upper: 604_800),
            doc: "Seconds that ranks wait for one that does nothing before they give up and name it.")
        numThreads = section.optionalInt(
            "num_threads", in: 1...4096, doc: "Threads of the CPU's kernels; null for one a core.")
        deterministic = section.bool(
            "deterministic", default: true, doc: "Only kernels that give the same bits every time.")
        plan = section.choice(
            "plan", default: .refuse,
            doc:
                "What a start does when the planned memory is more than the device has (fledge plan shows it): refuse, warn and "
                + "go on, or off.")
        takesTurns =
            isSupervised
            ? nil
            : section.optionalBool(
                "take_turns",
                doc:
                    "Keep in the host's memory, but for their turns: the reference model, the critic with its optimizer's states, and the "
                    + "actor's optimizer states; null: as many of them, in this order, as GPUs have no room for otherwise "
                    + "(fledge plan says which).")
    }
}

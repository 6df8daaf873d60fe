import Synchronization

/// One answer that the model gave in a step, with what it was scored by.
public struct Sample: Hashable, Sendable {
    /// What was asked, as a reader would put it: the last turn tells more than the whole rendered template.
    public var prompt: String
    public var answer: String
    public var groundTruth: String
    public var reward: Double

    public init(prompt: String, answer: String, groundTruth: String, reward: Double) {
        self.prompt = prompt
        self.answer = answer
        self.groundTruth = groundTruth
        self.reward = reward
    }
}

/// The samples of one step.
public struct StepSamples: Hashable, Sendable {
    public var step: Int
    public var samples: [Sample]

    public init(step: Int, samples: [Sample]) {
        self.step = step
        self.samples = samples
    }
}

/// Writes `samples.jsonl`: one object a line,
/// `{"step":N,"prompt":…,"answer":…,"ground_truth":…,"reward":…}`, a few lines for each step.
public final class SampleFile: Sendable {
    public let path: String
    private let file: Mutex<JSONLinesFile>

    /// Opens the file for appending; makes it when absent.
    /// - Throws: `TelemetryError` when it cannot be opened or an earlier line is damaged.
    public init(_ path: String, sync: SyncPolicy = .onFlush) throws(TelemetryError) {
        self.path = path
        file = Mutex(try JSONLinesFile(path, steps: .repeated, sync: sync))
    }

    /// Adds a step's rows in one write.
    /// - Throws: `TelemetryError`; the step must not be before the last one in the file.
    public func write(_ rows: StepSamples) throws(TelemetryError) {
        var lines: [UInt8] = []
        for sample in rows.samples {
            var writer = JSONWriter()
            writer.object {
                $0.key("step")
                $0.value(rows.step)
                $0.key("prompt")
                $0.value(sample.prompt)
                $0.key("answer")
                $0.value(sample.answer)
                $0.key("ground_truth")
                $0.value(sample.groundTruth)
                $0.key("reward")
                $0.value(sample.reward)
            }
            lines += writer.bytes
            lines.append(UInt8(ascii: "\n"))
        }
        if lines.isEmpty { return }
        try file.withLock { file throws(TelemetryError) in try file.append(lines, step: rows.step) }
    }

    public func flush() throws(TelemetryError) {
        try file.withLock { file throws(TelemetryError) in try file.flush() }
    }

    /// The last step in the file; nil when it holds none.
    public var lastStep: Int? { file.withLock { $0.lastStep } }

    /// Goes back to the state after a step, as `MetricsFile.truncate(afterStep:)` does.
    public func truncate(afterStep step: Int) throws(TelemetryError) {
        try file.withLock { file throws(TelemetryError) in try file.truncate(afterStep: step) }
    }

    /// Reads a file's rows, grouped by step. An absent file holds none; a last line being written is left out.
    /// - Throws: `TelemetryError` with the line at fault.
    public static func read(_ path: String) throws(TelemetryError) -> [StepSamples] {
        var steps: [StepSamples] = []
        for line in try JSONLines.read(path) {
            guard let prompt = line.value["prompt"]?.string, let answer = line.value["answer"]?.string,
                let truth = line.value["ground_truth"]?.string, let reward = line.value["reward"]?.double
            else {
                throw TelemetryError(
                    .malformed,
                    "step \(line.step): a sample needs 'prompt', 'answer', 'ground_truth' and 'reward'", path: path)
            }
            let sample = Sample(prompt: prompt, answer: answer, groundTruth: truth, reward: reward)
            if steps.last?.step == line.step {
                steps[steps.count - 1].samples.append(sample)
            } else {
                steps.append(StepSamples(step: line.step, samples: [sample]))
            }
        }
        return steps
    }
}

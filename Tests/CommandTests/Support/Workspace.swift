import Foundation
import Telemetry

/// A folder with a tiny model and a recipe; it goes with this object.
final class Workspace: Sendable {
    let folder: URL
    var model: URL { folder.appending(path: "model") }
    var run: RunFolder { RunFolder(folder.appending(path: "run").path) }
    static let steps = 6

    init(_ model: TinyModel = TinyModel(), recipe: String = Workspace.recipe) throws {
        folder = FileManager.default.temporaryDirectory.appending(path: "fledge-command-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try model.write(to: self.model)
        try write("recipe.yaml", recipe)
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    /// Every random choice and every kind of state that a run has: shuffled mini-batches, Adam, a reference, evaluations.
    static let recipe = """
        experiment_name: tiny
        seed: 7
        device: cpu
        model: {path: model}
        data:
          train_files: builtin:arithmetic
          val_files: builtin:arithmetic
          train_batch_size: 4
          max_prompt_length: 64
          max_response_length: 6
          arithmetic: {forms: ["+"], heldout: 4, template: "{problem}"}
        actor:
          ppo_mini_batch_size: 2
          shuffle: true
          use_kl_loss: true
          optim: {lr: 1e-2, lr_scheduler_type: linear}
        rollout: {n: 4}
        reward: {type: regex, pattern: "[A-Z]"}
        trainer:
          total_training_steps: \(steps)
          save_freq: 2
          test_freq: 3
          default_local_dir: run
          logger: [jsonl]
          num_threads: 1
        """

    @discardableResult
    func write(_ name: String, _ text: String) throws -> URL {
        let file = folder.appending(path: name)
        try Data(text.utf8).write(to: file)
        return file
    }

    func fledge(
        _ arguments: String..., watch: @Sendable (pid_t) async throws -> Void = { _ in }
    ) async throws -> FledgeProcess.Outcome {
        try await FledgeProcess.run(arguments, in: folder, watch: watch)
    }

    func train(
        _ overrides: [String] = [], watch: @Sendable (pid_t) async throws -> Void = { _ in }
    ) async throws -> FledgeProcess.Outcome {
        try await FledgeProcess.run(["train", "recipe.yaml"] + overrides, in: folder, watch: watch)
    }

    /// The run's metrics without those that depend on the clock.
    func metrics() throws -> [String] { try MetricsHistory.reproducibleLines(of: run.metrics) }
    func history() throws -> [StepMetrics] { try MetricsHistory(reading: run.metrics).steps }

    /// How many lines of metrics are whole.
    var stepsWritten: Int {
        guard let data = FileManager.default.contents(atPath: run.metrics) else { return 0 }
        return data.count { $0 == UInt8(ascii: "\n") }
    }

    /// The names in the folder of checkpoints that begin so, sorted.
    func checkpoints(_ prefix: String = "step-") -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: run.checkpoints)) ?? []
        return names.filter { $0.hasPrefix(prefix) }.sorted()
    }

    /// Clears what runs left behind.
    func removeRun() throws {
        if FileManager.default.fileExists(atPath: run.path) { try FileManager.default.removeItem(atPath: run.path) }
    }
}

/// What one uninterrupted run of the recipe prints; made once.
enum Uninterrupted {
    struct Result: Sendable {
        var metrics: [String]
        var exactMatch: RunSummary.ExactMatch?
    }

    static func result() async throws -> Result { try await shared.value }

    private static let shared = Task {
        let workspace = try Workspace()
        let outcome = try await workspace.train()
        guard outcome.exitCode == 0 else { throw UnexpectedOutcome(outcome: outcome) }
        return Result(
            metrics: try workspace.metrics(), exactMatch: try workspace.run.readSummary()?.heldOutExactMatch)
    }
}

struct UnexpectedOutcome: Error, CustomStringConvertible {
    let outcome: FledgeProcess.Outcome
    var description: String { outcome.description }
}

import Collectives
import Config
public import Cluster
import Flow
import Telemetry

/// What the controller asks of all ranks together. Each call is a struct with what it needs; ranks meet in it, so all get every one,
/// in the same order.
extension RankWorker {
    public static var calls: CallRegistry<RankWorker> {
        var calls = CallRegistry<RankWorker>()
        calls.add(LoadPolicy.self)
        calls.add(PreparePolicy.self)
        calls.add(RestorePolicy.self)
        calls.add(ForgetCheckpoints.self)
        calls.add(GenerateShare.self)
        calls.add(ScoreRows.self)
        calls.add(UpdateModel.self)
        calls.add(SavePolicy.self)
        calls.add(EnterPhase.self)
        calls.add(FinishRun.self)
        return calls
    }
}

/// Opens the device and reads the model.
struct LoadPolicy: WorkerCall {
    struct Answer: Codable, Sendable {
        var device: String
        /// What is to be said to people.
        var notes: [String]
        /// The most tokens of a prompt with its answer.
        var contextLength: Int
    }
    func perform(on worker: RankWorker) async throws -> Answer { try await worker.load() }
}

/// Makes the optimizer and what else training needs.
struct PreparePolicy: WorkerCall {
    var totalSteps: Int
    func perform(on worker: RankWorker) async throws -> [String] {
        let (policy, plan) = try worker.policy()
        let folder = RunFolder(worker.config.runFolder)
        try await policy.prepare(plan.training(totalSteps: totalSteps, checkpoints: folder.checkpoints))
        return try await policy.trainingNotes()
    }
}

/// Goes on from the checkpoint at a path, or from the newest whole one of the run's folder.
struct RestorePolicy: WorkerCall {
    struct Answer: Codable, Sendable {
        var state: LoopState?
        var skipped: [String]
    }
    var path: String?
    func perform(on worker: RankWorker) async throws -> Answer {
        let (state, skipped) = try await worker.policy().worker.restore(from: path)
        return Answer(state: state, skipped: skipped)
    }
}

/// Removes the checkpoints of an earlier run.
struct ForgetCheckpoints: WorkerCall {
    func perform(on worker: RankWorker) async throws -> Done {
        try await worker.policy().worker.forgetCheckpoints()
        return Done()
    }
}

/// Answers the prompts of a rank's turn.
struct GenerateShare: WorkerCall {
    var request: GenerationRequest
    func perform(on worker: RankWorker) async throws -> GenerationShare {
        try await worker.policy().worker.generateShare(request)
    }
}

/// A number for every answer token. All ranks come to the same; the first tells them.
struct ScoreRows: WorkerCall {
    enum Quantity: String, Codable {
        /// Under the weights as they are, and under the model as it was before training.
        case logProbs, referenceLogProbs
        /// Σπ² of the distribution that a token was drawn from.
        case sumsPiSquared
        /// The critic's.
        case values
    }
    var quantity: Quantity
    var rows: TrainingRows
    func perform(on worker: RankWorker) async throws -> PackedRows<Float>? {
        let policy = try worker.policy().worker, rows = rows.trajectories
        let scores =
            switch quantity {
            case .logProbs: try await policy.logProbs(rows)
            case .referenceLogProbs: try await policy.referenceLogProbs(rows)
            case .sumsPiSquared: try await policy.sumsPiSquared(rows)
            case .values: try await policy.values(rows)
            }
        return worker.speaks ? PackedRows(scores) : nil
    }
}

/// Every optimizer step of one batch.
struct UpdateModel: WorkerCall {
    enum Model: String, Codable { case actor, critic }
    struct Metric: Codable, Sendable {
        var name: String
        var value: Double
    }
    var model: Model
    var rows: TrainingRows
    var seed: UInt64
    func perform(on worker: RankWorker) async throws -> [Metric] {
        let policy = try worker.policy().worker
        let metrics =
            switch model {
            case .actor: try await policy.update(rows.trajectories, seed: seed)
            case .critic: try await policy.updateCritic(rows.trajectories, seed: seed)
            }
        return worker.speaks ? metrics.map { Metric(name: $0.key.text, value: $0.value) } : []
    }
}

/// Each rank writes its part of a checkpoint, the first one the loop's state.
struct SavePolicy: WorkerCall {
    var step: Int
    var state: LoopState
    func perform(on worker: RankWorker) async throws -> Done {
        try await worker.policy().worker.savePart(step: step, state: worker.speaks ? state : nil)
        return Done()
    }
}

/// Shows where the run is, to the others and to whoever reads what a lost rank did last.
struct EnterPhase: WorkerCall {
    var place: RankProgress.Place
    func perform(on worker: RankWorker) async throws -> Done {
        worker.members.progress.enter(place)
        return Done()
    }
}

/// There is nothing more to do.
struct FinishRun: WorkerCall {
    struct Answer: Codable, Sendable {
        /// Since the first token that the rank drew; nil: it drew none.
        var secondsSinceFirstToken: Double?
    }
    func perform(on worker: RankWorker) async throws -> Answer {
        let policy = try worker.policy().worker
        try await policy.settleCheckpoints()
        let now = ContinuousClock.now
        let age = await policy.secondsToFirstToken(since: now).map { -$0 }
        worker.finish()
        return Answer(secondsSinceFirstToken: age)
    }
}

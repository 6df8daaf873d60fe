import Collectives
import Config
public import Cluster
import Flow
import OrderedCollections
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
        calls.add(EstimateAdvantages.self)
        calls.add(UpdatePolicy.self)
        calls.add(UpdateCritic.self)
        calls.add(TellContextLength.self)
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

/// What a model says of every answer token, its log-probability for one. All ranks come to the same; the first tells them.
struct ScoreRows: WorkerCall {
    enum Model: String, Codable {
        /// The weights as they are.
        case actor
        /// The model as it was before training.
        case reference
        /// The critic's values.
        case critic
        /// Not of a model: Σπ² of the distributions that the tokens were drawn from.
        case sumsPiSquared
    }
    var model: Model
    var rows: TrainingRows
    func perform(on worker: RankWorker) async throws -> PackedRows<Float>? {
        let policy = try worker.policy().worker, rows = rows.trajectories
        let scores =
            switch model {
            case .actor: try await policy.logProbs(rows)
            case .reference: try await policy.referenceLogProbs(rows)
            case .critic: try await policy.values(rows)
            case .sumsPiSquared: try await policy.sumsPiSquared(rows)
            }
        return worker.speaks ? PackedRows(scores) : nil
    }
}

/// Advantages of scored answers, which take microseconds: for one rank alone.
struct EstimateAdvantages: WorkerCall {
    struct Answer: Codable, Sendable {
        var advantages: PackedRows<Float>
        var returns, importanceWeights: PackedRows<Float>?
        var responseMasks: PackedRows<UInt8>?
        var klCoefficient: Double?
        var told: ToldMetrics

        init(_ estimate: AdvantageEstimate) {
            advantages = PackedRows(estimate.advantages)
            returns = estimate.returns.map { PackedRows($0) }
            importanceWeights = estimate.importanceWeights.map { PackedRows($0) }
            responseMasks = estimate.responseMasks.map { PackedRows($0.map { $0.map { $0 ? 1 : 0 } }) }
            klCoefficient = estimate.klCoefficient
            told = ToldMetrics(estimate.metrics)
        }

        var estimate: AdvantageEstimate {
            get throws {
                AdvantageEstimate(
                    advantages: advantages.rows, returns: returns?.rows, importanceWeights: importanceWeights?.rows,
                    responseMasks: responseMasks?.rows.map { $0.map { $0 != 0 } }, klCoefficient: klCoefficient,
                    metrics: try told.metrics)
            }
        }
    }
    var rows: TrainingRows
    var klCoefficient: Double?
    func perform(on worker: RankWorker) async throws -> Answer {
        Answer(try await worker.policy().worker.advantages(rows.trajectories, klCoefficient: klCoefficient))
    }
}

/// Metrics on their way.
struct ToldMetrics: Codable, Sendable {
    private var names: [String]
    private var values: [UInt64]

    init(_ metrics: PhaseMetrics) {
        names = metrics.keys.map(\.text)
        // Exact, not-a-number included.
        values = metrics.values.map(\.bitPattern)
    }

    var metrics: PhaseMetrics {
        get throws {
            var metrics: PhaseMetrics = [:]
            for (name, value) in zip(names, values) { metrics[try MetricName(name)] = Double(bitPattern: value) }
            return metrics
        }
    }
}

/// Every optimizer step of one batch.
struct UpdatePolicy: WorkerCall {
    var rows: TrainingRows
    var seed: UInt64
    func perform(on worker: RankWorker) async throws -> ToldMetrics {
        ToldMetrics(try await worker.policy().worker.update(rows.trajectories, seed: seed))
    }
}

/// Every optimizer step of the critic on one batch.
struct UpdateCritic: WorkerCall {
    var rows: TrainingRows
    var seed: UInt64
    func perform(on worker: RankWorker) async throws -> ToldMetrics {
        ToldMetrics(try await worker.policy().worker.updateCritic(rows.trajectories, seed: seed))
    }
}

/// The most tokens of a prompt with its answer.
struct TellContextLength: WorkerCall {
    func perform(on worker: RankWorker) async throws -> Int {
        try await worker.policy().worker.contextLength()
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

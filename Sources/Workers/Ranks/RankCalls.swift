import Collectives
import Config
public import Cluster
import Flow
import Telemetry

/// What the controller asks of all ranks of a pool together. Each call is a struct with what it needs; ranks meet in it, so all get
/// every one, in the same order.
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
        calls.add(DeliverWeights.self)
        calls.add(ReachTurn.self)
        calls.add(BreakLink.self)
        calls.add(AnswerPrompt.self)
        calls.add(TakeWork.self)
        calls.add(CountCriticSteps.self)
        calls.add(ScoreConversations.self)
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
        let plan = try worker.training(totalSteps: totalSteps)
        var notes: [String] = []
        if try worker.trains() {
            let policy = try worker.policy()
            try await policy.prepare(plan)
            notes += try await policy.trainingNotes()
        }
        if let side = try worker.side() { notes += try await side.prepare(plan) }
        return notes
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
        var answer = Answer(state: nil, skipped: [])
        if try worker.trains() {
            let (state, skipped) = try await worker.policy().restore(from: path)
            answer = Answer(state: state, skipped: skipped)
        }
        try await worker.side()?.restore(from: path)
        return answer
    }
}

/// Removes the checkpoints of an earlier run.
struct ForgetCheckpoints: WorkerCall {
    func perform(on worker: RankWorker) async throws -> Done {
        if try worker.trains() { try await worker.policy().forgetCheckpoints() }
        try await worker.side()?.forgetCheckpoints()
        return Done()
    }
}

/// Answers the prompts of a rank's turn.
struct GenerateShare: WorkerCall {
    var request: GenerationRequest
    func perform(on worker: RankWorker) async throws -> GenerationShare {
        try await worker.policy().generateShare(request)
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
    struct Answer: Codable, Sendable {
        /// Of the first rank.
        var scores: PackedRows<Float>?
        /// Of what this rank has, and keeps.
        var digest: UInt64
    }
    var quantity: Quantity
    var rows: TrainingRows
    func perform(on worker: RankWorker) async throws -> Answer {
        let rows = try worker.rows.complete(rows).trajectories
        let scores =
            switch quantity {
            case .logProbs: try await worker.policy().logProbs(rows)
            case .referenceLogProbs: try await worker.sideRoles().referenceLogProbs(rows)
            case .sumsPiSquared: try await worker.policy().sumsPiSquared(rows)
            case .values: try await worker.sideRoles().values(rows)
            }
        let packed = PackedRows(scores)
        if let column = quantity.column { worker.rows.keep(column, packed, of: self.rows.id) }
        return Answer(scores: worker.speaks ? packed : nil, digest: packed.digest)
    }
}

extension ScoreRows.Quantity {
    /// What it is in training.
    var column: RowColumn? {
        switch self {
        case .logProbs: .oldLogProbs
        case .referenceLogProbs: .refLogProbs
        case .values: .values
        case .sumsPiSquared: nil
        }
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
        let rows = try worker.rows.complete(rows).trajectories
        let metrics =
            switch model {
            case .actor: try await worker.policy().update(rows, seed: seed)
            case .critic: try await worker.sideRoles().updateCritic(rows, seed: seed)
            }
        return worker.speaks ? metrics.map { Metric(name: $0.key.text, value: $0.value) } : []
    }
}

/// Each rank writes its part of a checkpoint, the first one the loop's state.
struct SavePolicy: WorkerCall {
    var step: Int
    var state: LoopState
    /// Those of a critic on another pool.
    var criticSteps: Int?
    func perform(on worker: RankWorker) async throws -> Done {
        if try worker.trains() {
            try await worker.policy().savePart(
                step: step, state: worker.speaks ? state : nil, criticSteps: criticSteps)
        }
        try await worker.side()?.savePart(step: step)
        return Done()
    }
}

/// The optimizer steps that a critic without the policy beside it has done.
struct CountCriticSteps: WorkerCall {
    func perform(on worker: RankWorker) async throws -> Int? { try await worker.side()?.criticSteps }
}

/// Brings the policy's weights to the ranks that sample, on both pools at the same time.
struct DeliverWeights: WorkerCall {
    /// What they become; nil: the policy's own count.
    var version: Int?
    /// How often the samplers have been started anew.
    var link: Int
    func perform(on worker: RankWorker) async throws -> WeightDelivery {
        try await worker.policy().deliverWeights(version: version, link: link)
    }
}

/// Nothing; done when the calls before it are.
struct ReachTurn: WorkerCall {
    func perform(on worker: RankWorker) async throws -> Done { Done() }
}

/// Nobody will answer in a link any more: who waits there goes on.
struct BreakLink: WorkerCall {
    static var waitsItsTurn: Bool { false }
    var link: Int
    func perform(on worker: RankWorker) async throws -> Done {
        try worker.breakLink(link)
        return Done()
    }
}

/// The answers to one prompt, drawn together with those to others that are asked for at the same time.
struct AnswerPrompt: WorkerCall {
    struct Answer: Codable, Sendable {
        var responses: PackedRows<Int32>
        var logProbs: PackedRows<Float>
        var isTruncated: [Bool]
        var weightVersions: [Int]
        var weightDigest: String
    }
    static var waitsItsTurn: Bool { false }
    var prompt: [Int32]
    var settings: RolloutRequestSettings
    func perform(on worker: RankWorker) async throws -> Answer {
        let prompt = PromptTask(group: 0, tokens: prompt, text: "", dataSource: "", groundTruth: "")
        let found = try await worker.policy().answer(prompt, settings)
        return Answer(
            responses: PackedRows(found.map(\.response)), logProbs: PackedRows(found.map(\.rolloutLogProbs)),
            isTruncated: found.map(\.isTruncated), weightVersions: found.map(\.weightVersion),
            weightDigest: found.first?.weightDigest ?? "")
    }
}

/// What a sampler has done since the last time.
struct TakeWork: WorkerCall {
    static var waitsItsTurn: Bool { false }
    func perform(on worker: RankWorker) async throws -> PoolWork { await (try worker.policy()).takeWork() }
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
        let policy = try worker.policyIfHere()
        try await policy?.settleCheckpoints()
        try await worker.side()?.settleCheckpoints()
        let now = ContinuousClock.now
        let age = await policy?.secondsToFirstToken(since: now).map { -$0 }
        worker.finish()
        return Answer(secondsSinceFirstToken: age)
    }
}

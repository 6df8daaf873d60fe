import Cluster
import Config
import Datasets
import Flow
import Foundation
import Logging
import Models
import RolloutCore
public import TensorCore
import TrainingEngine

/// What a configuration comes to on this machine: device, types, seeds.
struct RunPlan {
    let config: RunConfig
    let device: Device
    let dtype: DType

    /// - Throws: ``WorkerError`` with code `device` when the device asked for is not there, `badSetting` for a setting that
    ///   nothing here heeds yet: better than to go on as if it were heeded.
    ///
    /// - Parameter localRank: this rank's place on its host, which decides its GPU; nil for a run of one process.
    init(_ config: RunConfig, localRank: Int? = nil) throws {
        try self.init(config) { try DeviceChoice(config.device).of(localRank).open() }
    }

    /// Of a controller, which leaves devices to its workers.
    init(controlling config: RunConfig) throws { try self.init(config) { .cpu } }

    private init(_ config: RunConfig, device: () throws -> Device) throws {
        try RolloutEngineSettings.refuseUnheeded(config)
        self.config = config
        self.device = try device()
        dtype = config.model.dtype == .bfloat16 ? .bfloat16 : .float32
    }

    /// - Throws: ``WorkerError`` when the ranks do not make the layout that the configuration asks for.
    func policy(_ members: PoolMembers?) throws(WorkerError) -> PolicyWorker.Plan {
        var plan = PolicyWorker.Plan(modelPath: config.model.path, dtype: dtype, device: device)
        plan.templatePath = config.model.chatTemplate
        plan.checkpointing = ActivationCheckpointing(config.model)
        plan.offloadsActivations = config.model.activationOffload
        plan.engine = RolloutEngineSettings(config.rollout)
        plan.ignoresEndOfTurn = config.rollout.ignoreEOS
        plan.stop = config.rollout.stop
        plan.adapter = AdapterPlan(config.model, seed: UInt64(config.seed))
        plan.mergesAdapter = config.model.loraMerge
        if let members {
            plan.members = members
            (plan.trains, plan.samples) = (members.plays(.actor), members.plays(.rollout))
            plan.layout = try layout(members)
            // Nobody else wants its memory.
            if !plan.trains { plan.engine.freesCacheBetween = false }
            plan.poolRows = (samplesUnderWay + members.size - 1) / members.size
            plan.poolLongest = config.data.maxPromptLength + config.data.maxResponseLength
        }
        return plan
    }

    /// Of ranks with the critic or the reference alone.
    func side(_ members: PoolMembers) throws(WorkerError) -> SideWorker.Plan {
        SideWorker.Plan(
            modelPath: config.model.path, dtype: dtype, device: device,
            checkpointing: ActivationCheckpointing(config.model), members: members,
            layout: try ShardingPlan(config.actor, config.rollout, ranks: members.size, samples: false))
    }

    /// How the ranks of a pool with the policy share it out.
    private func layout(_ members: PoolMembers) throws(WorkerError) -> ShardingPlan {
        guard members.plays(.actor) else {
            return try ShardingPlan(sampling: config.rollout, ranks: members.size)
        }
        return try ShardingPlan(
            config.actor, config.rollout, ranks: members.size, samples: members.plays(.rollout))
    }

    /// What the configuration asks for and this device has no use for, or does slowly.
    var notes: [String] { config.model.notes(on: device, samples: true) }

    /// Threads of the CPU's kernels, of which ranks on one host have their part each.
    func limitThreads(ranks: Int) {
        if let threads = config.trainer.numThreads {
            Torch.threadCount = threads
        } else if ranks > 1 {
            Torch.threadCount = max(1, ProcessInfo.processInfo.activeProcessorCount / ranks)
        }
    }

    func training(totalSteps: Int, checkpoints: String?) -> TrainingPlan {
        let critic = config.critic, warmup = min(totalSteps, config.trainer.criticWarmup)
        func steps(_ size: Int, _ epochs: Int) -> Int { (config.data.trainBatchSize + size - 1) / size * epochs }
        return TrainingPlan(
            actor: config.actor,
            algorithm: config.async.mode != .synchronous && config.async.corrects
                ? config.algorithm.correctingTokens : config.algorithm,
            rollout: config.rollout, critic: critic,
            policyLoss: config.policyLoss, bypassesOldLogProbs: config.bypassesOldLogProbs,
            hasCritic: config.hasCritic, rewardWeights: config.reward.weights,
            maxResponseLength: config.data.maxResponseLength,
            optimizer: AdamW.Settings(config), criticOptimizer: AdamW.Settings(critic: config),
            optimizerSteps: (totalSteps - warmup) * config.optimizerStepsPerBatch,
            criticSteps: totalSteps
                * steps(
                    critic.ppoMiniBatchSize ?? config.actor.ppoMiniBatchSize,
                    critic.ppoEpochs ?? config.actor.ppoEpochs),
            needsReference: config.needsReferenceModel, checkpointFolder: checkpoints,
            checkpointsKept: config.trainer.maxActorCheckpointsToKeep)
    }

    func loop(totalSteps: Int) -> PolicyLoop.Settings {
        PolicyLoop.Settings(
            totalSteps: totalSteps, rollout: sampling, seed: UInt64(config.seed), saveEvery: config.trainer.saveFreq,
            evaluateEvery: config.trainer.testFreq, evaluatesFirst: config.trainer.valBeforeTrain,
            learning: .init(
                recomputesOldLogProbs: config.recomputesOldLogProbs, needsSumPiSquared: config.needsSumPiSquared,
                criticWarmup: config.trainer.criticWarmup), samplesLogged: config.trainer.logSamples)
    }

    /// How training samples are drawn.
    var sampling: RolloutRequestSettings {
        let rollout = config.rollout
        var request = RolloutRequestSettings(
            n: rollout.n, temperature: rollout.temperature, topK: rollout.topK, topP: rollout.topP,
            minP: rollout.minP, repetitionPenalty: rollout.repetitionPenalty,
            presencePenalty: rollout.presencePenalty, frequencyPenalty: rollout.frequencyPenalty,
            minTokens: rollout.minTokens, maxTokens: config.data.maxResponseLength, seed: 0)
        if rollout.overSampleRate > 0 { request.groupsWanted = config.data.trainBatchSize }
        request.stragglerShare = rollout.stragglerShare
        request.stragglerTokens = rollout.stragglerTokens
        return request
    }

    var filter: GroupFilter? {
        let settings = config.algorithm.filterGroups
        return settings.enable ? GroupFilter(metric: settings.metric, maxBatches: settings.maxGenBatches) : nil
    }

    /// As `rollout.val_kwargs` says and nothing else: the training samples' penalties would measure another policy.
    var validation: RolloutRequestSettings {
        let sampling = config.rollout.valKwargs
        return RolloutRequestSettings(
            n: sampling.n, temperature: sampling.doSample ? sampling.temperature : 0, topK: sampling.topK,
            topP: sampling.topP, maxTokens: config.data.maxResponseLength,
            seed: SplitMix64Seed.validation(UInt64(config.seed)))
    }
}

extension RunConfig {
    /// The actor's optimizer steps on one batch.
    var optimizerStepsPerBatch: Int {
        (data.trainBatchSize + actor.ppoMiniBatchSize - 1) / actor.ppoMiniBatchSize * actor.ppoEpochs
    }

    /// Whether advantages need Σπ² of every token's distribution.
    var needsSumPiSquared: Bool {
        TrainingRun.knownNames.spreadAdvantageEstimators.contains(algorithm.advantageEstimator)
    }

    /// Whether log-probabilities of the answers take a pass of their own: for several steps on a batch, and where something is made of
    /// them before the update. Bypass mode takes the sampler's.
    var recomputesOldLogProbs: Bool {
        if bypassesOldLogProbs { return false }
        return optimizerStepsPerBatch > 1 || algorithm.useKLInReward || algorithm.rolloutCorrection.isOn
            || needsSumPiSquared || async.mode != .synchronous || ["clip_cov", "kl_cov"].contains(policyLoss)
    }
}

extension ActivationCheckpointing {
    init(_ model: ModelSettings) {
        var kept = KeptActivations()
        for one in model.activationCheckpointingKeeps {
            switch one {
            case .attention: kept.insert(.attention)
            case .queryKeyValue: kept.insert(.queryKeyValue)
            case .gateUp: kept.insert(.gateUp)
            }
        }
        let mode: Mode =
            switch model.checkpointing {
            case .none: .none
            case .selective: .selective(kept)
            case .full: .full
            }
        self.init(mode, layers: model.activationCheckpointingLayers)
    }
}

enum SplitMix64Seed {
    /// A seed of two.
    static func mixed(_ first: UInt64, _ second: UInt64) -> UInt64 { RolloutCore.SplitMix64.seed(first, second) }

    /// Validation draws from a stream of its own, so that evaluating more often changes nothing in training.
    static func validation(_ seed: UInt64) -> UInt64 { RolloutCore.SplitMix64.seed(seed, 0x76616C) }
}

/// `device` of the configuration or the command line, opened.
public enum DeviceChoice: Sendable, Hashable {
    case auto
    case cpu
    case cuda(Int)

    init(_ setting: RunConfig.Device) {
        switch setting {
        case .auto: self = .auto
        case .cpu: self = .cpu
        case .cuda(let index): self = .cuda(index ?? 0)
        }
    }

    /// `auto`, `cpu`, `cuda` or `cuda:N`; nil for anything else.
    public init?(_ text: String) {
        switch text {
        case "auto": self = .auto
        case "cpu": self = .cpu
        case "cuda": self = .cuda(0)
        default:
            guard text.hasPrefix("cuda:"), let index = Int(text.dropFirst(5)), index >= 0 else { return nil }
            self = .cuda(index)
        }
    }

    /// The device of a rank: the GPU of its place on the host, where there are GPUs.
    public func of(_ localRank: Int?) -> DeviceChoice {
        guard let localRank, self != .cpu else { return self }
        if self == .auto, !FileManager.default.fileExists(atPath: "/dev/nvidia0") { return .cpu }
        // A launcher may show each rank its own GPU alone.
        return .cuda(VisibleDevices.count() == 1 ? 0 : localRank)
    }

    /// Opens libtorch's CUDA half where it is wanted. `auto` takes the CPU when there is no GPU.
    /// - Throws: ``WorkerError`` with code `device`.
    public func open() throws -> TensorCore.Device {
        switch self {
        case .cpu: return .cpu
        case .auto:
            guard FileManager.default.fileExists(atPath: "/dev/nvidia0") else { return .cpu }
            return try DeviceChoice.cuda(0).open()
        case .cuda(let index):
            try Torch.loadCUDA(from: Self.cudaFolder)
            guard index < Torch.cudaDeviceCount else {
                throw WorkerError(
                    .device, "device cuda:\(index) is not there: this machine has \(Torch.cudaDeviceCount) CUDA devices"
                )
            }
            return .cuda(index)
        }
    }

    /// Where `libtorch_cuda.so` lies: beside the libtorch that FLEDGE_TORCH names, else on the library path.
    private static var cudaFolder: String {
        ProcessInfo.processInfo.environment["FLEDGE_TORCH"].map { $0 + "/lib" } ?? ""
    }
}

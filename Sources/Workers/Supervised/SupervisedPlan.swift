import PolicyAlgorithms
import Checkpoints
import Config
import Datasets
import Foundation
import Logging
import Models
import TensorCore
import TrainingEngine

/// What a configuration comes to on this machine: device, types, the objective.
struct SupervisedPlan {
    let config: SupervisedConfig
    let device: Device
    let dtype: DType
    /// The ranks that train together; nil for this one alone.
    let members: PoolMembers?
    private let layout: ShardingPlan?

    /// - Throws: ``WorkerError`` with code `device` when the device asked for is not there, `badSetting` where the ranks do not make
    ///   the layout that the configuration asks for.
    init(_ config: SupervisedConfig, _ rank: SupervisedRun.Rank? = nil) throws {
        self.config = config
        members = try rank.map { try PoolMembers($0.members, nil) }
        layout = try rank.map { try ShardingPlan(config.train, ranks: $0.members.size) }
        device = try DeviceChoice(config.device).of(rank?.localRank).open()
        dtype = config.model.dtype == .bfloat16 ? .bfloat16 : .float32
    }

    /// How ranks share the work, a sentence; nil for one process.
    var layoutNote: String? { layout.map { "\(members?.size ?? 1) ranks: \($0.mesh)" } }

    /// Threads of the CPU's kernels, of which ranks on one host have their part each.
    func limitThreads() {
        if let threads = config.trainer.numThreads {
            Torch.threadCount = threads
        } else if let ranks = members?.all.ranksOfHost, ranks > 1 {
            Torch.threadCount = max(1, ProcessInfo.processInfo.activeProcessorCount / ranks)
        }
    }

    /// One line for each kind.
    var objective: any SupervisedObjective {
        switch config.objective {
        case .sft(let sft): ImitationObjective(SFTLoss(sft.lossType == .dft ? .dft : .nll))
        case .dpo(let dpo): PreferenceObjective(DPOLoss(dpo))
        case .rewardModel(let reward):
            RewardObjective(RewardModelLoss(centerCoefficient: reward.centerRewardsCoefficient))
        }
    }

    var model: SupervisedWorker.Plan {
        var plan = SupervisedWorker.Plan(
            kind: config.kind, modelPath: config.model.path, templatePath: config.model.chatTemplate, dtype: dtype,
            device: device, checkpointing: ActivationCheckpointing(config.model),
            offloadsActivations: config.model.activationOffload,
            adapter: AdapterPlan(config.model, seed: UInt64(config.seed)), mergesAdapter: config.model.loraMerge,
            seed: UInt64(config.seed))
        (plan.members, plan.layout) = (members, layout)
        plan.samples = config.eval?.maxNewTokens ?? 0 > 0
        return plan
    }

    func training(totalSteps: Int, checkpoints: String) -> SupervisedWorker.Training {
        let train = config.train
        return SupervisedWorker.Training(
            objective: objective, shares: TrainingShares(train),
            optimizer: .init(train.optim, config.model, train.fsdp, seed: UInt64(config.seed)),
            schedule: LearningRateSchedule(train.optim, steps: totalSteps),
            settings: .init(
                microBatchTokens: train.maxTokenLenPerGPU, gradClip: train.gradClip ?? 0,
                sharesPrefixes: train.sharePrefix && config.data.assistantOnlyLoss,
                routerAuxLossCoefficient: train.routerAuxLossCoefficient),
            checkpointFolder: checkpoints, checkpointsKept: config.trainer.maxActorCheckpointsToKeep)
    }

    private var columns: SupervisedColumns {
        var columns = SupervisedColumns(config.kind == .sft ? .imitation : .pairs)
        columns.messages = config.data.messagesKey
        columns.prompt = config.data.promptKey
        columns.completion = config.data.completionKey
        columns.chosen = config.data.chosenKey
        columns.rejected = config.data.rejectedKey
        columns.margin = config.data.marginKey
        return columns
    }

    /// Rows to train on and to measure by, of which this rank has encoded its part.
    struct Rows: Sendable {
        let training: SupervisedDataset.Rows
        let heldOut: SupervisedDataset.Rows?
    }

    func rows(_ encoder: SupervisedEncoder) throws -> Rows {
        func rows(_ entries: [String], _ setting: String) throws -> SupervisedDataset.Rows {
            let paths = try entries.flatMap { entry in
                try FilePattern.files(entry, setting: setting, place: config.place(of: setting))
            }
            let watch = members?.watch
            return try SupervisedDataset.Rows(
                paths: paths, columns: columns, encoder: encoder, part: (members?.rank ?? 0, of: members?.size ?? 1)
            ) { watch?.tick() }
        }
        return Rows(
            training: try rows(config.data.trainFiles, "data.train_files"),
            heldOut: config.data.valFiles.isEmpty ? nil : try rows(config.data.valFiles, "data.val_files"))
    }

    /// The rows of one setting with what all ranks have found of them.
    func dataset(
        _ rows: SupervisedDataset.Rows, _ measured: [SupervisedDataset.Measured], _ setting: String, _ log: Logger
    ) throws -> SupervisedDataset {
        let dataset = try SupervisedDataset(rows, measured: measured)
        func note(_ count: Int, _ fate: String) {
            guard count > 0 else { return }
            log.warning(
                """
                \(count) of \(dataset.count + dataset.dropped) rows of \(setting) are longer than data.max_length \
                (\(config.data.maxLength)) and are \(fate); the longest sequence has \(dataset.longest) tokens
                """)
        }
        note(dataset.dropped, "left out")
        note(dataset.cut, "cut")
        return dataset
    }
}

extension FilePattern {
    /// The files of one entry of a setting, a pattern or a name.
    /// - Parameter place: where the setting was written.
    static func files(_ entry: String, setting: String, place: String?) throws -> [String] {
        do {
            return try files(entry)
        } catch let error as DatasetError {
            throw DatasetError(
                error.code,
                "\(place.map { "\($0): " } ?? "")\(setting): \(error.message); give a pattern that does, or a file's name "
                    + "(paths are relative to the folder that the command runs in)")
        }
    }
}

extension DPOLoss {
    init(_ dpo: DPOSettings) {
        let weights = dpo.lossWeights.isEmpty ? dpo.lossTypes.map { _ in 1 } : dpo.lossWeights
        self.init(
            zip(dpo.lossTypes, weights).map { WeightedTerm(Term($0, smooths: dpo.labelSmoothing > 0), weight: $1) },
            beta: dpo.beta, labelSmoothing: dpo.labelSmoothing)
    }
}

extension DPOLoss.Term {
    /// - Parameter smooths: whether labels are smoothed, which makes the sigmoid loss the conservative one.
    init(_ loss: DPOSettings.Loss, smooths: Bool) {
        self =
            switch loss {
            case .sigmoid: smooths ? .conservative : .sigmoid
            case .hinge: .hinge
            case .ipo: .ipo
            case .robust: .robust
            case .discopop: .discopop
            case .sft: .sft
            case .exoPair: .exoPair
            case .ncaPair: .ncaPair
            case .bcoPair: .bcoPair
            case .sppoHard: .sppoHard
            case .apoZero: .apoZero
            case .apoDown: .apoDown
            case .sigmoidNorm: .sigmoidNorm
            }
    }
}

public import Config
public import Models
public import TensorCore
import TrainingEngine

/// What a step of a run asks of its devices.
public struct PlanWork: Sendable, Hashable {
    /// Prompts of a step and answers of each; their lengths in tokens.
    public var prompts = 128, samples = 8, promptTokens = 512, responseTokens = 512
    /// Prompts of an optimizer step, and passes over each batch.
    public var miniBatch = 64, epochs = 1
    /// Tokens of a micro-batch.
    public var microBatchTokens = 16_384
    public var sharesPrefix = true
    /// Of weights and activations.
    public var dtype = DType.bfloat16
    var optimizer = AdamW.Settings()
    /// The type in which gradients travel between devices.
    public var reduceDType = DType.float32
    public var checkpointing = ActivationCheckpointing.none
    public var offloadsActivations = false
    /// Whether the initial model is kept beside, and whether old log-probabilities take a pass of their own.
    public var needsReference = false, recomputesLogProbs = false
    /// Whether the initial model's weights lie in host memory between two scorings; nil: where devices have no room for all.
    public var restsReference: Bool?
    /// Whether roles that share devices rest in host memory but for their turns; nil: as many as devices have no room for otherwise.
    public var takesTurns: Bool?
    /// Whether a critic with a model of its own is trained beside.
    public var trainsCritic = false
    public var engine = RolloutEngineSettings()
    /// Whether a reward model, of which nothing is counted, is on the same devices.
    var scoresWithModel = false
    /// Whether there is generation at all.
    public var generates = true
    /// Whether anything is learned, or the model only read.
    var learns = true
    /// Whether the policy that is trained is here, and whether its weights travel between its devices and samplers on others.
    var trainsPolicy = true, samplesApart = false

    public init() {}

    public init(_ config: RunConfig) {
        let data = config.data, actor = config.actor
        (prompts, samples) = (data.trainBatchSize, config.rollout.n)
        (promptTokens, responseTokens) = (data.maxPromptLength, data.maxResponseLength)
        (miniBatch, epochs) = (actor.ppoMiniBatchSize, actor.ppoEpochs)
        (microBatchTokens, sharesPrefix) = (actor.ppoMaxTokenLenPerGPU, actor.sharePrefix)
        dtype = config.model.dtype == .bfloat16 ? .bfloat16 : .float32
        optimizer = AdamW.Settings(config)
        reduceDType = actor.fsdp.reduceDType == .float32 ? .float32 : .bfloat16
        checkpointing = ActivationCheckpointing(config.model)
        offloadsActivations = config.model.activationOffload
        needsReference = config.needsReferenceModel && !config.model.usesLoRA
        restsReference = config.reference.paramOffload
        takesTurns = config.trainer.takesTurns
        recomputesLogProbs = config.recomputesOldLogProbs
        trainsCritic = config.hasCritic && !config.critic.sharesTrunk
        engine = RolloutEngineSettings(config.rollout)
        scoresWithModel = config.reward.model != nil
    }

    /// Whether the sampler may stay awake while the policy learns, where there is room.
    var mayKeepCache: Bool {
        generates && trainsPolicy && learns && !scoresWithModel && engine.freesCacheBetween == nil
    }
    /// Whether it does whatever room there is: as asked for, or because nothing is trained where it is.
    var keepsCache: Bool { generates && (!trainsPolicy || engine.freesCacheBetween == false) }

    /// What of it ranks with these roles do.
    func part(of roles: Set<Role>) -> PlanWork {
        var work = self
        work.generates = roles.contains(.rollout)
        work.trainsPolicy = roles.contains(.actor)
        work.learns = work.trainsPolicy
        work.scoresWithModel = scoresWithModel && roles.contains(.rewardModel)
        work.samplesApart = work.generates != work.trainsPolicy
        work.needsReference = needsReference && roles.contains(.reference)
        work.trainsCritic = trainsCritic && roles.contains(.critic)
        work.recomputesLogProbs = recomputesLogProbs && work.trainsPolicy
        return work
    }

    public var sequences: Int { prompts * samples }
    public var optimizerSteps: Int { (prompts + miniBatch - 1) / miniBatch * epochs }
    /// Tokens that a pass over the batch computes, every answer at its longest.
    public var batchTokens: Int {
        sequences * responseTokens + (sharesPrefix ? prompts : sequences) * promptTokens
    }
}

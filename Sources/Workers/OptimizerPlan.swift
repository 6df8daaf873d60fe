import Config
import TensorCore
import TrainingEngine

extension LearningRateSchedule {
    /// - Parameter steps: optimizer steps of the whole run.
    init(_ optim: OptimizerSettings, steps: Int) {
        let decay: Decay =
            switch optim.schedule {
            case .constant: .constant
            case .linear: .linear
            case .cosine: .cosine
            }
        self.init(
            peak: optim.lr, warmupSteps: optim.lrWarmupSteps ?? Int(optim.lrWarmupStepsRatio * Double(steps)),
            decay: decay, totalSteps: optim.totalTrainingSteps ?? steps, minRatio: optim.minLRRatio)
    }
}

extension AdamW.Settings {
    init(_ optim: OptimizerSettings, _ model: ModelSettings, _ fsdp: ShardingSettings, seed: UInt64) {
        self.init(
            beta1: optim.betas[0], beta2: optim.betas[1], epsilon: optim.eps, weightDecay: optim.weightDecay)
        decaysVectors = optim.decaysVectors
        moments =
            switch optim.stateDType {
            case .float32: .float32
            case .bfloat16: .bfloat16
            case .int8: .int8
            }
        keepsMasters = model.paramDType == .float32
        gradDType = fsdp.gradDType == .float32 ? .float32 : .bfloat16
        offloadsMasters = fsdp.paramOffload
        offloadsMoments = fsdp.optimizerOffload
        offloadedMoments = fsdp.optimizerOffloadRatio
        roundsStochastically = optim.stochasticRounding
        self.seed = seed
    }

    init(_ config: RunConfig) {
        self.init(config.actor.optim, config.model, config.actor.fsdp, seed: UInt64(config.seed))
    }

    /// Of the critic, whose chance is not the policy's.
    init(critic config: RunConfig) {
        self.init(config.critic.optim, config.model, config.actor.fsdp, seed: UInt64(config.seed) ^ 0x6372_6974_6963)
    }
}

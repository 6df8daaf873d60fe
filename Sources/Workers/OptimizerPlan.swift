import Config
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
    init(_ optim: OptimizerSettings) {
        self.init(
            beta1: optim.betas[0], beta2: optim.betas[1], epsilon: optim.eps, weightDecay: optim.weightDecay)
    }
}

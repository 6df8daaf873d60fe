import Config
import PolicyAlgorithms
import TrainingEngine

// The configuration's settings as those of the algorithms.

extension LossAggregation {
    /// - Parameter width: what `seq-mean-token-sum-norm` divides by, where nothing else is said.
    init(_ setting: ActorSettings.LossAggregation, scaleFactor: Double?, width: Int) throws {
        guard let mode = Mode(rawValue: setting.rawValue) else {
            throw WorkerError(.badSetting, "loss_agg_mode: '\(setting.rawValue)' is not known")
        }
        self.init(mode, scaleFactor: scaleFactor ?? Double(width))
    }
}

extension PolicyAlgorithms.KLEstimator {
    init(_ setting: Config.KLEstimator) throws {
        guard let estimator = PolicyAlgorithms.KLEstimator(name: setting.word) else {
            throw WorkerError(.badSetting, "no KL estimator is called '\(setting.word)'")
        }
        self = estimator
    }
}

extension RolloutCorrection {
    /// - Throws: ``AlgorithmError`` for a rule or a threshold that makes no sense.
    init(_ setting: RolloutCorrectionSettings) throws {
        try self.init(
            weights: setting.level, threshold: setting.threshold, normalizes: setting.normalizes,
            rejection: setting.rejection, rejectionThreshold: setting.rejectionThreshold)
    }
}

extension PolicyLossSettings {
    init(_ actor: ActorSettings, _ correction: RolloutCorrectionSettings) throws {
        let numbers = actor.policyLossNumbers
        self.init(
            clipLow: actor.clipLow, clipHigh: actor.clipHigh, dualClip: actor.clipRatioC,
            clipCovRatio: numbers.clipCovRatio, clipCovLower: numbers.clipCovLower,
            clipCovUpper: numbers.clipCovUpper, klCovRatio: numbers.klCovRatio,
            klCovCoefficient: numbers.klCovCoefficient, tauPositive: numbers.tauPositive,
            tauNegative: numbers.tauNegative, droBeta: numbers.droBeta,
            rolloutCorrection: try RolloutCorrection(correction),
            bypassLoss: correction.bypassLoss == .reinforce ? .reinforce : .ppoClip)
    }
}

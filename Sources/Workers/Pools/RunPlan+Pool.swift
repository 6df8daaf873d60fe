import Config
import Flow
import TensorCore

extension RunPlan {
    /// How sampling overlaps with learning; nil where both share their devices.
    var overlap: OverlapSettings? {
        guard config.samplesBeside else { return nil }
        let async = config.async
        let mode: OverlapSettings.Mode =
            switch async.mode {
            case .synchronous: .synchronous
            case .streaming: .streaming
            case .oneStepOff: .oneStepOff
            case .fullyAsync: .fullyAsync
            }
        let order: ReplayBuffer.Settings.Order =
            switch async.replayOrder {
            case .oldest: .oldest
            case .newest: .newest
            case .priority: .priority
            }
        return OverlapSettings(
            mode: mode, groupsPerStep: config.data.trainBatchSize, groupsPerUpdate: config.actor.ppoMiniBatchSize,
            maxStaleness: async.stalenessThreshold, syncEvery: async.triggerParameterSyncStep,
            partialRollouts: async.partialRollout, overSampling: config.rollout.overSampleRate, order: order,
            uses: async.replayUses, capacity: async.replayCapacity)
    }

    /// Samples that a pool may have to draw at a time.
    var samplesUnderWay: Int { config.promptsBegun * ((overlap?.maxStaleness ?? 0) + 1) * config.rollout.n }

    /// The samplers of a pool beside the device that trains; nil where there is none.
    func samplers() throws -> [PolicyWorker]? {
        guard let count = config.rollout.gpusPerNode else { return nil }
        let begun = samplesUnderWay
        return try (0..<count).map { index in
            var plan = try policy(nil)
            if case .cuda(let first) = device { plan.device = try DeviceChoice.cuda(first + 1 + index).open() }
            plan.engine.freesCacheBetween = false
            plan.poolRows = (begun + count - 1) / count
            plan.poolLongest = config.data.maxPromptLength + config.data.maxResponseLength
            return PolicyWorker(plan)
        }
    }
}

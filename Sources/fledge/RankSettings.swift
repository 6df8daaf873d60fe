import Config

/// What a configuration says of the ranks that carry it out, whichever command it is for.
struct RankSettings {
    var device: RunConfig.Device
    var trainer: TrainerSettings
    var cluster: ClusterSettings
    var experimentName, runFolder: String
    /// Ranks of all hosts; nil: as many as there are devices.
    var asked: Int?
    /// Whether they are asked for by pools.
    var hasPools = false
    /// GPUs beside those of ranks, for samplers of a run of one process.
    var samplers: Int?

    init(_ config: RunConfig) {
        (device, trainer, cluster) = (config.device, config.trainer, config.cluster)
        (experimentName, runFolder) = (config.experimentName, config.runFolder)
        (asked, hasPools, samplers) = (config.ranksAsked, config.hasPools, config.rollout.gpusPerNode)
    }

    init(_ config: SupervisedConfig) {
        (device, trainer, cluster) = (config.device, config.trainer, config.cluster)
        (experimentName, runFolder) = (config.experimentName, config.runFolder)
        asked = config.trainer.gpusPerNode.map { $0 * config.trainer.nodes }
    }
}

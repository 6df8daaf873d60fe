import Collectives
import Config
import Models
import RolloutEngine
import TensorCore

/// What bringing weights to samplers elsewhere took on one rank.
struct WeightDelivery: Codable {
    var version: Int
    var sentBytes, receivedBytes: Int
    var seconds: Double
}

extension PolicyWorker {
    /// Gives this rank's part of the weights, or gets what it samples from. All ranks of both pools call it.
    /// - Parameter version: what the weights become; nil: the policy's own.
    /// - Throws: `ReshardError` where what arrived is not what was sent.
    func deliverWeights(version: Int?) throws -> WeightDelivery {
        let parts = try loaded()
        guard let members = plan.members, plan.trains != plan.samples else {
            throw WorkerError(.badSetting, "weights are brought elsewhere only between two pools")
        }
        let progress = members.all.progress, before = progress.current
        progress.enter(.init(step: before.step, phase: "sync_weights"))
        defer { progress.enter(before) }
        let report: WeightLink.Report
        if plan.trains {
            let held = try trainedShards(), link = try link(members, held: held, wanted: [])
            report = try link.run(from: held, into: [], version: version ?? parts.rollout.weightVersion)
        } else {
            let targets = try withNoGrad { try parts.rollout.model.parameters.flatMap { try $0.shards() } }
            let link = try link(members, held: [], wanted: targets)
            var taken: WeightLink.Report?
            try parts.rollout.replaceWeights {
                let report = try link.run(from: [], into: targets, version: nil) {
                    try Self.rehearse(members, progress.current, targets)
                }
                taken = report
                return report.version
            }
            weightsChanged(digest: nil)
            guard let taken else { preconditionFailure("an update without a report") }
            report = taken
        }
        return WeightDelivery(
            version: report.version, sentBytes: report.traffic.sentBytes, receivedBytes: report.traffic.receivedBytes,
            seconds: report.traffic.seconds)
    }

    private func link(_ members: PoolMembers, held: [LocalShard], wanted: [LocalShard]) throws -> WeightLink {
        if let link { return link }
        let ranks = members.ranks(.actor, .rollout)
        let made = try WeightLink(
            held: held.map(\.spec), wanted: wanted.map(\.spec),
            group: members.all.group(ranks, device: plan.device, name: "weights"), device: plan.device,
            names: ranks.map(RankMembership.name))
        link = made
        return made
    }

    /// Acts out damage on the way, where that is rehearsed.
    private static func rehearse(_ members: PoolMembers, _ place: RankProgress.Place, _ targets: [LocalShard]) throws {
        guard let rehearsal = members.all.progress.rehearsal, rehearsal.spoils(rank: members.all.rank, at: place),
            let last = targets.last
        else { return }
        try withNoGrad { try last.tensor.copy(from: last.tensor.multiplied(by: 1.5)) }
    }
}

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
    /// Why they were not brought: ranks that sample are lost, and this one goes on.
    var broken: String?

    init(_ report: WeightLink.Report) {
        version = report.version
        sentBytes = report.traffic.sentBytes
        receivedBytes = report.traffic.receivedBytes
        seconds = report.traffic.seconds
    }

    init(broken: String) {
        version = -1
        sentBytes = 0
        receivedBytes = 0
        seconds = 0
        self.broken = broken
    }
}

extension PolicyWorker {
    /// Gives this rank's part of the weights, or gets what it samples from. All ranks of both pools call it.
    /// - Parameters:
    ///   - version: what the weights become; nil: the policy's own.
    ///   - number: of the link: another one since samplers were started anew.
    /// - Throws: `ReshardError` where what arrived is not what was sent.
    func deliverWeights(version: Int?, link number: Int) throws -> WeightDelivery {
        let parts = try loaded()
        guard let members = plan.members, plan.trains != plan.samples else {
            throw WorkerError(.badSetting, "weights are brought elsewhere only between two pools")
        }
        let progress = members.all.progress, before = progress.current
        progress.enter(.init(step: before.step, phase: "sync_weights"))
        defer { progress.enter(before) }
        let report: WeightLink.Report
        if plan.trains {
            let held = try trainedShards(), own = parts.rollout.weightVersion
            do {
                report = try bring(held, [], version: version ?? own, over: number, members)
            } catch  where members.all.hasOtherGangs && (error is TorchError || error is WorkerError) {
                // The weights were only read: it is the samplers' loss.
                dropLink()
                return WeightDelivery(broken: "\(error)")
            }
        } else {
            let model = parts.rollout.model
            let targets = try withNoGrad {
                try (model.parameters + (model.adapter?.parameters ?? [])).flatMap { try $0.shards() }
            }
            var taken: WeightLink.Report?
            try parts.rollout.replaceWeights {
                let report = try bring([], targets, version: nil, over: number, members) {
                    try Self.rehearse(members, progress.current, targets)
                }
                taken = report
                return report.version
            }
            weightsChanged(digest: nil)
            guard let taken else { preconditionFailure("an update without a report") }
            report = taken
        }
        return WeightDelivery(report)
    }

    /// Gives or gets what has changed: everything the first time over a link, since another host may have read other files; then, where
    /// an adapter is trained, its matrices alone.
    private func bring(
        _ held: [LocalShard], _ wanted: [LocalShard], version: Int?, over number: Int, _ members: PoolMembers,
        arrived: () throws -> Void = {}
    ) throws -> WeightLink.Report {
        let adapter = try loaded().models.trained.adapter
        let names = adapter.map { Set($0.parameters.flatMap { $0.parts.map(\.box.name) }) }
        func changing(_ shards: [LocalShard]) -> [LocalShard] {
            names.map { names in shards.filter { names.contains($0.box.name) } } ?? shards
        }
        if let link, link.number == number {
            return try link.link.run(
                from: changing(held), into: changing(wanted), version: version, arrived: arrived)
        }
        dropLink()
        let ranks = members.ranks(.actor, .rollout)
        let group: ProcessGroup
        if members.all.hasOtherGangs {
            group = try members.all.groupAcrossGangs(ranks, device: plan.device, name: "weights/\(number)")
            try plan.linkBreaker.hold(number, group)
        } else {
            group = try members.all.group(ranks, device: plan.device, name: "weights")
        }
        func makeLink(_ held: [LocalShard], _ wanted: [LocalShard]) throws -> WeightLink {
            try WeightLink(
                held: held.map(\.spec), wanted: wanted.map(\.spec), group: group, device: plan.device,
                names: ranks.map(RankMembership.name))
        }
        let whole = try makeLink(held, wanted)
        link = (number, names == nil ? whole : try makeLink(changing(held), changing(wanted)))
        return try whole.run(from: held, into: wanted, version: version, arrived: arrived)
    }

    private func dropLink() {
        plan.linkBreaker.release()
        link = nil
    }

    /// Acts out damage on the way, where that is rehearsed.
    private static func rehearse(_ members: PoolMembers, _ place: RankProgress.Place, _ targets: [LocalShard]) throws {
        guard let rehearsal = members.all.progress.rehearsal, rehearsal.spoils(rank: members.all.rank, at: place),
            let last = targets.last
        else { return }
        try withNoGrad { try last.tensor.copy(from: last.tensor.multiplied(by: 1.5)) }
    }
}

import Config
import Models
import TensorCore

/// Looks for the devices that each role should be on: all together, sampling apart, reference and critic apart, or everything apart.
///
/// Each pool's layout is the planner's own choice for its devices and its share of the work; what a step takes is then the longest way
/// through the pools.
public struct MappingPlanner: Sendable {
    public struct Result: Sendable {
        /// The fastest; of those that the estimate cannot tell apart the simplest. nil: nothing fits.
        public var chosen: PlanMapping?
        /// Why, in a line.
        public var reason: String?
        /// The fastest of each other kind, and what fits nowhere.
        public var rejected: [TrainingPlanner.Rejection]
    }

    /// What is apart from the actor.
    private struct Division: Hashable {
        /// Devices of the samplers and of reference and critic; 0: with the actor.
        var sampling = 0, scoring = 0
        var overlap = PlanMapping.Overlap.synchronous

        var kind: String {
            let apart = (sampling > 0 ? ["rollout apart"] : []) + (scoring > 0 ? ["reference and critic apart"] : [])
            let name = apart.isEmpty ? "all on the same devices" : apart.joined(separator: ", ")
            return overlap == .synchronous ? name : name + ", \(overlap.rawValue)"
        }
    }

    let model: PlanModel
    let work: PlanWork
    /// One of them, as it is while all are at work.
    let device: PlanDevice
    let devices: Int
    /// Less than this between two estimates says nothing.
    private static let margin = 0.97

    public init(model: PlanModel, work: PlanWork, device: PlanDevice, devices: Int) {
        self.model = model
        self.work = work
        self.device = device.shared(by: devices)
        self.devices = max(1, devices)
    }

    private var scores: Bool { work.needsReference || work.trainsCritic }

    /// Sizes of a pool apart that are tried.
    private var sizes: [Int] {
        let step = max(1, devices / 16)
        return Array(stride(from: step, to: devices, by: step))
    }

    public func plan() -> Result {
        var trainers: [PoolKey: TrainingPlanner.Candidate?] = [:]
        var best: [String: PlanMapping] = [:], kinds: [String] = [], unfit: [String: String] = [:]
        var divisions = [Division()]
        if devices > 1 {
            if work.generates {
                divisions += sizes.map { Division(sampling: $0) }
                divisions += sizes.map { Division(sampling: $0, overlap: .oneStepOff) }
            }
            if scores {
                // A quarter to a half: they do what the actor does, and less.
                let apart = Set([devices / 4, devices / 3, devices / 2]).filter { $0 > 0 }.sorted()
                divisions += apart.map { Division(scoring: $0) }
                if work.generates {
                    divisions += apart.flatMap { scoring in
                        sizes.filter { $0 + scoring < devices }.map { Division(sampling: $0, scoring: scoring) }
                    }
                }
            }
        }
        for division in divisions {
            let kind = division.kind
            if !kinds.contains(kind) { kinds.append(kind) }
            switch mapping(division, &trainers) {
            case .success(let made):
                if best[kind].map({ made.seconds < $0.seconds * 0.999 }) ?? true { best[kind] = made }
            case .failure(let problem): if unfit[kind] == nil { unfit[kind] = problem.why }
            }
        }
        let found = kinds.compactMap { kind in best[kind].map { (kind: kind, mapping: $0) } }
        var chosen = found.first
        for other in found.dropFirst() where other.mapping.seconds < chosen!.mapping.seconds * Self.margin {
            // Weights of a step before are for somebody to decide, not for a clock.
            if other.mapping.overlap == .synchronous { chosen = other }
        }
        var rejected = found.filter { $0.kind != chosen?.kind }.sorted { $0.mapping.seconds < $1.mapping.seconds }.map {
            TrainingPlanner.Rejection(
                what: $0.mapping.description, why: why($0.mapping, beside: chosen?.mapping))
        }
        rejected += kinds.filter { best[$0] == nil }.map {
            TrainingPlanner.Rejection(what: $0, why: unfit[$0] ?? "fits in no way")
        }
        return Result(chosen: chosen?.mapping, reason: chosen.map { reason($0.mapping) }, rejected: rejected)
    }

    private struct Unfit: Error { var why: String }
    /// What a training pool was planned for.
    private struct PoolKey: Hashable {
        var name: String
        var devices: Int
        var generates, scores: Bool
        /// Whose sizes it has to have: reference and critic are cut as the actor is.
        var cut: PlanLayout?

        func allows(_ layout: PlanLayout) -> Bool {
            guard let cut else { return true }
            return [layout.tp, layout.sp, layout.ep, layout.pp] == [cut.tp, cut.sp, cut.ep, cut.pp]
                && (layout.fsdp == 1 || cut.fsdp == 1 || layout.sharding == cut.sharding)
        }
    }

    // MARK: - One division

    private func mapping(
        _ division: Division, _ known: inout [PoolKey: TrainingPlanner.Candidate?]
    ) -> Swift.Result<PlanMapping, Unfit> {
        let training = devices - division.sampling - division.scoring
        let own = PoolKey(
            name: division == Division() ? "all" : "actor", devices: training,
            generates: division.sampling == 0 && work.generates, scores: division.scoring == 0 && scores)
        guard let actor = pool(own, &known) else {
            return .failure(Unfit(why: "no layout of \(training) devices has room for the actor"))
        }
        var pools = [actor.pool], busy = actor.time
        var sampling = busy["generate"], scoring = busy["log-prob"], update = busy["update critic"] + busy["update"]
        update += busy["optimizer step"] + busy["turns"]
        var sync = busy["weight sync"]
        if division.scoring > 0 {
            let key = PoolKey(
                name: "scores", devices: division.scoring, generates: false, scores: true, cut: actor.pool.layout)
            guard let beside = pool(key, &known) else {
                return .failure(Unfit(why: "\(division.scoring) devices have no room for reference and critic"))
            }
            busy = beside.time
            scoring = max(scoring, busy["log-prob"])
            if work.trainsCritic { update = max(update, busy["update"] + busy["optimizer step"] + busy["turns"]) }
            pools.append(beside.pool)
        }
        if division.sampling > 0 {
            guard let samplers = samplers(division.sampling) else {
                return .failure(
                    Unfit(
                        why: "\(division.sampling) devices have no room for the weights and a cache of keys and values")
                )
            }
            sampling = samplers.busy
            pools.append(samplers)
            // One tensor after the other from the trainers to all samplers.
            sync += Double(model.trained.reduce(0) { $0 + $1.count } * work.dtype.size) / device.link
        }
        let learning = scoring + update
        let seconds = division.overlap == .synchronous ? sampling + learning + sync : max(sampling, learning) + sync
        return .success(PlanMapping(pools: pools, overlap: division.overlap, seconds: seconds))
    }

    /// Phases' seconds by name; 0 where there is none.
    private struct Times {
        var forecast: TimeForecast?
        subscript(name: String) -> Double {
            forecast?.phases.first { $0.name == name }?.seconds ?? 0
        }
    }

    private func pool(
        _ key: PoolKey, _ known: inout [PoolKey: TrainingPlanner.Candidate?]
    ) -> (pool: PlanMapping.Pool, time: Times)? {
        let found = known[key] ?? trainer(key)
        known[key] = .some(found)
        guard let candidate = found else { return nil }
        let roles: [String]
        if key.name == "scores" {
            roles = (work.trainsCritic ? ["critic"] : []) + (work.needsReference ? ["reference"] : [])
        } else {
            roles =
                ["actor"] + (key.generates ? ["rollout"] : [])
                + (key.scores ? (work.trainsCritic ? ["critic"] : []) + (work.needsReference ? ["reference"] : []) : [])
        }
        // A critic learns with settings of its own; a reference only reads.
        let isActor = key.name != "scores"
        let made = PlanMapping.Pool(
            name: key.name, roles: roles, devices: key.devices, layout: candidate.layout, peak: candidate.memory.peak,
            phase: candidate.memory.worst.name, busy: candidate.time.total, settings: isActor ? candidate.settings : [])
        return (made, Times(forecast: candidate.time))
    }

    /// The best layout of a pool that learns.
    private func trainer(_ key: PoolKey) -> TrainingPlanner.Candidate? {
        var part = work
        part.generates = key.generates
        if key.name == "scores" {
            // A model like the actor's stands for the critic, or for a reference that is alone and only read.
            part.recomputesLogProbs = true
            part.needsReference = work.needsReference && work.trainsCritic
            part.trainsCritic = false
            part.learns = work.trainsCritic
        } else if !key.scores {
            (part.needsReference, part.trainsCritic) = (false, false)
        }
        return TrainingPlanner(model: model, work: part, oneOf: device, devices: key.devices).fastest(
            where: key.allows
        ).chosen
    }

    /// Devices that only sample, in groups of as many as are fastest.
    private func samplers(_ count: Int) -> PlanMapping.Pool? {
        let sampling = work.part(of: [.rollout])
        var best: PlanMapping.Pool?
        for together in [1, 2, 4, 8] where count % together == 0 {
            var layout = PlanLayout()
            (layout.dp, layout.rollout, layout.sharding) = (count, together, .noShard)
            guard layout.problem(model) == nil else { continue }
            let memory = MemoryForecast(model, sampling, layout, device: device)
            guard memory.fits(device) else { continue }
            let busy = TimeForecast.generation(model, work, layout, device: device)
            guard best.map({ busy < $0.busy * Self.margin }) ?? true else { continue }
            best = PlanMapping.Pool(
                name: "samplers", roles: ["rollout"], devices: count, layout: layout, peak: memory.peak,
                phase: memory.worst.name, busy: busy,
                settings: together > 1 ? ["rollout.tensor_model_parallel_size=\(together)"] : [])
        }
        return best
    }

    // MARK: - In words

    private func why(_ mapping: PlanMapping, beside chosen: PlanMapping?) -> String {
        let idle = "\(Int((mapping.idle * 100).rounded())) % of the devices' time idle"
        guard let chosen else { return "\(PlanText.seconds(mapping.seconds)) a step, \(idle)" }
        let more = Int(((mapping.seconds / chosen.seconds - 1) * 100).rounded())
        let text =
            "\(PlanText.seconds(mapping.seconds)) a step, \(more < 0 ? "\(-more) % less" : "\(more) % more"), \(idle)"
        return mapping.overlap == .synchronous ? text : text + "; answers are of weights one step behind"
    }

    private func reason(_ mapping: PlanMapping) -> String {
        guard let first = mapping.pools.first, mapping.pools.count > 1 else {
            return devices == 1
                ? "one device" : "roles take turns on all devices, and none of them waits while another works"
        }
        let others = mapping.pools.dropFirst().map {
            "\($0.roles.joined(separator: "+")) on \($0.devices) of \(devices)"
        }
        return
            "\(others.joined(separator: ", ")) leaves \(PlanText.gib(device.memory - first.peak)) a device of the actor's free, and "
            + "\(Int((mapping.idle * 100).rounded())) % of the devices' time idle"
    }
}

import Checkpoints
public import Config
import Foundation
import Models
public import TensorCore
import TrainingEngine

/// Looks for the layout, the micro-batch and the checkpointing of layers under which a run fits its devices and is fastest.
public struct TrainingPlanner: Sendable {
    public enum Verdict: String, Sendable, Hashable {
        case fits
        /// There is room for the states, and perhaps not for the longest batch.
        case mayRunOut = "may run out"
        case cannotFit = "cannot fit"
    }

    /// One way to run a step.
    public struct Candidate: Sendable, Hashable {
        public var layout: PlanLayout
        public var mode: String
        public var microBatchTokens: Int
        public var memory: MemoryForecast
        public var time: TimeForecast

        /// What a recipe says for it.
        public var settings: [String] {
            layout.settings + [
                "model.activation_checkpointing=\(mode)", "actor.ppo_max_token_len_per_gpu=\(microBatchTokens)",
            ]
        }
    }

    public struct Rejection: Sendable, Hashable {
        public var what, why: String
    }

    public struct Result: Sendable {
        public var model: PlanModel
        public var device: PlanDevice
        public var work: PlanWork
        /// As the configuration says.
        public var asIs: Candidate
        public var verdict: Verdict
        /// What stays whatever the batch, at its most.
        public var least: MemoryForecast
        public var chosen: Candidate?
        /// What decided for it, in a line.
        public var reason: String?
        public var rejected: [Rejection]
        /// Settings under which it would fit, where nothing else does.
        public var remedies: [String]
    }

    public let model: PlanModel
    public let work: PlanWork
    public let device: PlanDevice
    public let devices: Int

    public init(model: PlanModel, work: PlanWork, device: PlanDevice, devices: Int = 1) {
        self.model = model
        self.work = work
        self.device = device.shared(by: devices)
        self.devices = max(1, devices)
    }

    /// - Parameter device: one of them, as it is while all are at work.
    init(model: PlanModel, work: PlanWork, oneOf device: PlanDevice, devices: Int) {
        (self.model, self.work, self.device, self.devices) = (model, work, device, devices)
    }

    /// - Parameter layout: how the configuration splits; nil: FSDP over all devices.
    public func plan(layout given: PlanLayout? = nil) throws -> Result {
        var layout = given ?? PlanLayout()
        if given == nil { layout.fsdp = devices }
        guard layout.devices == devices else {
            throw WorkerError(
                .badSetting, "a layout of \(layout.devices) devices (\(layout.description)) is not one of \(devices)")
        }
        if let problem = layout.problem(model) {
            throw WorkerError(.badSetting, "layout \(layout.description): \(problem)")
        }
        let asIs = candidate(work, layout, mode: Self.name(work.checkpointing))
        let least = Self.least(model, work, layout, device: device)
        let verdict: Verdict = asIs.memory.fits(device) ? .fits : least.fits(device) ? .mayRunOut : .cannotFit
        let (chosen, rejected) = fastest()
        return Result(
            model: model, device: device, work: work, asIs: asIs, verdict: verdict, least: least, chosen: chosen,
            reason: chosen.map(reason), rejected: rejected, remedies: chosen == nil ? remedies(layout) : [])
    }

    /// A step on a single token: weights, states and gradients, and nothing that depends on the batch.
    static func least(
        _ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout, device: PlanDevice
    ) -> MemoryForecast {
        var small = work
        (small.prompts, small.samples, small.promptTokens, small.responseTokens) = (1, 1, 1, 1)
        (small.microBatchTokens, small.miniBatch) = (1, 1)
        return MemoryForecast(model, small, layout, device: device)
    }

    private func candidate(_ work: PlanWork, _ layout: PlanLayout, mode: String) -> Candidate {
        let memory = MemoryForecast(model, work, layout, device: device)
        return Candidate(
            layout: layout, mode: mode, microBatchTokens: work.microBatchTokens, memory: memory,
            time: TimeForecast(model, work, layout, device: device, memory: memory))
    }

    static func name(_ checkpointing: ActivationCheckpointing) -> String {
        let mode =
            switch checkpointing.mode {
            case .none: "none"
            case .selective: "selective"
            case .full: "full"
            }
        return checkpointing.layers.map { "\(mode) in \($0) layers" } ?? mode
    }

    private static let modes: [(name: String, mode: ActivationCheckpointing)] = [
        ("none", .none), ("selective", .selective()), ("full", .full),
    ]

    /// Micro-batches that are tried, the largest first: more than 65,536 tokens gain nothing.
    private var budgets: [Int] {
        let longest = work.promptTokens + work.responseTokens
        var all = [longest], size = 1024
        while size <= 65_536 {
            if size > longest, size < 2 * work.batchTokens { all.append(size) }
            size *= 2
        }
        return all.reversed()
    }

    /// The fastest that fits; of those that the estimate cannot tell apart the simplest.
    /// - Parameter isWanted: which layouts are looked at.
    func fastest(where isWanted: (PlanLayout) -> Bool = { _ in true }) -> (chosen: Candidate?, rejected: [Rejection]) {
        var best: Candidate?, fitting: [Candidate] = [], rejected: [Rejection] = []
        for layout in PlanLayout.candidates(devices, model)
        where (work.generates || layout.rollout == 1) && isWanted(layout) {
            if let problem = layout.problem(model) {
                rejected.append(Rejection(what: layout.description, why: problem))
                continue
            }
            var found: Candidate?
            for (name, mode) in Self.modes {
                var work = work
                work.checkpointing = mode
                for budget in budgets {
                    work.microBatchTokens = budget
                    guard MemoryForecast(model, work, layout, device: device).fits(device) else { continue }
                    let made = candidate(work, layout, mode: name)
                    if found == nil || made.time.total < found!.time.total * 0.999 { found = made }
                    break
                }
            }
            guard let found else {
                var work = work
                (work.checkpointing, work.microBatchTokens) = (.full, budgets.last ?? 1)
                let memory = MemoryForecast(model, work, layout, device: device)
                rejected.append(
                    Rejection(
                        what: layout.description,
                        why: "\(PlanText.gib(memory.peak)) in \(memory.worst.name), with full checkpointing and "
                            + "\(work.microBatchTokens) tokens a micro-batch; usable are \(PlanText.gib(MemoryForecast.usable(device)))"
                    ))
                continue
            }
            fitting.append(found)
            if best == nil || found.time.total < best!.time.total * 0.97 { best = found }
        }
        let others = fitting.filter { $0.layout != best?.layout }.sorted { $0.time.total < $1.time.total }.map {
            other in
            let more = other.time.total / (best?.time.total ?? 1)
            return Rejection(
                what: other.layout.description,
                why: "\(PlanText.seconds(other.time.total)) a step, "
                    + (more > 1.005
                        ? "\(Int(((more - 1) * 100).rounded())) % more" : "no less to speak of, and less simple"))
        }
        return (best, others + rejected)
    }

    /// Why the states lie as they do, and why sequences or sampling are divided.
    private func reason(_ chosen: Candidate) -> String {
        let layout = chosen.layout
        guard layout.devices > 1 else { return "one device" }
        var copies = PlanLayout()
        copies.dp = layout.devices
        let whole = Self.least(model, work, copies, device: device).peak, usable = MemoryForecast.usable(device)
        let shared = Self.least(model, work, layout, device: device).peak
        let axes = [("fsdp", layout.shards), ("tp", layout.tp), ("ep", layout.ep)].filter { $0.1 > 1 }
        let names = axes.map { "\($0.0)=\($0.1)" }.joined(separator: " ")
        var parts: [String] = []
        if axes.isEmpty {
            parts.append(
                "every device has room for all weights and states (\(PlanText.gib(whole))), so none of them travel")
        } else if whole > usable {
            parts.append(
                "all weights and states on every device would be \(PlanText.gib(whole)) of \(PlanText.gib(usable)); "
                    + "\(names) leaves \(PlanText.gib(shared))")
        } else {
            parts.append(
                "\(names) saves \(PlanText.gib(whole - shared)) of weights and states a device: room for more tokens at once, or to keep "
                    + "more of their activations")
        }
        if layout.shards > 1, layout.sharding == .gradOp {
            parts.append("whole weights have room while a mini-batch runs, and travel once")
        }
        if layout.sp > 1 { parts.append("sp=\(layout.sp) divides what one sequence's tokens take") }
        if layout.rollout > 1 {
            parts.append("\(layout.rollout) devices sample together, which divides what each token reads")
        }
        return parts.joined(separator: "; ")
    }

    /// Changes to the recipe under which it would fit, one at a time and then together.
    private func remedies(_ layout: PlanLayout) -> [String] {
        var work = work
        work.checkpointing = .full
        work.microBatchTokens = budgets.last ?? 1
        var changes: [(setting: String, apply: (inout PlanWork) -> Void)] = [
            ("actor.optim.state_dtype: int8", { $0.optimizer.moments = .int8 }),
            ("actor.fsdp_config.optimizer_offload: true", { $0.optimizer.offloadsMoments = true }),
            (
                "actor.fsdp_config: {optimizer_offload: true, param_offload: true}",
                { ($0.optimizer.offloadsMoments, $0.optimizer.offloadsMasters) = (true, true) }
            ),
            (
                "model.param_dtype: bfloat16, actor.optim.state_dtype: int8, actor.fsdp_config.grad_dtype: bfloat16",
                {
                    ($0.optimizer.keepsMasters, $0.optimizer.moments, $0.optimizer.gradDType) = (
                        false, .int8, .bfloat16
                    )
                }
            ),
        ]
        if work.takesTurns == false || work.restsReference == false {
            // First: it changes no bit.
            changes.insert(("trainer.take_turns: true", { ($0.takesTurns, $0.restsReference) = (true, nil) }), at: 0)
        }
        var all: [String] = []
        for change in changes {
            var other = work
            change.apply(&other)
            if MemoryForecast(model, other, layout, device: device).fits(device) {
                all.append("\(change.setting) with model.activation_checkpointing: full")
            }
        }
        for count in [2, 4, 8, 16] where count > devices && device.isCUDA {
            var more = PlanLayout()
            more.fsdp = count
            if MemoryForecast(model, work, more, device: device).fits(device) {
                all.append("\(count) such devices")
                break
            }
        }
        if !model.usesAdapter { all.append("an adapter in place of all weights: model.lora_rank: 16") }
        return all
    }
}

/// Numbers for people.
enum PlanText {
    static func gib(_ bytes: Int) -> String { "\(rounded(Double(bytes) / 0x1p30)) GiB" }
    static func seconds(_ value: Double) -> String {
        value < 0.1 ? "\(rounded(value * 1000)) ms" : "\(rounded(value)) s"
    }
    static func rounded(_ value: Double) -> String {
        guard value.isFinite, value < 1e12 else { return "\(value)" }
        return value < 10 ? "\((value * 100).rounded() / 100)" : "\((value * 10).rounded() / 10)"
    }
}

extension PlanModel {
    /// The model that a run trains.
    /// - Throws: as reading its folder does.
    public init(_ config: RunConfig) throws {
        let source = try ModelSource.open(config.model.path)
        try self.init(
            source.config, architecture: source.architecture, name: config.model.path,
            adapter: AdapterPlan(config.model, seed: UInt64(config.seed)))
    }

    public init(_ shape: BenchmarkShape, name: String) throws {
        try self.init(shape.config, architecture: shape.architecture, name: name)
    }
}

extension RunPlan {
    /// Compares the run's memory with the device's, before anything is loaded.
    /// - Returns: what to warn of.
    /// - Throws: ``WorkerError`` `memory` for what cannot fit, unless `trainer.plan` says to go on.
    /// - Parameters:
    ///   - ranks: that share the run, or the pool's part of it.
    ///   - pool: theirs, where not all do everything.
    func checkMemory(ranks: Int = 1, pool: PoolMapping.Pool? = nil) throws -> [String] {
        guard config.trainer.plan != .off else { return [] }
        return try checkMemory(of: PlanModel(config), on: PlanDevice(device), ranks: ranks, pool: pool)
    }

    /// - Parameter hostMemory: of this host, in bytes.
    func checkMemory(
        of model: PlanModel, on device: PlanDevice, ranks: Int = 1, pool: PoolMapping.Pool? = nil,
        hostMemory: Int = Int(ProcessInfo.processInfo.physicalMemory)
    ) throws -> [String] {
        if let pool { return try checkMemory(of: pool, model, device) }
        let planner = TrainingPlanner(model: model, work: PlanWork(config), device: device, devices: ranks)
        let result = try planner.plan(layout: planLayout(ranks))
        let has = ranks > 1 && !device.isCUDA ? "each of \(ranks) processes has" : "\(result.device.name) has"
        let memory = "\(has) \(PlanText.gib(result.device.memory))"
        switch result.verdict {
        case .fits: return device.isCUDA ? hostNotes(result.asIs.memory, ranks: ranks, has: hostMemory) : []
        case .mayRunOut:
            let worst = result.asIs.memory.worst
            return [
                "memory may run out: with answers of full length, \(worst.name) takes \(PlanText.gib(worst.total)) and \(memory); "
                    + "fledge plan shows what would fit"
            ]
        case .cannotFit:
            let worst = result.least.worst
            let message =
                "weights, states and gradients alone take \(PlanText.gib(worst.total)) in \(worst.name), and \(memory); "
                + (result.remedies.first ?? result.chosen.map { $0.settings.joined(separator: " ") }).map {
                    "try \($0); "
                }
                .orEmpty + "fledge plan shows all of it, and trainer.plan: warn starts all the same"
            guard config.trainer.plan == .warn else { throw WorkerError(.memory, message) }
            return [message]
        }
    }
}

extension RunPlan {
    /// Of so many ranks that all do everything.
    private func planLayout(_ ranks: Int) throws -> PlanLayout {
        try ranks > 1 ? PlanLayout(ShardingPlan(config.actor, config.rollout, ranks: ranks)) : PlanLayout()
    }

    /// Warns of pinned memory that a host does not have.
    private func hostNotes(_ memory: MemoryForecast, ranks: Int, has: Int) -> [String] {
        let onHost = max(1, ranks / max(1, config.trainer.nodes))
        let pinned = (memory.hostBytes + memory.restingBytes) * onHost
        guard pinned > has / 10 * 9 else { return [] }
        return [
            "\(PlanText.gib(pinned)) wait in pinned host memory, of which this host has \(PlanText.gib(has)); fledge plan shows what rests "
                + "there (trainer.take_turns, actor.fsdp_config.optimizer_offload)"
        ]
    }

    /// Decides which roles rest between their turns.
    func takeTurns(_ training: inout TrainingPlan, ranks: Int = 1, pool: PoolMapping.Pool? = nil) throws {
        var work = PlanWork(config)
        if let pool { work = work.part(of: pool.roles) }
        let choices = RestingChoices(work, isCUDA: device.isCUDA)
        training.rests = choices.levels[0]
        guard choices.levels.count > 1 || work.mayKeepCache else { return }
        training.restsByForecast = true
        let model = try PlanModel(config), device = try PlanDevice(device), forecast: MemoryForecast?
        if let pool {
            let forecasts = try PoolForecast.all(config, model, PlanWork(config), device)
            forecast = forecasts.first { $0.pool == pool }?.memory
        } else {
            forecast = try MemoryForecast(model, work, planLayout(ranks), device: device.shared(by: ranks))
        }
        guard let forecast else { return }
        training.rests = forecast.rests
        if forecast.keepsCache { training.cacheLimit = forecast.cacheBytes }
    }

    private func checkMemory(of pool: PoolMapping.Pool, _ model: PlanModel, _ device: PlanDevice) throws -> [String] {
        let forecasts = try PoolForecast.all(config, model, PlanWork(config), device)
        guard let forecast = forecasts.first(where: { $0.pool == pool }), forecast.verdict != .fits else { return [] }
        let isSure = forecast.verdict == .cannotFit, memory = isSure ? forecast.least : forecast.memory
        let message =
            (isSure ? "weights, states and gradients alone take " : "memory may run out: with answers of full length, ")
            + "\(memory.worst.name) takes \(PlanText.gib(memory.worst.total)), and \(forecast.device.name) has "
            + "\(PlanText.gib(forecast.device.memory)); fledge plan shows each pool"
        guard !isSure || config.trainer.plan == .warn else {
            throw WorkerError(.memory, "pool \(pool.name): \(message); trainer.plan: warn starts all the same")
        }
        return [message]
    }
}

extension Optional<String> {
    fileprivate var orEmpty: String { self ?? "" }
}

import ArgumentParser
import Checkpoints
import Config
import Foundation
import TensorCore
import Workers

struct Plan: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say what memory and time a training run takes, and how to lay it out.",
        discussion: """
            Bytes of each phase by what they are for, the seconds of a step, and the layout, micro-batch and checkpointing that
            would be fastest. Nothing is loaded; no GPU is needed when one is described. The exit code is 2 when the run cannot
            fit.

            EXAMPLES
              fledge plan my.yaml
              fledge plan my.yaml --device h200 --devices 4 model.dtype=bfloat16
              fledge plan my.yaml --shape qwen2-7b --device h100 --layout tp=2,fsdp=4,rollout=2 --devices 8 --json
            """)

    @Argument(help: "The YAML file.", completion: .file(extensions: ["yaml", "yml"]))
    var config: String

    @Argument(help: ArgumentHelp("Settings to override.", valueName: "key=value"))
    var overrides: [String] = []

    @Option(help: "How many devices; by default trainer.n_gpus_per_node, else those that are here.")
    var devices: Int?

    @Option(
        help: ArgumentHelp(
            "\(PlanDevice.names.joined(separator: ", ")); the one that is here unless said.", valueName: "name"))
    var device: String?

    @Option(help: ArgumentHelp("The memory of a device, as 141GB or 80GiB.", valueName: "size"))
    var memory: String?

    @Option(help: ArgumentHelp("A known model's sizes in place of model.path, as qwen2-7b.", valueName: "name"))
    var shape: String?

    @Option(help: ArgumentHelp("How the devices split the work, as tp=2,fsdp=4.", valueName: "axes"))
    var layout: String?

    @Option(
        help: ArgumentHelp(
            "Tokens that an answer has, where they are fewer than data.max_response_length.", valueName: "n"))
    var responseTokens: Int?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if let devices, !(1...65_536).contains(devices) {
            throw ValidationError("--devices \(devices) is not from 1 to 65536")
        }
        if let device, PlanDevice(named: device) == nil {
            throw ValidationError("--device \(device): known are \(PlanDevice.names.joined(separator: ", "))")
        }
        if let memory, PlanDevice.bytes(memory) == nil {
            throw ValidationError("--memory \(memory): give a size as 141GB or 80GiB")
        }
        if let shape, BenchmarkShape.known[shape] == nil {
            throw ValidationError("--shape \(shape): known are \(BenchmarkShape.names.joined(separator: ", "))")
        }
        if let layout, PlanLayout(layout) == nil {
            throw ValidationError(
                "--layout \(layout): give axes as tp=2,fsdp=4, of dp, fsdp, tp, sp, ep, pp and rollout")
        }
        if let responseTokens, responseTokens < 1 { throw ValidationError("--response-tokens must be 1 or more") }
    }

    func run() throws {
        let subject = try Failures.reported(subject)
        if let pools = try Failures.reported({ try pools(subject) }) {
            Console.say(json ? pools.json.text() : PlanReport.text(pools))
            if pools.contains(where: { $0.verdict == .cannotFit }) { throw ExitCode(2) }
            return
        }
        let result = try Failures.reported {
            let (settings, model, work, device) = subject
            let count =
                try devices
                ?? (self.device == nil ? TrainingCluster.count(RankSettings(settings)) : settings.ranksAsked) ?? 1
            let layout =
                try layout.flatMap(PlanLayout.init)
                ?? PlanLayout(ShardingPlan(settings.actor, settings.rollout, ranks: count))
            let result = try TrainingPlanner(model: model, work: work, device: device, devices: count).plan(
                layout: layout)
            let mapping =
                count > 1 ? MappingPlanner(model: model, work: work, device: device, devices: count).plan() : nil
            return (run: result, mapping: mapping)
        }
        Console.say(
            json ? result.run.json(mapping: result.mapping).text() : PlanReport(result.run, result.mapping).text)
        if result.run.verdict == .cannotFit { throw ExitCode(2) }
    }
}

extension Plan {
    private typealias Subject = (settings: RunConfig, model: PlanModel, work: PlanWork, device: PlanDevice)

    /// What is planned, from the recipe and the options.
    private func subject() throws -> Subject {
        let settings = try RunConfig(
            contentsOf: URL(fileURLWithPath: config), overrides: overrides, names: TrainingRun.knownNames)
        let model = try shape.map { try PlanModel(BenchmarkShape.known[$0]!, name: $0) } ?? PlanModel(settings)
        var work = PlanWork(settings)
        if let responseTokens { work.responseTokens = min(responseTokens, work.responseTokens) }
        var device = try device.flatMap(PlanDevice.init(named:)) ?? PlanDevice(settings.device)
        if let memory = memory.flatMap(PlanDevice.bytes) { device.memory = memory }
        return (settings, model, work, device)
    }

    /// What each pool holds, where the recipe has pools and no other layout is asked for.
    private func pools(_ subject: Subject) throws -> [PoolForecast]? {
        guard subject.settings.mapping != nil, devices == nil, layout == nil else { return nil }
        return try PoolForecast.all(subject.settings, subject.model, subject.work, subject.device)
    }
}

extension PlanReport {
    /// Each pool's memory.
    static func text(_ pools: [PoolForecast]) -> String {
        pools.map { forecast in
            let pool = forecast.pool, worst = forecast.memory.worst
            let roles = pool.roles.map(\.rawValue).sorted().joined(separator: ", ")
            let uncounted = pool.roles.contains(.rewardModel) ? ["the reward model is not counted"] : []
            return
                ([
                    "pool \(pool.name): \(roles) on \(pool.ranks.count) × \(forecast.device.name) (\(forecast.layout.description))"
                ]
                + (forecast.memory.phases.isEmpty
                    ? []
                    : table(forecast.memory)
                        + ["peak: \(gib(worst.total)) GiB in \(worst.name): \(forecast.verdict.rawValue)"]
                        + (turns(forecast.memory).map { [$0] } ?? []))
                + uncounted)
                .joined(separator: "\n")
        }.joined(separator: "\n\n")
    }
}

/// The plan for people.
struct PlanReport {
    let result: TrainingPlanner.Result
    /// Of several devices.
    let mapping: MappingPlanner.Result?

    init(_ result: TrainingPlanner.Result, _ mapping: MappingPlanner.Result? = nil) {
        self.result = result
        self.mapping = mapping
    }

    var text: String {
        let work = result.work, device = result.device, asIs = result.asIs
        var lines = [
            "\(result.model.name): \(billions(result.model.parameterCount)) parameters, \(work.dtype), on "
                + "\(asIs.layout.devices) × \(device.name) of \(gib(device.memory)) GiB (\(asIs.layout.description))",
            "a step: \(work.prompts) prompts × \(work.samples) answers of up to \(work.promptTokens) + \(work.responseTokens) "
                + "tokens, \(work.optimizerSteps) optimizer steps, micro-batches of \(asIs.memory.microTokens) tokens, checkpointing "
                + asIs.mode, "",
        ]
        lines += Self.table(asIs.memory) + [""]
        let worst = asIs.memory.worst,
            share = Int((100 * Double(worst.total) / Double(max(1, device.memory))).rounded())
        lines.append(
            "peak: \(gib(worst.total)) GiB in \(worst.name), \(share) % of the device's: \(result.verdict.rawValue)")
        lines.append("  of it tensors, as allocators count: \(gib(asIs.memory.peakTensors)) GiB")
        let host = asIs.memory.hostBytes + asIs.memory.restingBytes
        if host > 0 { lines.append("  in pinned host memory: \(gib(host)) GiB a device") }
        if let turns = Self.turns(asIs.memory) { lines.append("  " + turns) }
        if work.generates {
            lines.append(
                asIs.memory.keepsCache
                    ? "  the sampler stays awake between rollouts, with a cache of \(gib(asIs.memory.cacheBytes)) GiB"
                    : "  the sampler sleeps between rollouts (rollout.free_cache_engine)")
        }
        if result.verdict != .fits {
            lines.append("  weights, states and gradients alone: \(gib(result.least.peak)) GiB")
        }
        lines.append("time: " + time(asIs.time))
        lines.append("")
        if let chosen = result.chosen {
            lines += [
                "fastest that fits: \(chosen.layout.description), model.activation_checkpointing: \(chosen.mode), "
                    + "actor.ppo_max_token_len_per_gpu: \(chosen.microBatchTokens)",
                "  peak \(gib(chosen.memory.peak)) GiB in \(chosen.memory.worst.name); " + time(chosen.time),
            ]
            if chosen.layout.devices > 1 {
                lines.append("  \(result.reason ?? "")")
                lines.append("  settings: \(chosen.settings.joined(separator: " "))")
            }
        } else {
            lines.append("nothing fits these devices as configured; it would with")
            lines += result.remedies.map { "  " + $0 }
        }
        if !result.rejected.isEmpty {
            lines.append("not taken:")
            lines += result.rejected.prefix(20).map { "  \($0.what): \($0.why)" }
        }
        if let mapping { lines += [""] + self.mapping(mapping) }
        return lines.joined(separator: "\n")
    }

    private func mapping(_ mapping: MappingPlanner.Result) -> [String] {
        guard let chosen = mapping.chosen else {
            return ["roles on devices: no mapping fits"] + mapping.rejected.map { "  \($0.what): \($0.why)" }
        }
        var lines = ["roles on devices: \(chosen.description)", "  \(mapping.reason ?? "")"]
        lines += chosen.pools.map { pool in
            "  \(pool.name): \(pool.devices) devices, peak \(gib(pool.peak)) GiB in \(pool.phase), works "
                + "\(TextTable.number(pool.busy, pool.busy < 10 ? 2 : 0)) s of \(TextTable.number(chosen.seconds, chosen.seconds < 10 ? 2 : 0)) s"
        }
        if chosen.pools.count > 1 { lines.append("  settings: \(chosen.settings.joined(separator: " "))") }
        if !mapping.rejected.isEmpty { lines.append("not taken:") }
        return lines + mapping.rejected.map { "  \($0.what): \($0.why)" }
    }

    fileprivate static func table(_ memory: MemoryForecast) -> [String] {
        var table = TextTable(["GiB of a device"] + memory.phases.map(\.name))
        for kind in MemoryForecast.Kind.allCases where memory.phases.contains(where: { $0[kind] > 0 }) {
            table.add([kind.rawValue] + memory.phases.map { $0[kind] > 0 ? gib($0[kind]) : "" })
        }
        table.add(["together"] + memory.phases.map { gib($0.total) })
        return table.lines
    }

    /// Who lies in host memory but for its turn, and what comes and goes for it.
    fileprivate static func turns(_ memory: MemoryForecast) -> String? {
        guard !memory.rests.names.isEmpty else { return nil }
        return "there but for their turn: \(memory.rests.names.joined(separator: ", ")) (trainer.take_turns): "
            + "\(gib(memory.restingBytes)) GiB; \(gib(memory.restingTraffic)) GiB a step come and go"
    }

    private func time(_ time: TimeForecast) -> String {
        let parts = time.phases.map { "\($0.name) \(TextTable.number($0.seconds, $0.seconds < 10 ? 2 : 0)) s" }
        return "\(TextTable.number(time.total, time.total < 10 ? 2 : 0)) s a step (\(parts.joined(separator: ", ")))"
    }
    fileprivate static func gib(_ bytes: Int) -> String { TextTable.number(Double(bytes) / 0x1p30, 2) }
    private func gib(_ bytes: Int) -> String { Self.gib(bytes) }
    private func billions(_ count: Int) -> String {
        count < 1_000_000_000
            ? "\(TextTable.number(Double(count) / 1e6, 1)) M" : "\(TextTable.number(Double(count) / 1e9, 2)) B"
    }
}

import Telemetry
import TensorCore
import TrainingEngine
import Workers

/// The training benchmark's results, for people and for programs.
struct TrainingReport {
    let shape: String
    let device: Device
    let dtype: DType
    let settings: TrainingBenchmark.Settings
    let report: TrainingBenchmark.Report
    /// Operations a second that utilization refers to.
    let peak: Double
    /// Tokens a second of one device alone, where several are judged by it.
    var reference: Double?

    private var devices: Int { report.ranks?.peakBytes.count ?? 1 }
    private var utilization: Double { report.usefulRate / peak / Double(devices) }
    private var hardwareUtilization: Double { report.hardwareRate / peak / Double(devices) }
    /// Of one of the devices.
    private var deviceRate: Double { report.tokensPerSecond / Double(devices) }
    /// Utilization says something of a GPU alone.
    private var hasUtilization: Bool { device.isCUDA }

    func json() throws -> String {
        var writer = JSONWriter(style: .pretty)
        let name = try device.name()
        let backend = device == .cpu || report.ranks == nil ? "gloo" : "nccl \(try ProcessGroup.ncclVersion())"
        writer.object { object in
            for (key, value) in [
                ("case", "train"), ("shape", shape), ("weights", "random"), ("device", "\(device)"),
                ("device_name", name), ("dtype", "\(dtype)"), ("objective", settings.objective.rawValue),
                ("states", settings.states.rawValue), ("checkpointing", "\(settings.checkpointing)"),
                ("attention", report.attention),
            ] { object.field(key, value) }
            object.field("rows", settings.rows)
            if let groups = settings.groups {
                object.field("prompt_tokens", groups.prompt)
                object.field("answer_tokens", groups.answer)
                object.field("answers", groups.answers)
                object.key("shared_prefix")
                object.value(settings.sharesPrefixes)
            } else {
                object.field("seq", settings.length)
            }
            object.field("micro_batch_tokens", settings.microBatchTokens)
            object.field("micro_batches", report.microBatches)
            object.field("logits_chunk", settings.logitsChunk)
            object.field("parameters", report.parameterCount)
            object.field("tokens", report.cost.tokens)
            object.field("computed_tokens", report.computedTokens)
            object.key("seconds")
            object.array { list in for one in report.seconds { list.value(BenchReport.rounded(one, 1e5)) } }
            object.field("step_seconds", BenchReport.rounded(report.stepSeconds, 1e5))
            object.field("tokens_per_second", BenchReport.rounded(report.tokensPerSecond, 10))
            object.field("tflops", BenchReport.rounded(report.usefulRate / 1e12, 1e6))
            if hasUtilization {
                object.field("mfu", BenchReport.rounded(utilization))
                object.field("hfu", BenchReport.rounded(hardwareUtilization))
                object.field("peak_tflops", peak / 1e12)
            }
            object.field("peak_memory_gib", BenchReport.rounded(Double(report.peakBytes) / Double(1 << 30), 100))
            object.field("loss", report.lastLoss)
            if let ranks = report.ranks { write(ranks, backend, to: &object) }
            if let profile = report.profile {
                object.key("profile")
                object.object { TimeBreakdownText.write(profile, kernels: 25, to: &$0) }
            }
        }
        return writer.text
    }

    private func write(_ ranks: TrainingBenchmark.RankReport, _ backend: String, to object: inout JSONWriter) {
        object.field("devices", devices)
        object.field("backend", backend)
        object.field("layout", "\(ranks.sharing.mesh)")
        object.field("sharding", ranks.sharing.options.mode.rawValue)
        object.field("reduce_dtype", "\(ranks.sharing.options.reduceDType)")
        object.key("prefetch")
        object.value(ranks.sharing.options.prefetches)
        object.key("sequence_parallel")
        object.value(ranks.sharing.sequenceParallel)
        object.field("tokens_per_second_per_device", BenchReport.rounded(deviceRate, 10))
        func list(_ name: String, _ values: [Double], _ digits: Double) {
            object.key(name)
            object.array { list in for value in values { list.value(BenchReport.rounded(value, digits)) } }
        }
        list("step_seconds_by_rank", ranks.stepSeconds, 1e5)
        list("peak_memory_gib_by_rank", ranks.peakBytes.map { Double($0) / Double(1 << 30) }, 100)
        list("peak_reserved_gib_by_rank", ranks.peakReservedBytes.map { Double($0) / Double(1 << 30) }, 100)
        if let reference {
            if !ranks.aloneTokensPerSecond.isEmpty {
                list("tokens_per_second_alone", ranks.aloneTokensPerSecond, 10)
            }
            object.field("tokens_per_second_one_device", BenchReport.rounded(reference, 10))
            object.field("share_of_one_device", BenchReport.rounded(deviceRate / reference))
        }
        if let profile = report.profile {
            // What is left of the links' time when all that ran beside it is taken off.
            object.field("waiting_for_links_share", BenchReport.rounded(profile.share(.communication)))
        }
    }

    func table() -> String {
        var table = TextTable(["shape", "tokens", "step s", "tokens/s", "TFLOP/s", "MFU", "HFU", "peak GiB"])
        func share(_ value: Double) -> String { hasUtilization ? TextTable.number(value * 100, 1) + " %" : "" }
        table.add([
            shape, "\(report.cost.tokens)", TextTable.number(report.stepSeconds, 3),
            TextTable.number(report.tokensPerSecond), TextTable.number(report.usefulRate / 1e12, 1),
            share(utilization), share(hardwareUtilization),
            TextTable.number(Double(report.peakBytes) / Double(1 << 30), 1),
        ])
        var lines = table.lines
        if report.ranks != nil {
            var line = "\(devices) devices: \(TextTable.number(deviceRate)) tokens/s each"
            if let reference {
                let share = TextTable.number(deviceRate / reference * 100, 1)
                line += ", \(share) % of the \(TextTable.number(reference)) of one alone"
            }
            lines.append(line)
        }
        return (lines + (report.profile.map { [""] + TimeBreakdownText.lines($0, kernels: 15) } ?? []))
            .joined(separator: "\n")
    }
}

/// Where a traced stretch's time went.
enum TimeBreakdownText {
    static func write(_ breakdown: TimeBreakdown, kernels: Int, to object: inout JSONWriter) {
        object.field("seconds", BenchReport.rounded(breakdown.totalSeconds, 1e6))
        object.field("dropped_records", breakdown.droppedRecords)
        object.key("categories")
        object.array { list in
            for category in TimeBreakdown.Category.allCases {
                list.object { entry in
                    entry.field("name", category.rawValue)
                    entry.field("seconds", BenchReport.rounded(breakdown.seconds[category] ?? 0, 1e6))
                    entry.field("share", BenchReport.rounded(breakdown.share(category)))
                }
            }
        }
        writeKernels(breakdown, kernels, to: &object)
    }

    /// The kernels that took longest.
    static func writeKernels(_ breakdown: TimeBreakdown, _ count: Int, to object: inout JSONWriter) {
        object.key("kernels")
        object.array { list in
            for kernel in breakdown.kernels.prefix(count) {
                list.object { entry in
                    entry.field("name", kernel.name)
                    entry.field("category", kernel.category.rawValue)
                    entry.field("count", kernel.count)
                    entry.field("total_us", BenchReport.rounded(kernel.seconds * 1e6, 10))
                    entry.field("mean_us", BenchReport.rounded(kernel.meanSeconds * 1e6, 100))
                    entry.field("share", BenchReport.rounded(kernel.seconds / breakdown.totalSeconds))
                }
            }
        }
    }

    static func lines(_ breakdown: TimeBreakdown, kernels: Int) -> [String] {
        var table = TextTable(["traced", "ms", "share"])
        for category in TimeBreakdown.Category.allCases {
            table.add([
                category.rawValue, TextTable.number((breakdown.seconds[category] ?? 0) * 1e3, 2),
                TextTable.number(breakdown.share(category) * 100, 1) + " %",
            ])
        }
        var list = TextTable(["kernel", "", "count", "mean µs", "ms", "share"])
        for kernel in breakdown.kernels.prefix(kernels) {
            list.add([
                RolloutProfileText.shortened(kernel.name), kernel.category.rawValue, "\(kernel.count)",
                TextTable.number(kernel.meanSeconds * 1e6, 2), TextTable.number(kernel.seconds * 1e3, 2),
                TextTable.number(kernel.seconds / breakdown.totalSeconds * 100, 1) + " %",
            ])
        }
        return table.lines + [""] + list.lines
    }
}

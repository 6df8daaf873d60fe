import Checkpoints
import RolloutEngine
import Telemetry
import TensorCore
import Workers

/// The rollout benchmark's results, for people and for programs.
struct RolloutReport {
    let shape: String
    let device: Device
    let dtype: DType
    let settings: RolloutBenchmark.Settings
    let report: RolloutBenchmark.Report

    func json() throws -> String {
        let config = try BenchmarkShape.known[shape].map {
            try Telemetry.JSONValue(parsing: Array($0.config.text.utf8), path: nil)
        }
        var writer = JSONWriter(style: .pretty)
        writer.object { object in
            for (key, value) in [
                ("case", "rollout"), ("shape", shape), ("weights", "random"), ("device", "\(device)"),
                ("dtype", "\(dtype)"),
            ] { object.field(key, value) }
            object.key("config")
            (config ?? .null).write(to: &object)
            object.field("threads", Torch.threadCount)
            object.field("weight_bytes", report.weightBytes)
            object.field("ready_seconds", BenchReport.rounded(report.readySeconds))
            object.field("first_token_seconds", BenchReport.rounded(report.firstTokenSeconds))
            object.field("bandwidth_gb_per_second", BenchReport.rounded(report.machine.bandwidth / 1e9))
            object.field("peak_tflops", BenchReport.rounded(report.machine.peak / 1e12))
            object.key("engine")
            object.object { engine in
                let asked = settings.engine
                engine.field("max_num_seqs", asked.maxNumSeqs)
                engine.field("max_num_batched_tokens", asked.maxNumBatchedTokens)
                engine.field("block_size", asked.blockSize)
                engine.field("kv_cache_dtype", "\(asked.cacheDType ?? dtype)")
                engine.key("gpu_memory_utilization")
                engine.value(asked.gpuMemoryUtilization)
                engine.key("cuda_graphs")
                engine.value(asked.cudaGraphs)
                engine.key("prefix_caching")
                engine.value(asked.prefixCaching)
            }
            object.key("cases")
            object.array { list in for one in report.measurements { list.object { Self.write(one, to: &$0) } } }
        }
        return writer.text
    }

    private static func write(_ one: RolloutBenchmark.Measurement, to object: inout JSONWriter) {
        object.field("case", "\(one.work)")
        object.field("prompts", one.work.prompts)
        object.field("samples", one.samples)
        object.field("input_tokens", one.work.input)
        object.field("output_tokens", one.work.output)
        object.field("tokens_per_second", BenchReport.rounded(one.tokensPerSecond, 10))
        object.key("seconds")
        object.array { list in for seconds in one.seconds { list.value(BenchReport.rounded(seconds)) } }
        object.field("efficiency", BenchReport.rounded(one.efficiency))
        object.key("limit")
        object.object { limit in
            limit.field("tokens_per_second", BenchReport.rounded(one.limitTokensPerSecond, 10))
            limit.field("seconds", BenchReport.rounded(one.limit.seconds, 1e6))
            limit.field("prefill_seconds", BenchReport.rounded(one.limit.prefill.seconds, 1e6))
            limit.field("decode_seconds", BenchReport.rounded(one.limit.decode.seconds, 1e6))
            limit.field("decode_step_ms", BenchReport.rounded(one.limit.meanStep.seconds * 1e3))
        }
        object.field("decode_steps", one.decodeSteps)
        object.field("prefilled_tokens", one.prefilledTokens)
        object.field("kv_bytes", one.cacheBytes)
        object.field("peak_memory_bytes", one.peakBytes)
        object.field("sleep_ms", BenchReport.rounded(one.sleep.milliseconds))
        object.field("wake_ms", BenchReport.rounded(one.wake.milliseconds))
        object.field("freed_gib", BenchReport.rounded(Double(one.sleep.bytes) / 0x1p30))
        if let profile = one.profile {
            object.key("profile")
            object.object { RolloutProfileText.write(profile, to: &$0) }
        }
    }

    func table() throws -> String {
        func number(_ value: Double, _ digits: Int = 0) -> String { TextTable.number(value, digits) }
        var lines = [
            "\(shape), random \(dtype) weights (\(number(Double(report.weightBytes) / 0x1p30, 2)) GiB), "
                + (device.isCUDA ? try device.name() : "CPU, \(Torch.threadCount) threads"),
            "measured here: copy \(number(report.machine.bandwidth / 1e9)) GB/s, "
                + "matrix product \(number(report.machine.peak / 1e12, 2)) TFLOP/s; "
                + "ready \(number(report.readySeconds, 2)) s after the start, first token \(number(report.firstTokenSeconds, 2)) s",
            "",
        ]
        var table = TextTable([
            "case", "tokens/s", "seconds", "limit tok/s", "of limit", "KV GiB", "peak GiB", "sleep ms", "wake ms",
            "freed GiB",
        ])
        for one in report.measurements {
            table.add([
                "\(one.work)" + (one.samples > 1 ? " n=\(one.samples)" : ""), number(one.tokensPerSecond),
                number(one.bestSeconds, 3), number(one.limitTokensPerSecond),
                number(one.efficiency * 100, 1) + " %", number(Double(one.cacheBytes) / 0x1p30, 2),
                number(Double(one.peakBytes) / 0x1p30, 2), number(one.sleep.milliseconds, 1),
                number(one.wake.milliseconds, 1), number(Double(one.sleep.bytes) / 0x1p30, 2),
            ])
        }
        lines += table.lines
        for one in report.measurements {
            if let profile = one.profile { lines += [""] + RolloutProfileText.lines(profile, of: one) }
        }
        return lines.joined(separator: "\n")
    }
}

extension JSONWriter {
    mutating func field(_ name: String, _ text: String) {
        key(name)
        value(text)
    }
    /// Null for nil.
    mutating func field(_ name: String, _ number: Int?) {
        key(name)
        if let number { value(number) } else { null() }
    }
    mutating func field(_ name: String, _ number: Double) {
        key(name)
        value(number)
    }
}

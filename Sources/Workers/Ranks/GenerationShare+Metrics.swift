import Collectives
import Flow
import OrderedCollections
import Telemetry

extension GenerationShare {
    /// Of all samplers' shares; where several ranks are one sampler, `ranks` are those of all of them.
    static func metrics(
        _ shares: [GenerationShare], ranks: [GenerationShare]? = nil, seconds: Double
    ) -> PhaseMetrics {
        let ranks = ranks ?? shares
        func sum(_ count: KeyPath<GenerationShare, Int>) -> Double {
            Double(shares.reduce(0) { $0 + $1[keyPath: count] })
        }
        let own = shares[0]
        var metrics: PhaseMetrics = [
            "rollout/generated_tokens": sum(\.generatedTokens),
            "rollout/prompt_tokens_shared": 1 - sum(\.prefilledTokens) / max(1, sum(\.promptTokens)),
            "rollout/decode_steps": Double(shares.map(\.decodeSteps).max() ?? 0),
            "rollout/weight_version": Double(own.engineVersion),
            // The digest's 32 low bits, exact as a double: two runs with equal weights print equal numbers.
            "rollout/weight_digest": Double(UInt32(truncatingIfNeeded: UInt64(own.weightDigest, radix: 16) ?? 0)),
            "perf/rollout_tokens_per_second": sum(\.generatedTokens) / seconds,
        ]
        let lost = shares.reduce(0) { $0 + $1.lostGroups.count }, cut = sum(\.cutSamples)
        if lost > 0 { metrics["rollout/lost_groups"] = Double(lost) }
        if cut > 0 { metrics["rollout/cut_samples"] = cut }
        let sleeps = ranks.compactMap(\.sleep)
        if !sleeps.isEmpty {
            metrics["perf/rollout_sleep_ms"] = sleeps.map(\.milliseconds).max()
            metrics["perf/rollout_wake_ms"] = sleeps.map(\.wakeMilliseconds).max()
            metrics["perf/rollout_freed_gib"] = Double(sleeps.reduce(0) { $0 + $1.bytes }) / 0x1p30
        }
        let reshards = ranks.compactMap(\.reshard)
        if !reshards.isEmpty {
            metrics["perf/reshard_bytes"] = Double(reshards.reduce(0) { $0 + $1.receivedBytes })
            metrics["perf/reshard_seconds"] = reshards.map(\.seconds).max()
            metrics["perf/reshard_peak"] = Double(reshards.map(\.peakExtraBytes).max() ?? 0)
        }
        return metrics
    }
}

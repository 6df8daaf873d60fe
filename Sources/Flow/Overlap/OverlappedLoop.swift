import Foundation
import Logging
import OrderedCollections
public import Telemetry

/// The loop whose sampling runs ahead of its learning, on devices of its own: streaming, one step off-policy (as in Noukhovitch et al.
/// 2024), or fully asynchronous with bounded staleness and partial rollouts (as in AReaL, Fu et al. 2025). A step is what it is in
/// ``PolicyLoop``; only who waits for whom differs.
public struct OverlappedLoop: Sendable {
    /// Settings and groups; its ``PolicyLoop/rollout`` is not asked.
    public let base: PolicyLoop
    public let pool: any RolloutPool
    public let overlap: OverlapSettings

    public init(_ base: PolicyLoop, pool: any RolloutPool, overlap: OverlapSettings) {
        self.base = base
        self.pool = pool
        self.overlap = overlap
    }

    /// Trains to the last step, or until the observer asks to stop; goes on from `resumed` where there is one.
    public func run(from resumed: LoopState?) async throws -> LoopState {
        let total = base.settings.totalSteps
        var state =
            if let resumed { resumed.goingOn(to: total) } else {
                LoopState(step: 0, promptState: try await base.prompts.state())
            }
        if let resumed { try await base.prompts.restore(resumed.promptState) }
        if state.step == 0, base.settings.evaluatesFirst, state.evaluations.isEmpty {
            try await base.evaluate("before", &state)
        }
        var saved = resumed?.step
        if state.step < total {
            let flow = SampleFlow(
                overlap, step: state.step, totalSteps: total, saved: try state.samples.map(SampleFlow.Saved.init(text:))
            )
            // What the samplers have read is the model as it was before training.
            if state.step > 0 { _ = try await pool.install(version: state.step) }
            let answers = Answers(flow: flow, pool: pool, reward: base.sampling.reward, filter: base.sampling.filter)
            let producer = Task { await answers.produce(base.sampling.prompts, request(seed:)) }
            do {
                try await learn(flow, answers, &state, &saved)
                await end(flow, answers, producer)
            } catch {
                await end(flow, answers, producer)
                throw error
            }
        }
        if state.step >= total {
            state.samples = nil
            if !state.evaluations.keys.contains(where: { $0.hasPrefix("after:") }) {
                try await base.evaluate("after", &state)
            }
        }
        if saved != state.step { try await base.save(state) }
        return state
    }

    private func end(_ flow: SampleFlow, _ answers: Answers, _ producer: Task<Void, Never>) async {
        await flow.close()
        // Then nothing begins any more.
        await producer.value
        await answers.cancelAll()
    }

    /// A group's number in the run decides its draws, whoever makes them and when.
    private func request(seed group: Int) -> RolloutRequestSettings {
        var request = base.settings.rollout
        request.seed = (base.settings.seed &+ UInt64(group)) &* 0x9E37_79B9_7F4A_7C15 &+ base.settings.seed
        return request
    }

    private func learn(
        _ flow: SampleFlow, _ answers: Answers, _ state: inout LoopState, _ saved: inout Int?
    ) async throws {
        let settings = base.settings, timer = PhaseTimer()
        _ = await pool.work()
        var start = ContinuousClock.now
        while state.step < settings.totalSteps, !base.observer.wantsToStop {
            var metrics = StepMetrics(step: state.step + 1)
            try metrics.add(await base.prompts.metrics())
            guard let batch = try await step(flow, &state, &metrics, timer) else { break }
            state.step += 1
            for late in await flow.stepEnded() { await answers.cancel(late) }

            if state.step % overlap.syncEvery == 0, state.step < settings.totalSteps {
                try base.observer.phaseBegins(.syncWeights)
                let version = state.step
                try await timer.measure(.settle) { try await flow.settle() }
                try metrics.add(
                    try await timer.measure(.syncWeights) { try await pool.install(version: version) })
                await flow.installed()
            }
            try await base.evaluateOnTheWay(state.step, &metrics, timer)
            let now = ContinuousClock.now
            try await describe(flow, seconds: (now - start) / .seconds(1), &metrics)
            start = now
            try base.finish(&metrics, batch, timer)
            if settings.saveEvery > 0, state.step % settings.saveEvery == 0, state.step < settings.totalSteps {
                try await note(flow, &state)
                try await timer.measure(.save) { [state] in try await base.save(state) }
                saved = state.step
            }
        }
        try await note(flow, &state)
    }

    private func note(_ flow: SampleFlow, _ state: inout LoopState) async throws {
        let (samples, place) = try await flow.save { try await base.prompts.state() }
        state.promptState = place
        state.samples = try samples.text()
    }

    /// One step's learning.
    /// - Returns: what it learned from; nil when there is nothing more.
    private func step(
        _ flow: SampleFlow, _ state: inout LoopState, _ metrics: inout StepMetrics, _ timer: PhaseTimer
    ) async throws -> [Trajectory]? {
        var batch: [Trajectory] = [], parts: [StepMetrics] = [], groups = 0
        try base.observer.phaseBegins(.generate)
        while groups < overlap.groupsPerStep {
            let taken = groups
            let entries = try await timer.measure(.generate) {
                try await flow.take(overlap.groupsPerUpdate, taken: taken)
            }
            guard let entries else {
                if batch.isEmpty { return nil }
                break
            }
            if entries.isEmpty { break }
            groups += entries.count
            let trajectories = entries.flatMap(\.trajectories)
            batch += trajectories
            var part = StepMetrics(step: metrics.step)
            let seed = request(seed: state.step &* 0x1_0001 &+ parts.count).seed
            try await base.learning.learn(
                trajectories, seed: seed, state: &state, metrics: &part, timer: timer, observer: base.observer)
            parts.append(part)
        }
        let figures = await flow.takeFigures()
        figures.episodes.complain(base.log)
        try metrics.add(figures.metrics())
        guard !batch.isEmpty else {
            base.log.error(
                "step \(metrics.step): every reward failed; nothing to learn from, the weights stay as they are")
            return []
        }
        try metrics.describe(batch)
        try metrics.add(StepMetrics.means(parts))
        let step = state.step
        let staleness = batch.map { Double(step - $0.weightVersion) }
        try metrics.record("async/staleness", summaryOf: staleness)
        return batch
    }

    /// Who waited for whom, and what was lost.
    private func describe(_ flow: SampleFlow, seconds: Double, _ metrics: inout StepMetrics) async throws {
        let work = await pool.work(), counts = await flow.counts
        let capacity = max(1e-9, seconds * Double(work.samplers))
        try metrics.record("perf/rollout_bubble", max(0, 1 - work.busySeconds / capacity))
        try metrics.record("perf/rollout_tokens_per_second", Double(work.generatedTokens) / max(1e-9, seconds))
        try metrics.record("rollout/generated_tokens", Double(work.generatedTokens))
        if work.promptTokens > 0 {
            let computed = Double(work.prefilledTokens) / Double(work.promptTokens)
            try metrics.record("rollout/prompt_tokens_shared", 1 - computed)
        }
        try metrics.record("async/buffered_groups", Double(await flow.buffered))
        try metrics.record("async/groups_under_way", Double(await flow.underWay))
        try metrics.record("async/stale_groups", Double(counts.stale))
        try metrics.record("async/evicted_groups", Double(counts.evicted))
        try metrics.record("async/cut_groups", Double(counts.cut))
        try metrics.record("async/unscored_groups", Double(counts.unscored))
    }
}

extension Phase {
    /// New weights wait for answers that are under way.
    public static let settle: Phase = "settle"
    /// The samplers get the weights.
    public static let syncWeights: Phase = "sync_weights"
}

extension StepMetrics {
    /// The means of what several parts of a step measured; maxima stay maxima.
    static func means(_ parts: [StepMetrics]) -> PhaseMetrics {
        var all: OrderedDictionary<MetricName, [Double]> = [:]
        for part in parts { for (name, value) in part.values { all[name, default: []].append(value) } }
        return all.mapPairs { name, values in
            if name.text.hasSuffix("_max") || name.text.hasSuffix("/max") { return values.max() ?? 0 }
            if name.text.hasSuffix("/min") { return values.min() ?? 0 }
            return values.reduce(0, +) / Double(values.count)
        }
    }
}

extension OrderedDictionary {
    fileprivate func mapPairs<Result>(_ transform: (Key, Value) -> Result) -> OrderedDictionary<Key, Result> {
        OrderedDictionary<Key, Result>(uniqueKeysWithValues: map { ($0.key, transform($0.key, $0.value)) })
    }
}

extension SampleFlow.Saved {
    init(text: String) throws {
        let decoder = JSONDecoder()
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        self = try decoder.decode(Self.self, from: Data(text.utf8))
    }

    func text() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}

public import Logging
import OrderedCollections
public import Telemetry

/// Which groups teach something: those whose answers differ in what they are worth (DAPO's dynamic sampling, Yu et al. 2025).
public struct GroupFilter: Sendable, Hashable {
    /// What must differ: `score`, or one of the scores' details.
    public var metric: String
    /// The most batches of prompts that a step samples; 0: no bound.
    public var maxBatches: Int

    public init(metric: String = "score", maxBatches: Int = 0) {
        self.metric = metric
        self.maxBatches = maxBatches
    }

    /// The answers of the groups that are kept, and how many groups are left out. Answers without a score are in neither.
    ///
    /// - Throws: ``FlowError``, `missingDetail`, where a scored answer lacks the metric.
    public func kept(_ scored: [Trajectory]) throws(FlowError) -> (groups: [[Trajectory]], leftOut: Int) {
        var groups: OrderedDictionary<Int, [Trajectory]> = [:], leftOut = 0
        for trajectory in scored where trajectory.score != nil {
            groups[trajectory.prompt.group, default: []].append(trajectory)
        }
        var kept: [[Trajectory]] = []
        for group in groups.values {
            var worths: Set<Double> = []
            for answer in group { worths.insert(try worth(answer)) }
            if worths.count > 1 { kept.append(group) } else { leftOut += 1 }
        }
        return (kept, leftOut)
    }

    private func worth(_ answer: Trajectory) throws(FlowError) -> Double {
        if metric == "score" { return answer.score ?? .nan }
        guard let detail = answer.scoreDetails[metric] else {
            let known = ["score"] + answer.scoreDetails.keys.sorted()
            throw FlowError(
                .missingDetail,
                "algorithm.filter_groups.metric: no score has a detail '\(metric)'; give \(known.joined(separator: " or "))"
            )
        }
        return detail
    }
}

/// From prompts to scored answers; with a filter as many batches of prompts as it takes to have enough groups that teach something.
/// Any loop may call it.
public struct GroupSampling: Sendable {
    public let prompts: any PromptProvider
    public let rollout: any RolloutGroup
    public let reward: any RewardGroup
    public let filter: GroupFilter?
    public let log: Logger

    public init(
        prompts: any PromptProvider, rollout: any RolloutGroup, reward: any RewardGroup, filter: GroupFilter? = nil,
        log: Logger
    ) {
        self.prompts = prompts
        self.rollout = rollout
        self.reward = reward
        self.filter = filter
        self.log = log
    }

    /// What became of a step's prompts: every answer, and those to learn from.
    public struct Sampled: Sendable {
        public var all: [Trajectory] = []
        public var kept: [Trajectory] = []
    }

    /// Samples and scores `batch`, and with a filter more batches until as many groups are kept as it has prompts. Groups beyond that
    /// are dropped and counted. A step that has sampled as many batches as it may, or all there are, makes do with what was kept.
    public func sample(
        _ batch: [PromptTask], _ request: RolloutRequestSettings, metrics: inout StepMetrics, timer: PhaseTimer,
        observer: any LoopObserver
    ) async throws -> Sampled {
        var sampled = Sampled(), next: [PromptTask]? = batch, request = request
        var groups: [[Trajectory]] = [], batches = 0, leftOut = 0
        while let tasks = next {
            batches += 1
            let scored = try await score(tasks, request, isFirst: batches == 1, &metrics, timer, observer)
            sampled.all += scored
            guard let filter else {
                sampled.kept = scored.filter { $0.score != nil }
                break
            }
            let found = try filter.kept(scored)
            groups += found.groups
            leftOut += found.leftOut
            if groups.count >= batch.count { break }
            if filter.maxBatches > 0, batches >= filter.maxBatches {
                log.warning(
                    """
                    step \(metrics.step): \(batches) batches of prompts had \(groups.count) groups whose answers differ, of \
                    \(batch.count) wanted; learning from those (algorithm.filter_groups.max_num_gen_batches)
                    """)
                break
            }
            // A step's groups are told apart, and its draws differ, whichever batch they are of.
            let first = sampled.all.reduce(0) { max($0, $1.prompt.group) } + 1
            request.seed &+= 0xD1B5_4A32_D192_ED03
            next = try await prompts.nextBatch()?.map { task in
                var task = task
                task.group += first
                return task
            }
        }
        try metrics.describe(sampled.all)
        if filter != nil {
            sampled.kept = groups.prefix(batch.count).flatMap { $0 }
            try metrics.record("train/num_gen_batches", Double(batches))
            try metrics.record("train/filtered_groups", Double(leftOut))
            try metrics.record("train/surplus_groups", Double(max(0, groups.count - batch.count)))
        }
        return sampled
    }

    private func score(
        _ tasks: [PromptTask], _ request: RolloutRequestSettings, isFirst: Bool, _ metrics: inout StepMetrics,
        _ timer: PhaseTimer, _ observer: any LoopObserver
    ) async throws -> [Trajectory] {
        try observer.phaseBegins(.generate)
        let sampled = try await timer.measure(.generate) { try await rollout.generate(tasks, request) }
        try observer.phaseBegins(.score)
        let scored = try await timer.measure(.score) { try await reward.score(sampled.trajectories) }
        // Of a step's batches the last one's figures stand; what is counted adds up.
        for (name, value) in sampled.metrics.merging(scored.metrics, uniquingKeysWith: { $1 }) {
            let isCount =
                name.text.hasPrefix("reward/") && !name.text.hasSuffix("/mean") || name.text.hasSuffix("_tokens")
            metrics[name] = value + (isCount && !isFirst ? metrics[name] ?? 0 : 0)
        }
        return scored.trajectories
    }
}

/// What goes wrong in a loop.
public struct FlowError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        /// A score has no such detail.
        public static let missingDetail = Code("missingDetail")
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

import Synchronization
public import Telemetry

/// Samplers on devices of their own, which work while the actor learns elsewhere.
public protocol RolloutPool: Sendable {
    /// `settings.n` answers to a prompt. Calls at the same time are answered together; a task that is cancelled gives its samples up.
    /// - Parameters:
    ///   - settings: its seed decides every draw of the group.
    ///   - seat: of requests that begin alike, which one sampler answers; nil: whichever has the least to do.
    func answer(
        _ prompt: PromptTask, _ settings: RolloutRequestSettings, seat: PoolSeat?
    ) async throws -> [Trajectory]
    /// Gives every sampler the actor's weights as they are now, which become `version`. Samples that are under way go on with them.
    /// - Throws: where what arrived is not what was sent.
    func install(version: Int) async throws -> PhaseMetrics
    /// What the samplers have done since the last call.
    func work() async -> PoolWork
}

extension RolloutPool {
    /// The answers of whichever sampler has the least to do.
    public func answer(_ prompt: PromptTask, _ settings: RolloutRequestSettings) async throws -> [Trajectory] {
        try await answer(prompt, settings, seat: nil)
    }
}

/// Where requests go that begin alike, as the turns of an episode do: to one sampler, which finds in its cache what it has read before.
public final class PoolSeat: Sendable {
    private let sampler = Mutex<Int?>(nil)

    public init() {}

    /// The sampler's place in its pool, which the first request chooses.
    public func place(_ choose: () -> Int) -> Int {
        sampler.withLock { sampler in
            let place = sampler ?? choose()
            sampler = place
            return place
        }
    }
}

/// What samplers have done in a while.
public struct PoolWork: Sendable, Hashable, Codable {
    public var samplers: Int
    /// Of all samplers together, in which steps ran.
    public var busySeconds: Double
    public var generatedTokens: Int
    /// Tokens of what was asked for, each once a sample, and those of them that were computed: others were in a cache.
    public var promptTokens: Int
    public var prefilledTokens: Int

    public init(
        samplers: Int, busySeconds: Double = 0, generatedTokens: Int = 0, promptTokens: Int = 0,
        prefilledTokens: Int = 0
    ) {
        self.samplers = samplers
        self.busySeconds = busySeconds
        self.generatedTokens = generatedTokens
        self.promptTokens = promptTokens
        self.prefilledTokens = prefilledTokens
    }

    /// Of as many samplers, what they have done together.
    public static func += (work: inout PoolWork, other: PoolWork) {
        work.samplers += other.samplers
        work.busySeconds += other.busySeconds
        work.generatedTokens += other.generatedTokens
        work.promptTokens += other.promptTokens
        work.prefilledTokens += other.prefilledTokens
    }
}

import OrderedCollections
import Telemetry

/// Between samplers and learner: which prompts are being answered, which groups wait. Decides who may begin and what is learned next.
actor SampleFlow {
    /// What a resumed run goes on with.
    struct Saved: Codable {
        var next: Int
        var pending: [Int: PromptTask]
        var buffer: ReplayBuffer
        var counts: Counts
        /// nil in checkpoints of before there were any.
        var figures: GroupFigures?
    }

    /// Of the whole run.
    struct Counts: Codable, Hashable {
        /// Groups that no step has learned from: too old, no room, over-sampled, or without any score.
        var stale = 0, evicted = 0, cut = 0, unscored = 0
    }

    private let settings: OverlapSettings
    private var buffer: ReplayBuffer
    private(set) var counts: Counts
    /// Prompts that are being answered, by their groups' numbers; those that a resumed run has to begin anew are not yet.
    private var pending: [Int: PromptTask]
    private var unbegun: [Int]
    private var next: Int
    /// Steps learned from, and the version of the samplers' weights, in steps.
    private var step: Int
    private var version: Int
    /// Turns that are over: what is late for them is not wanted.
    private var endedTurns: Int
    /// Groups that have ended without anything to learn from, of turns that are not over.
    private var empty: Set<Int> = []
    private var isClosed = false
    /// New weights wait for what is under way; nothing begins meanwhile.
    private var isSettling = false
    /// Somebody reads prompts, or their place: one at a time, so that what is saved fits together.
    private var isReading = false
    /// Steps of the whole run.
    private let totalSteps: Int
    /// Of the groups that have ended and that no step has told of yet.
    private var figures: GroupFigures
    /// No prompt is left.
    private var isDry = false
    private var failure: (any Error)?
    private var changes: [CheckedContinuation<Void, Never>] = []

    init(_ settings: OverlapSettings, step: Int, totalSteps: Int, saved: Saved?) {
        self.settings = settings
        self.totalSteps = totalSteps
        self.step = step
        version = step
        endedTurns = step
        buffer = saved?.buffer ?? ReplayBuffer(settings.replay)
        pending = saved?.pending ?? [:]
        unbegun = (saved?.pending.keys).map { $0.sorted() } ?? []
        next = saved?.next ?? step * settings.begunPerStep
        counts = saved?.counts ?? Counts()
        figures = saved?.figures ?? GroupFigures()
    }

    /// What a resumed run goes on with, and the place in the data that belongs to it.
    func save(_ place: @Sendable () async throws -> String) async throws -> (saved: Saved, place: String) {
        while isReading { await change() }
        isReading = true
        defer { endReading() }
        let place = try await place()
        return (Saved(next: next, pending: pending, buffer: buffer, counts: counts, figures: figures), place)
    }

    private func endReading() {
        isReading = false
        changed()
    }

    var buffered: Int { buffer.count }
    var underWay: Int { pending.count - unbegun.count }

    private func changed() {
        let waiting = changes
        changes = []
        for one in waiting { one.resume() }
    }

    /// Waits until something else is so; the caller looks again.
    private func change() async { await withCheckedContinuation { changes.append($0) } }

    /// Whatever was waited for will not come.
    func fail(_ error: any Error) {
        failure = failure ?? error
        changed()
    }

    func close() {
        isClosed = true
        changed()
    }

    // MARK: - Samplers

    /// The next group to begin; nil when there is no more. Waits until one may begin.
    /// - Parameter nextPrompts: the next prompts of the data, nil at their end.
    func begin(_ nextPrompts: @Sendable () async throws -> [PromptTask]?) async throws -> (id: Int, prompt: PromptTask)?
    {
        while true {
            if let failure { throw failure }
            if isClosed { return nil }
            if let id = unbegun.first, let prompt = pending[id], !isSettling, mayBegin(id) {
                unbegun.removeFirst()
                return (id, prompt)
            }
            if isDry, unbegun.isEmpty { return nil }
            if !unbegun.isEmpty {
                await change()
                continue
            }
            guard mayBegin(next), !isReading else {
                await change()
                continue
            }
            isReading = true
            defer { endReading() }
            guard let prompts = try await nextPrompts() else {
                isDry = true
                return nil
            }
            for var prompt in prompts {
                // Groups of several batches are learned from together.
                prompt.group = next
                pending[next] = prompt
                unbegun.append(next)
                next += 1
            }
        }
    }

    /// A group may be so far ahead that it cannot be too old when its turn comes.
    private func mayBegin(_ id: Int) -> Bool {
        guard !isSettling else { return false }
        // What was dropped is made good, where turns do not matter.
        let lost = settings.keepsTurns ? 0 : counts.stale + counts.evicted + counts.unscored
        return id < min(version + settings.maxStaleness + 1, totalSteps) * settings.begunPerStep + lost
    }

    /// Whether a group that is under way is of no use any more.
    func isUnwanted(_ id: Int) -> Bool { isClosed || settings.keepsTurns && id / settings.begunPerStep < endedTurns }

    /// A group is answered and scored; without a trajectory there is nothing to learn from it.
    /// - Parameters:
    ///   - answers: all of them; `trajectories` are those to learn from.
    ///   - metrics: what the reward said.
    func ended(_ id: Int, _ trajectories: [Trajectory], of answers: [Trajectory], _ metrics: PhaseMetrics) {
        guard pending.removeValue(forKey: id) != nil else { return }
        figures.add(id, answers, metrics)
        if isUnwanted(id) {
            counts.cut += 1
        } else if trajectories.isEmpty {
            counts.unscored += 1
            empty.insert(id)
        } else {
            let oldest = trajectories.map(\.weightVersion).min() ?? version
            buffer.insert(
                .init(id: id, version: oldest, priority: Self.priority(trajectories), trajectories: trajectories))
            counts.evicted = buffer.evicted
        }
        changed()
    }

    /// What differs most within a group teaches most: the scores' standard deviation.
    private static func priority(_ trajectories: [Trajectory]) -> Double {
        let scores = trajectories.compactMap(\.score), mean = scores.reduce(0, +) / Double(max(1, scores.count))
        return (scores.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(max(1, scores.count))).squareRoot()
    }

    /// What there is to say of the groups that have been taken, and of those that nothing can be learned of: each is told of once.
    func takeFigures() -> GroupFigures {
        figures.take(but: Set(buffer.entries.filter { $0.taken == 0 }.map(\.id)))
    }

    /// A group was given up.
    func gaveUp(_ id: Int) {
        guard pending.removeValue(forKey: id) != nil else { return }
        counts.cut += 1
        changed()
    }

    // MARK: - Learner

    /// The next groups to learn from: `count` of them, or as many as this turn still gives. Waits for them.
    /// - Parameter taken: how many this step has had already.
    /// - Returns: none when this turn gives no more; nil when none gives more.
    func take(_ count: Int, taken: Int) async throws -> [ReplayBuffer.Entry]? {
        while true {
            if let failure { throw failure }
            if let entries = ready(count, taken: taken) { return entries }
            if isClosed || isOver { return nil }
            await change()
        }
    }

    /// Whether nothing is there any more, and nothing will come.
    private var isOver: Bool {
        guard isDry, pending.isEmpty else { return false }
        return settings.keepsTurns ? next <= step * settings.begunPerStep : buffer.count == 0
    }

    private func ready(_ count: Int, taken: Int) -> [ReplayBuffer.Entry]? {
        defer { counts.stale = buffer.dropped }
        guard settings.keepsTurns else {
            if let entries = buffer.take(count, at: step) { return entries }
            // Room may have become free for others.
            if counts.stale != buffer.dropped {
                counts.stale = buffer.dropped
                changed()
            }
            return isDry && pending.isEmpty ? buffer.take(min(count, buffer.count), at: step) : nil
        }
        let turn = step * settings.begunPerStep..<(step + 1) * settings.begunPerStep
        let here = buffer.entries.filter { turn.contains($0.id) }
        let wanted = min(count, settings.groupsPerStep - taken)
        let isLastOfTurn = !pending.keys.contains(where: turn.contains) && (next >= turn.upperBound || isDry)
        guard here.count >= wanted || isLastOfTurn, !isOver else { return nil }
        // Those that came first where some are over-sampled, else in the order of the prompts.
        let chosen = Set(here.prefix(wanted).map(\.id))
        return buffer.take(where: { chosen.contains($0.id) })
    }

    /// A step has learned what it is to learn.
    /// - Returns: groups that are under way and no longer wanted.
    func stepEnded() -> [Int] {
        step += 1
        guard settings.keepsTurns else { return [] }
        endedTurns = step
        let late = step * settings.begunPerStep
        counts.cut += buffer.remove(where: { $0.id < late })
        return pending.keys.filter { $0 < late }
    }

    /// Waits until nothing is under way that must not see other weights.
    func settle() async throws {
        guard !settings.partialRollouts else { return }
        isSettling = true
        while true {
            if let failure { throw failure }
            if isClosed || underWay == 0 { return }
            await change()
        }
    }

    /// The samplers have the weights of the steps learned so far.
    func installed() {
        version = step
        isSettling = false
        changed()
    }
}

/// The prompts that are being answered and scored, a task each.
actor Answers {
    private let flow: SampleFlow
    private let pool: any RolloutPool
    private let reward: any RewardGroup
    private let filter: GroupFilter?
    private var tasks: [Int: Task<Void, Never>] = [:]

    init(flow: SampleFlow, pool: any RolloutPool, reward: any RewardGroup, filter: GroupFilter?) {
        self.filter = filter
        self.flow = flow
        self.pool = pool
        self.reward = reward
    }

    /// Begins whatever may begin, until no more will.
    func produce(
        _ prompts: any PromptProvider, _ request: @Sendable (_ group: Int) -> RolloutRequestSettings
    ) async {
        do {
            while let (id, prompt) = try await flow.begin({ try await prompts.nextBatch() }) {
                let settings = request(id)
                tasks[id] = Task { await self.answer(id, prompt, settings) }
            }
        } catch {
            await flow.fail(error)
        }
    }

    private func answer(_ id: Int, _ prompt: PromptTask, _ settings: RolloutRequestSettings) async {
        do {
            let answered = try await pool.answer(prompt, settings)
            try Task.checkCancellation()
            let scored = try await reward.score(answered)
            let kept = scored.trajectories.filter { $0.score != nil }
            let teaches = try filter.map { try !$0.kept(kept).groups.isEmpty } ?? true
            await flow.ended(id, teaches ? kept : [], of: scored.trajectories, scored.metrics)
        } catch is CancellationError {
            await flow.gaveUp(id)
        } catch {
            await flow.fail(error)
        }
        tasks[id] = nil
    }

    func cancel(_ id: Int) { tasks[id]?.cancel() }

    /// Gives up all that is under way, and waits until it has ended.
    func cancelAll() async {
        let all = Array(tasks.values)
        for task in all { task.cancel() }
        for task in all { await task.value }
    }
}

import ChatTemplates
import Config
import Conversations
import Environments
import Flow
import Foundation
import OrderedCollections
import Synchronization
import Telemetry
import TestSupport
import Testing

@testable import Workers

/// Episodes whose turns are requests to a pool, of samplers that say what a script says.
@Suite(.serialized) struct EpisodePoolTests {
    /// Answers when the test lets it, with a digit of the request's seed.
    private final class ScriptedPool: RolloutPool {
        struct Notes {
            var requests: [(settings: RolloutRequestSettings, place: Int, prefix: Int)] = []
            var version = 0
            var isHeld = false
        }
        let notes = Mutex(Notes())
        private let format: ChatFormat

        init(_ format: ChatFormat) { self.format = format }

        func answer(
            _ prompt: PromptTask, _ settings: RolloutRequestSettings, seat: PoolSeat?
        ) async throws -> [Trajectory] {
            let version = notes.withLock { notes in
                let place = seat?.place { notes.requests.count } ?? -1
                notes.requests.append((settings, place, prompt.tokens.count))
                return notes.version
            }
            while notes.withLock({ $0.isHeld }) { try await Task.sleep(for: .milliseconds(1)) }
            await Task.yield()
            let ids = try format.encode("\(settings.seed % 10)<|im_end|>")
            return [
                Trajectory(
                    prompt: prompt, response: ids, text: "", rolloutLogProbs: ids.map { _ in -1 }, isTruncated: false,
                    weightVersion: version, weightDigest: "v\(version)")
            ]
        }

        func install(version: Int) -> PhaseMetrics {
            notes.withLock { $0.version = version }
            return [:]
        }
        func work() -> PoolWork { PoolWork(samplers: 1) }
    }

    /// Three turns an episode; knows how many are open.
    private final class World: Environment {
        struct Open {
            var now = 0, most = 0, all = 0
            var seeds: [Int: Set<UInt64>] = [:]
        }
        let open = Mutex(Open())
        let onStep: @Sendable (Int) async -> Void

        init(onStep: @escaping @Sendable (_ turn: Int) async -> Void = { _ in }) { self.onStep = onStep }

        var tools: [ToolDefinition] { [] }
        /// Of episodes: all that there were, the most that were open, and those that are.
        var counts: [Int] { open.withLock { [$0.all, $0.most, $0.now] } }

        func reset(_ task: EpisodeTask) -> EpisodeOpening {
            open.withLock { open in
                open.now += 1
                open.all += 1
                open.most = max(open.most, open.now)
                open.seeds[task.group, default: []].insert(task.seed)
            }
            return EpisodeOpening(Play(world: self), task.messages)
        }

        struct Play: Episode {
            let world: World
            func step(_ reply: EpisodeReply) async -> EpisodeStep {
                await world.onStep(reply.turn)
                return EpisodeStep(
                    messages: [.user("and?")], reward: 1, isDone: reply.turn == 2, details: ["tool_calls": 2])
            }
            func close() { world.open.withLock { $0.now -= 1 } }
        }
    }

    private static func pool(
        _ world: World, _ overrides: [String] = []
    ) throws -> (pool: EpisodePool, script: ScriptedPool) {
        let workspace = try Workspace()
        let recipe = """
            model: {path: \(workspace.model.path), dtype: float32}
            device: cpu
            data: {train_files: builtin:arithmetic, max_prompt_length: 64, max_response_length: 400}
            rollout: {n: 3, multi_turn: {enable: true, format: hermes, max_assistant_turns: 5}}
            environment: {path: world.py, score: environment}

            """
        let config = try RunConfig(
            yaml: recipe, file: "recipe.yaml", overrides: overrides, names: TrainingRun.knownNames)
        let text = try TextProcessor(at: workspace.model.path), script = ScriptedPool(try text.chatFormat())
        return (EpisodePool(script, try EpisodeStage(config, world, text, contextLength: 512)), script)
    }

    private static func prompt(_ group: Int) -> PromptTask {
        PromptTask(
            group: group, tokens: [1, 2, 3], text: "q", dataSource: "d", groundTruth: "42",
            messages: [.init(role: "user", content: "question")])
    }

    private static func settings(_ seed: UInt64) -> RolloutRequestSettings {
        RolloutRequestSettings(n: 3, temperature: 1, maxTokens: 400, seed: seed)
    }

    @Test func aTurnIsARequestOfItsOwnToTheSamplerThatHasReadItsPrompt() async throws {
        let world = World(), (pool, script) = try Self.pool(world)
        let answers = try await pool.answer(Self.prompt(4), Self.settings(9))
        #expect(answers.count == 3 && answers.allSatisfy { $0.prompt.group == 4 })
        for answer in answers {
            let episode = try #require(answer.episode)
            #expect(episode.ending == "done" && episode.turns == 3 && episode.reward == 3 && episode.toolCalls == 6)
            #expect(answer.responseMask?.contains(false) == true && answer.learnedCount < answer.response.count)
        }
        let requests = script.notes.withLock { $0.requests }
        #expect(requests.count == 9 && Set(requests.map(\.place)).count == 1)
        #expect(requests.allSatisfy { $0.settings.n == 1 } && Set(requests.map(\.settings.seed)).count == 9)
        // What was drawn and shown counts against what may follow.
        #expect(requests.allSatisfy { $0.settings.maxTokens + $0.prefix == 400 + requests[0].prefix })
        _ = try await pool.answer(Self.prompt(5), Self.settings(10))
        #expect(Set(script.notes.withLock { $0.requests }.map(\.place)).count == 2)
        // Episodes that are compared with each other play in the same world.
        #expect(world.open.withLock { $0.seeds }.map(\.value.count) == [1, 1])
    }

    /// Whatever else is drawn, and whenever: of a group's seed, the sample and the turn alone.
    @Test func drawsAreDecidedBySeedSampleAndTurn() async throws {
        func texts(_ seeds: [UInt64], _ overrides: [String] = []) async throws -> [UInt64: [String]] {
            let (pool, _) = try Self.pool(World(), overrides)
            return try await withThrowingTaskGroup(of: (UInt64, [String]).self) { group in
                for seed in seeds {
                    group.addTask { (seed, try await pool.answer(Self.prompt(1), Self.settings(seed)).map(\.text)) }
                }
                return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
            }
        }
        let all = try await texts([1, 2, 3, 4]), alone = try await texts([3])
        #expect(all[3] == alone[3] && Set(all.values.joined()).count > 6)
        #expect(try await texts([4, 3, 2, 1], ["rollout.multi_turn.max_concurrent_episodes=2"]) == all)
    }

    @Test func openEpisodesAreLimitedOverAllPrompts() async throws {
        let world = World(), (pool, _) = try Self.pool(world, ["rollout.multi_turn.max_concurrent_episodes=2"])
        try await withThrowingTaskGroup(of: Void.self) { group in
            for prompt in 0..<6 {
                group.addTask { _ = try await pool.answer(Self.prompt(prompt), Self.settings(UInt64(prompt))) }
            }
            try await group.waitForAll()
        }
        #expect(world.counts == [18, 2, 0])
    }

    /// New weights between two turns: the oldest ones count.
    @Test func anEpisodeIsAsOldAsItsOldestTurn() async throws {
        let installs = Mutex<[ScriptedPool]>([])
        let world = World { turn in
            if turn == 0 { _ = installs.withLock { $0[0] }.install(version: 6) }
        }
        let (pool, script) = try Self.pool(world, ["rollout.multi_turn.max_concurrent_episodes=1"])
        installs.withLock { $0 = [script] }
        script.notes.withLock { $0.version = 5 }
        let answers = try await pool.answer(Self.prompt(0), Self.settings(1))
        #expect(answers.map(\.weightVersion).sorted() == [5, 6, 6])
        #expect(answers.allSatisfy { $0.weightDigest == "v\($0.weightVersion)" })
    }

    /// Given up in their worlds, at a sampler, or before they began: all that was open is closed, and others have their places.
    @Test(arguments: [true, false]) func whatIsGivenUpIsClosed(_ isAtASampler: Bool) async throws {
        let isStuck = Mutex(true)
        let world = World { _ in
            // Heeds no cancellation.
            while !isAtASampler, isStuck.withLock({ $0 }) { await Task.yield() }
        }
        let (pool, script) = try Self.pool(world, ["rollout.multi_turn.max_concurrent_episodes=2"])
        script.notes.withLock { $0.isHeld = isAtASampler }
        let task = Task { try await pool.answer(Self.prompt(0), Self.settings(1)) }
        #expect(await holds { world.counts.last == 2 })
        #expect(await holds { script.notes.withLock { $0.requests.count } == 2 })
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        // The third may have had the first one's place before it heard of its own end.
        let before = world.counts
        #expect((2...3).contains(before[0]) && before[1...] == [2, 0])
        isStuck.withLock { $0 = false }
        script.notes.withLock { $0.isHeld = false }
        #expect(try await pool.answer(Self.prompt(1), Self.settings(2)).count == 3)
        #expect(world.counts == [before[0] + 3, 2, 0])
    }

    @Test func aGreedyAnswerIsOfItsPromptsNumber() async throws {
        let (pool, script) = try Self.pool(World()), rollout = PoolRollout(pool: pool)
        var settings = Self.settings(0)
        settings.n = 1
        let both = try await rollout.generate([Self.prompt(3), Self.prompt(8)], settings)
        let alone = try await rollout.generate([Self.prompt(8)], settings).trajectories
        #expect(both.trajectories.map(\.prompt.group) == [3, 8] && both.trajectories[1].text == alone[0].text)
        #expect(
            both.metrics["rollout/generated_tokens"] == Double(both.trajectories.reduce(0) { $0 + $1.learnedCount }))
        #expect(script.notes.withLock { $0.requests.count } == 9)
    }
}

import ChatTemplates
import Checkpoints
import Config
import Conversations
import Environments
import Flow
import Foundation
import Logging
import OrderedCollections
import Rewards
import Telemetry
import Testing
import Tokenizers

@testable import Workers

/// Episodes with tools, of a model that says what a script says, from the rollout to the update of a real one.
@Suite(.serialized) struct EpisodeRolloutTests {
    private static let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    /// Says what a script says, the token that ends a turn included.
    private actor ScriptedDrawing: EpisodeDrawing {
        let format: ChatFormat
        let script: @Sendable (ContinuationRequest) -> String
        private(set) var batches: [[ContinuationRequest]] = []
        private(set) var ended = 0

        init(_ format: ChatFormat, _ script: @escaping @Sendable (ContinuationRequest) -> String) {
            self.format = format
            self.script = script
        }

        func beginEpisodes(_ episodes: Int, tokens: Int) {}
        func contextLength() -> Int { 512 }
        func endEpisodes() -> EpisodeDraws {
            ended += 1
            return EpisodeDraws(metrics: [:], weightVersion: 0, weightDigest: "0")
        }

        func draw(
            _ requests: [ContinuationRequest], _ settings: RolloutRequestSettings
        ) throws -> [SampledContinuation] {
            batches.append(requests)
            return try requests.map { request in
                let ids = try format.encode(script(request)).prefix(request.maxTokens)
                return SampledContinuation(
                    tokens: Array(ids), logProbs: ids.map { _ in -1 }, isTruncated: false,
                    weightVersions: ids.map { _ in 3 })
            }
        }
    }

    private static func config(_ workspace: Workspace, _ overrides: [String] = []) throws -> RunConfig {
        let recipe = """
            model: {path: \(workspace.model.path), dtype: float32}
            device: cpu
            data: {train_files: builtin:arithmetic, train_batch_size: 2, max_prompt_length: 64, max_response_length: 400}
            actor: {ppo_mini_batch_size: 2, optim: {lr: 1e-2}}
            rollout: {n: 4, multi_turn: {enable: true, format: hermes, max_assistant_turns: 3}}
            environment:
              tools: [calculator, python]
              shaping: {first_success: 0.125}
              python: {cpu_s: 1, timeout_s: 20, memory_limit_mb: 256}
            reward: {type: exact_match, on_failure: drop_sample}
            trainer: {num_threads: 1}

            """
        return try RunConfig(yaml: recipe, file: "recipe.yaml", overrides: overrides, names: TrainingRun.knownNames)
    }

    private static func call(_ tool: String, _ argument: String, _ text: String) -> String {
        let json = String(decoding: (try? JSONEncoder().encode([argument: text])) ?? Data(), as: UTF8.self)
        return "<tool_call>\n{\"name\": \"\(tool)\", \"arguments\": \(json)}\n</tool_call><|im_end|>"
    }

    private static var prompts: [PromptTask] {
        (0..<2).map { group in
            PromptTask(
                group: group, tokens: [1, 2, 3], text: "q", dataSource: "d", groundTruth: "42",
                messages: [.init(role: "user", content: "question \(group)")])
        }
    }

    private static let settings = RolloutRequestSettings(n: 4, temperature: 1, maxTokens: 400, seed: 5)

    /// Code that runs for ever, takes all memory, or reaches out is stopped, the model is told so and answers; a real model then
    /// learns from what it drew, and from no word of the tools.
    @Test func runawayCodeEndsAndTheEpisodeGoesOn() async throws {
        let workspace = try Workspace()
        let config = try Self.config(workspace), plan = try RunPlan(config)
        let worker = PolicyWorker(try plan.policy(nil))
        let text = try await worker.load()
        try await RunServices.with(plan, Self.log) { services in
            let environment = try #require(services.environment)
            let drawing = ScriptedDrawing(try text.chatFormat()) { request in
                if request.turn > 0 { return request.episode == 2 ? "41<|im_end|>" : "42<|im_end|>" }
                switch request.episode {
                case 0: return Self.call("python", "code", "while True: pass")
                case 1: return Self.call("python", "code", "x = 'x' * (1 << 40)")
                case 2: return Self.call("python", "code", "import socket; socket.socket()")
                case 3: return Self.call("python", "code", "6 * 7")
                case 4: return Self.call("calculator", "expression", "6 * 7")
                case 5: return "<tool_call>{\"name\": 3}</tool_call><|im_end|>"
                case 6: return Self.call("browser", "url", "x")
                default: return "42<|im_end|>"
                }
            }
            let rollout = try await EpisodeRollout(
                config, drawing: drawing, environment: environment, text: text, log: Self.log)
            let (trajectories, metrics) = try await rollout.generate(Self.prompts, Self.settings)
            try #require(trajectories.count == 8)
            #expect(
                trajectories[0].text.contains("Error: the code was stopped: it used more than 1 s of processor time"))
            #expect(trajectories[1].text.contains("MemoryError"))
            #expect(trajectories[2].text.contains("Error"))
            for index in [3, 4] { #expect(trajectories[index].text.contains("<|im_start|>tool\n42<|im_end|>")) }
            #expect(trajectories[5].text.contains("write the call again"))
            #expect(trajectories[6].text.contains("there is no tool 'browser'"))
            #expect(trajectories.map { $0.episode?.turns } == [2, 2, 2, 2, 2, 2, 2, 1])
            #expect(trajectories.map { $0.episode?.answer } == ["42", "42", "41", "42", "42", "42", "42", "42"])
            #expect(trajectories.allSatisfy { $0.episode?.ending == "done" && $0.weightVersion == 3 })
            #expect(metrics["episode/tool_errors/mean"] == 5.0 / 8 && metrics["episode/tool_calls/mean"] == 6.0 / 8)
            #expect(metrics["episode/turns/max"] == 2 && metrics["perf/environment_seconds/max"] != nil)
            // What the model drew, and nothing else, is learned.
            for trajectory in trajectories {
                let mask = try #require(trajectory.responseMask)
                let drawn = zip(trajectory.response, mask).filter(\.1).map(\.0)
                let said = text.tokenizer.decode(drawn, skipSpecialTokens: false)
                #expect(said.hasSuffix((trajectory.episode?.answer ?? "?") + "<|im_end|>"))
                #expect(!said.contains("Error") && !said.contains("<|im_start|>"))
                #expect(mask.count == trajectory.rolloutLogProbs.count && mask.last == true)
                for (isDrawn, value) in zip(mask, trajectory.rolloutLogProbs) { #expect(value == (isDrawn ? -1 : 0)) }
            }
            // Turn by turn, all that go on in one batch and in their order.
            let batches = await drawing.batches
            #expect(batches.map { $0.map(\.episode) } == [Array(0..<8), Array(0..<7)])
            #expect(await drawing.ended == 1)

            let rewards = services.worker(config)
            let (scored, _) = try await rewards.score(trajectories)
            #expect(scored.map(\.score) == [1, 1, 0, 1.125, 1.125, 1, 1, 1])
            // A reward on the way lies where it was earned.
            let earned = try #require(scored[3].tokenRewards)
            #expect(earned.filter { $0 != 0 } == [0.125, 1] && earned.last == 1 && scored[0].tokenRewards == nil)

            try await worker.prepare(plan.training(totalSteps: 1, checkpoints: nil))
            let before = try await worker.weightDigest()
            var kept = scored
            let advantages = try await worker.advantages(kept)
            for index in kept.indices {
                kept[index].advantages = advantages[index]
                kept[index].oldLogProbs = kept[index].rolloutLogProbs
            }
            let update = try await worker.update(kept, seed: 1)
            #expect(try #require(update["actor/grad_norm"]) > 0)
            #expect(try await worker.weightDigest() != before)
        }
    }

    /// A failed episode is a failed reward, whose kind and fate are the policy's; so is one that never drew a token.
    @Test(arguments: [("environment", [0.5, 0.25]), ("answer", [1, 0]), ("sum", [1.5, 0.25])])
    func episodesAreWorthWhatTheRecipeSays(_ mode: String, _ scores: [Double]) async throws {
        let mode = try #require(EnvironmentSettings.Score(rawValue: mode))
        func trajectory(_ answer: String, _ reward: Double, failure: String? = nil, response: [Int32] = [1, 2])
            -> Trajectory
        {
            var trajectory = Trajectory(
                prompt: Self.prompts[0], response: response, text: "all of it", rolloutLogProbs: [], isTruncated: false,
                weightVersion: 0, weightDigest: "")
            trajectory.tokenRewards = response.isEmpty ? nil : [Float(reward), 0]
            trajectory.episode = EpisodeOutcome(
                ending: "done", answer: answer, reward: reward,
                failure: failure.map { .init(kind: $0, message: "m") }, turns: 1)
            return trajectory
        }
        let worker = RewardWorker(
            reward: ExactMatchReward(), policy: .scoreAs(-1), maxResponseTokens: 8, episodes: mode)
        let (scored, metrics) = try await worker.score([
            trajectory("42", 0.5), trajectory("41", 0.25), trajectory("42", 0, failure: "timed_out"),
            trajectory("", 0, failure: "died", response: []),
        ])
        #expect(scored.map(\.score) == scores.map(Optional.some) + [-1, nil])
        #expect(metrics["reward/failed_timed_out"] == 1 && metrics["reward/failed_worker_died"] == 1)
        for (trajectory, score) in zip(scored, scores) {
            let rewards = trajectory.tokenRewards
            #expect((rewards == nil) == (mode == .answer))
            if let rewards { #expect(rewards.reduce(0, +) == Float(score)) }
        }
        #expect(scored[2].tokenRewards == nil)
    }

    /// A template that does not show how tools are called is not guessed at.
    @Test func theFormatIsNamedOrShown() async throws {
        let workspace = try Workspace()
        let config = try Self.config(
            workspace, ["rollout.multi_turn.format=auto", "environment={tools: [calculator], python: null}"])
        let text = try TextProcessor(at: workspace.model.path)
        let drawing = ScriptedDrawing(try text.chatFormat()) { _ in "" }
        let environment = try ToolEnvironment([CalculatorTool()], reward: ExactMatchReward())
        let error = await #expect(throws: WorkerError.self) {
            _ = try await EpisodeRollout(
                config, drawing: drawing, environment: environment, text: text, log: Self.log)
        }
        #expect(error?.description.contains("rollout.multi_turn.format") == true)
    }
}

import Foundation
import OrderedCollections
import Subprocess
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// Rewards that are models: one beside the policy, one on a server.
    @Suite struct ScoringModelTests {
        private static let rule = #"reward: {type: regex, pattern: "[A-Z]"}"#

        private func workspace(_ reward: String) throws -> Workspace {
            try Workspace(
                recipe: Workspace.recipe.replacing(Self.rule, with: reward)
                    .replacing("val_files: builtin:arithmetic\n", with: "\n")
                    .replacing("test_freq: 3", with: "test_freq: -1"))
        }

        /// What `fledge reward-model` and `fledge export` leave scores answers, the same ones alike however they are cut into passes.
        @Test func aRewardModelScores() async throws {
            let made = try await SupervisedTests.workspace(.rewardModel)
            _ = try await SupervisedTests.train(.rewardModel, made, ["trainer.total_training_steps=1"])
            let exported = try await made.fledge("export", "--run", "run", "--to", "scorer")
            #expect(exported.exitCode == 0, "\(exported)")
            let scorer = made.folder.appending(path: "scorer").path
            let workspace = try workspace("reward: {model: {path: \(scorer)}, on_failure: abort}")
            let outcome = try await workspace.train(["trainer.total_training_steps=2"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history(), metrics = try workspace.metrics()
            #expect(history.count == 2 && history.allSatisfy { $0["reward/failed"] == 0 })
            #expect(history.allSatisfy { ($0["critic/score/max"] ?? 0) > ($0["critic/score/min"] ?? 0) })
            try workspace.removeRun()
            _ = try await workspace.train([
                "trainer.total_training_steps=1", "reward.model.max_token_len_per_gpu=20",
            ])
            let cut = try #require(try workspace.history().first?["critic/score/mean"])
            #expect(abs(cut - (history[0]["critic/score/mean"] ?? .nan)) < 1e-5)
            #expect(metrics.count == 2)
        }

        @Test func aModelWithoutScoresIsRefused() async throws {
            let workspace = try workspace("reward: {model: {path: model}}")
            let outcome = try await workspace.train()
            #expect(outcome.exitCode == 2 && outcome.errors.contains("no score head"), "\(outcome)")
            #expect(!FileManager.default.fileExists(atPath: workspace.run.path))
        }

        /// A judge that is not there: every answer fails by name, and the run ends instead of standing still.
        @Test func withoutItsServerNothingIsLearnedAndNothingHangs() async throws {
            let workspace = try workspace(
                "reward: {judge: {url: \"http://127.0.0.1:9/v1\", timeout_s: 0.5, retries: 0}}")
            let outcome = try await workspace.train(["trainer.total_training_steps=2"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            #expect(history.count == 2 && history.allSatisfy { $0["reward/failed"] == 16 })
            #expect(outcome.errors.contains("every reward failed"), "\(outcome)")
            try workspace.removeRun()
            let strict = try await workspace.train(["reward.on_failure=abort"])
            #expect(strict.exitCode == 2 && strict.errors.contains("rewards failed, the first"), "\(strict)")
        }

        /// The server sees the key; no file of the run does.
        @Test func aJudgeScoresAndItsKeyStaysSecret() async throws {
            let workspace = try workspace("reward: {judge: {url: \"http://unset/v1\", api_key_env: FLEDGE_TEST_KEY}}")
            try workspace.write("judge.py", Self.server)
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.arguments = ["python3", "judge.py"]
            process.currentDirectoryURL = workspace.folder
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.run()
            // It inherits what signals the tests' process ignores.
            defer { Glibc.kill(process.processIdentifier, SIGKILL) }
            let file = workspace.folder.appending(path: "port")
            while !FileManager.default.fileExists(atPath: file.path), process.isRunning {
                try await Task.sleep(for: .milliseconds(5))
            }
            let port = try String(contentsOf: file, encoding: .utf8)
            let arguments = [
                "train", "recipe.yaml", "trainer.total_training_steps=2",
                "reward.judge.url=http://127.0.0.1:\(port)/v1",
            ]
            let outcome = try await FledgeProcess.run(
                arguments, in: workspace.folder, environment: ["FLEDGE_TEST_KEY": "hunter2"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            #expect(history.count == 2 && history.allSatisfy { $0["reward/failed"] == 0 })
            #expect(history.allSatisfy { $0["critic/score/max"] == 0.7 && $0["critic/score/min"] == 0.7 })
            #expect(FileManager.default.fileExists(atPath: workspace.folder.appending(path: "authorized").path))
            for name in ["config.yaml", "metrics.jsonl", "summary.json", "samples.jsonl"] {
                let text = try String(contentsOfFile: workspace.run.path + "/" + name, encoding: .utf8)
                #expect(!text.contains("hunter2"), "\(name)")
            }
            #expect(!(outcome.output + outcome.errors).contains("hunter2"))
            let keyless = try await FledgeProcess.run(arguments, in: workspace.folder)
            #expect(keyless.exitCode == 2 && keyless.errors.contains("FLEDGE_TEST_KEY is not set"), "\(keyless)")
        }

        private static let server = """
            import http.server, json, os
            class Handler(http.server.BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"
                def do_POST(self):
                    json.loads(self.rfile.read(int(self.headers["content-length"])))
                    if self.headers["authorization"] == "Bearer hunter2":
                        open("authorized", "w").close()
                    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "Fine. Score: 7"}}]}).encode()
                    self.send_response(200)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                def log_message(self, *arguments): pass
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            open("port.part", "w").write(str(server.server_address[1]))
            os.rename("port.part", "port")
            server.serve_forever()

            """
    }
}

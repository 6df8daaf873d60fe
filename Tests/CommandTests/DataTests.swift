import Foundation
import Subprocess
import Telemetry
import TestSupport
import Testing

extension CommandSuites {
    /// `fledge data`, and training on the formats that it knows.
    @Suite struct DataTests {
        static let hasParquet: Bool = {
            let isThere = FileManager.default.fileExists(
                atPath: Golden.packageRoot.appending(path: ".deps/parquet/pyarrow").path)
            if !isThere {
                let notice = "SKIPPED commands on Parquet files: run scripts/setup --parquet\n"
                FileHandle.standardError.write(Data(notice.utf8))
            }
            return isThere
        }()

        private func fixture(_ name: String) -> String {
            Golden.packageRoot.appending(path: "Tests/Fixtures/parquet/\(name)").path
        }

        private func lines(_ text: String) -> [String] { text.split(separator: "\n").map(String.init) }

        private let fromFile = [
            "data.val_files=[]", "trainer.test_freq=-1", "trainer.total_training_steps=2", "data.max_prompt_length=400",
        ]

        @Test func headShowsRows() async throws {
            let workspace = try Workspace()
            let path = fixture("gsm8k.jsonl")
            let json = try await workspace.fledge("data", "head", path, "-n", "2", "--json")
            #expect(json.exitCode == 0, "\(json)")
            let expected = try lines(String(contentsOfFile: path, encoding: .utf8)).prefix(2)
            #expect(lines(json.output) == Array(expected))
            let text = try await workspace.fledge("data", "head", path, "-n", "1", "--columns", "data_source,prompt")
            #expect(
                text.output.contains(
                    "gsm8k.jsonl:1\n  data_source: openai/gsm8k\n  prompt:\n    [0]:\n      role: user"))
            #expect(!text.output.contains("reward_model"))
        }

        @Test func statsCountAndMeasure() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.fledge(
                "data", "stats", fixture("dapo.jsonl"), "--model", "model", "--json")
            #expect(outcome.exitCode == 0, "\(outcome)")
            let object = try #require(
                try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
            #expect(object["rows"] as? Int == 40)
            #expect(object["sources"] as? [String: Int] == ["math_dapo": 26, "numina": 14])
            #expect(object["duplicate_prompts"] as? Int == 0)
            let characters = try #require(object["characters"] as? [String: Double])
            #expect(characters["min"] == Double("Solve.What is 0²?".unicodeScalars.count))
            #expect(characters["max"] == Double("Solve.What is 39²?".unicodeScalars.count))
            // One token a byte, and those of the template.
            let tokens = try #require(object["tokens"] as? [String: Double])
            #expect(try #require(tokens["max"]) > 19)
            let text = try await workspace.fledge("data", "stats", fixture("dapo.jsonl"))
            for part in ["40 rows", "ability: string 30, null 10", "math_dapo: 26"] {
                #expect(text.output.contains(part), "\(text)")
            }
        }

        @Test func convertGoesThereAndBack() async throws {
            let workspace = try Workspace()
            let path = fixture("gsm8k.jsonl")
            for arguments in [["data", "convert", path, "a.json"], ["data", "convert", "a.json", "b.jsonl"]] {
                let outcome = try await FledgeProcess.run(arguments, in: workspace.folder)
                #expect(outcome.exitCode == 0, "\(outcome)")
                #expect(outcome.output.contains("wrote 24 rows"))
            }
            let back = try String(contentsOf: workspace.folder.appending(path: "b.jsonl"), encoding: .utf8)
            #expect(back == (try String(contentsOfFile: path, encoding: .utf8)))
            let again = try await workspace.fledge("data", "convert", path, "b.jsonl")
            #expect(again.exitCode == 2)
            #expect(again.errors.contains("--force"))
        }

        @Test func whatIsWrongIsNamed() async throws {
            let workspace = try Workspace()
            try workspace.write("bad.csv", "a,b\n1\n")
            for (arguments, part) in [
                (["data", "head", "none.jsonl"], "none.jsonl"),
                (["data", "head", "*.parquet"], "'*.parquet' matches no"),
                (["data", "stats", "bad.csv"], "bad.csv:2"), (["data", "convert", "bad.csv", "x.xls"], "x.xls"),
            ] {
                let outcome = try await FledgeProcess.run(arguments, in: workspace.folder)
                #expect(outcome.exitCode == 2, "\(outcome)")
                #expect(outcome.errors.contains(part), "\(outcome)")
            }
        }

        @Test func aPatternThatMatchesNothingNamesItsLine() async throws {
            let workspace = try Workspace(
                recipe: Workspace.recipe.replacing(
                    "train_files: builtin:arithmetic", with: "train_files: [\"x-*.jsonl\"]"))
            let outcome = try await workspace.train(fromFile)
            #expect(outcome.exitCode == 2, "\(outcome)")
            #expect(
                outcome.errors.contains("recipe.yaml:6: data.train_files: 'x-*.jsonl' matches no file"), "\(outcome)")
        }

        @Test func weightsMustBeAsManyAsEntries() async throws {
            let outcome = try await (try Workspace()).train(fromFile + ["data.train_weights=[1, 2]"])
            #expect(outcome.exitCode == 2)
            #expect(outcome.errors.contains("2 weights for 1 entries"), "\(outcome)")
        }

        /// Stopped and resumed in the middle of a mix of formats, a run has the metrics of one that was not.
        @Test func aMixOfFormatsTrainsAndResumes() async throws {
            let workspace = try Workspace()
            try workspace.write(
                "more.csv",
                "data_source,prompt,reward_model.ground_truth\n" + (0..<9).map { "sums,\($0) + 1,\($0 + 1)\n" }.joined()
            )
            let files =
                [
                    "data.train_files=[\(fixture("dapo.jsonl")), \"more.*\"]", "data.train_weights=[1, 3]",
                    "actor.optim.lr_scheduler_type=constant",
                ] + fromFile
            let whole = try await workspace.train(files + ["trainer.total_training_steps=4"])
            #expect(whole.exitCode == 0, "\(whole)")
            let expected = try workspace.metrics()
            #expect(try workspace.history().last?["data/epoch"] == 16.0 / 49)
            try workspace.removeRun()
            for steps in [2, 4] {
                let part = try await workspace.train(files + ["trainer.total_training_steps=\(steps)"])
                #expect(part.exitCode == 0, "\(part)")
            }
            #expect(try workspace.metrics() == expected)
        }

        @Test(.enabled(if: DataTests.hasParquet)) func trainsOnParquet() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(
                fromFile + ["data.train_files=\(fixture("dapo.parquet"))", "data.filter_overlong_prompts=true"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(try workspace.history().count == 2)
        }

        /// The loader's own record of what it opens: Arrow's library with Parquet only.
        @Test(.enabled(if: DataTests.hasParquet)) func arrowIsOpenedForParquetOnly() async throws {
            let workspace = try Workspace()
            for (name, opens) in [("dapo.jsonl", false), ("dapo.parquet", true)] {
                let outcome = try await FledgeProcess.run(
                    ["data", "stats", fixture(name)], in: workspace.folder, environment: ["LD_DEBUG": "files"])
                #expect(outcome.exitCode == 0)
                #expect(outcome.errors.contains("libtorch_cpu"))
                #expect(outcome.errors.contains("libarrow") == opens)
                #expect(outcome.errors.contains("libfledge-parquet") == opens)
            }
        }

        @Test(.enabled(if: DataTests.hasParquet)) func convertsFromAndToParquet() async throws {
            let workspace = try Workspace()
            for (from, to) in [
                (fixture("gsm8k.parquet"), "a.jsonl"), ("a.jsonl", "b.parquet"), ("b.parquet", "c.jsonl"),
            ] {
                let outcome = try await workspace.fledge("data", "convert", from, to)
                #expect(outcome.exitCode == 0, "\(outcome)")
            }
            let expected = try String(contentsOfFile: fixture("gsm8k.jsonl"), encoding: .utf8)
            for name in ["a.jsonl", "c.jsonl"] {
                #expect(try String(contentsOf: workspace.folder.appending(path: name), encoding: .utf8) == expected)
            }
        }

        @Test func withoutArrowTheRemedyIsNamed() async throws {
            let workspace = try Workspace()
            let outcome = try await FledgeProcess.run(
                ["data", "head", fixture("gsm8k.parquet")], in: workspace.folder,
                environment: ["FLEDGE_ARROW": workspace.folder.path])
            #expect(outcome.exitCode == 2)
            #expect(
                outcome.errors.contains("scripts/setup --parquet") && outcome.errors.contains("FLEDGE_ARROW"),
                "\(outcome)")
        }
    }
}

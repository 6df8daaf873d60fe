import Foundation
import OrderedCollections
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// `fledge generate --input FILE --output FILE`.
    @Suite struct BatchTests {
        private static let common = ["generate", "--model", "model", "--device", "cpu", "--input", "in.jsonl"]

        private func run(
            _ workspace: Workspace, _ arguments: [String] = [], to output: String = "out.jsonl",
            watch: @Sendable (pid_t) async throws -> Void = { _ in }
        ) async throws -> FledgeProcess.Outcome {
            try await FledgeProcess.run(
                Self.common + ["--output", output] + arguments, in: workspace.folder, watch: watch)
        }

        private func lines(_ workspace: Workspace, _ name: String = "out.jsonl") throws -> [JSONValue] {
            try text(workspace, name).split(separator: "\n").map {
                try JSONValue(parsing: Array($0.utf8), path: name)
            }
        }

        private func text(_ workspace: Workspace, _ name: String = "out.jsonl") throws -> String {
            try String(contentsOf: workspace.folder.appending(path: name), encoding: .utf8)
        }

        private func tokens(_ line: JSONValue, _ sample: Int = 0) -> [JSONValue]? {
            guard case .array(let samples)? = line["samples"], samples.indices.contains(sample),
                case .array(let ids)? = samples[sample]["token_ids"]
            else { return nil }
            return ids
        }

        private func sample(_ line: JSONValue, _ index: Int = 0) -> JSONValue? {
            guard case .array(let samples)? = line["samples"] else { return nil }
            return samples[index]
        }

        // MARK: What a line may hold

        @Test func everyFormOfPrompt() async throws {
            let workspace = try Workspace()
            let bytes = "hello".utf8.map(String.init).joined(separator: ", ")
            try workspace.write(
                "in.jsonl",
                """
                {"id": "text", "prompt": "hello", "seed": 5, "level": {"b": 1.50, "a": [null]}}
                {"id": 17, "prompt_token_ids": [\(bytes)], "seed": 5}

                {"messages": [{"role": "user", "content": "hello"}], "note": null}
                {"prompt": [{"role": "user", "content": "hello"}], "n": 1, "max_tokens": 3, "temperature": 0}

                """)
            let outcome = try await run(
                workspace, ["--n", "2", "--temperature", "1", "--max-tokens", "6", "--logprobs", "--ordered"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.errors.contains("4 of 4 lines are in out.jsonl"), "\(outcome)")
            #expect(outcome.errors.contains("carried along: level (1), note (1)"), "\(outcome)")
            #expect(outcome.output.isEmpty)
            let all = try lines(workspace)
            try #require(all.count == 4)
            #expect(all.map { $0["index"]?.int } == [0, 1, 2, 3])
            #expect(all[0]["id"]?.string == "text" && all[1]["id"]?.int == 17 && all[2]["id"] == nil)
            #expect(
                all.map { $0["prompt_tokens"]?.int } == [
                    5, 5, all[3]["prompt_tokens"]?.int, all[2]["prompt_tokens"]?.int,
                ])
            #expect((all[2]["prompt_tokens"]?.int ?? 0) > 10)
            // Numbers keep their digits, members their order.
            #expect(try text(workspace).contains(#""index":0,"level":{"b":1.50,"a":[null]},"seed":5,"#))
            #expect(all[2]["note"] == .null)
            // One seed and one prompt, however it came: one answer; two samples are two.
            #expect(tokens(all[0]) == tokens(all[1]) && tokens(all[0], 1) == tokens(all[1], 1))
            #expect(tokens(all[0]) != tokens(all[0], 1))
            #expect(all[0]["seed"]?.int == 5 && all[2]["seed"] != all[3]["seed"])
            for line in all {
                guard case .array(let samples)? = line["samples"] else { throw UnexpectedOutcome(outcome: outcome) }
                #expect(samples.count == (line["index"]?.int == 3 ? 1 : 2))
                for sample in samples {
                    guard case .array(let ids)? = sample["token_ids"], case .array(let logProbs)? = sample["logprobs"]
                    else { throw UnexpectedOutcome(outcome: outcome) }
                    #expect(ids.count == logProbs.count && !ids.isEmpty)
                    #expect(logProbs.allSatisfy { ($0.double ?? 1) <= 0 })
                    #expect(["stop", "length"].contains(sample["finish_reason"]?.string))
                    #expect(sample["text"]?.string != nil)
                }
            }
            #expect((tokens(all[3])?.count ?? 9) <= 3)
        }

        /// The sample that a line's `seed` gives is the one that `--prompt` with it prints.
        @Test func aLineIsReproducedByItsSeed() async throws {
            let workspace = try Workspace()
            try workspace.write("in.jsonl", (0..<5).map { "{\"prompt\": \"line \($0)\"}\n" }.joined())
            let sampled = ["--temperature", "1", "--max-tokens", "8"]
            #expect(try await run(workspace, sampled + ["--seed", "3"]).exitCode == 0)
            let line = try #require(try lines(workspace).first { $0["index"]?.int == 3 })
            let seed = try #require(line["seed"]?.int)
            let alone = try await FledgeProcess.run(
                ["generate", "--model", "model", "--device", "cpu", "--prompt", "line 3", "--seed", "\(seed)"]
                    + sampled,
                in: workspace.folder)
            #expect(alone.output == (sample(line)?["text"]?.string ?? "") + "\n", "\(alone)")
        }

        @Test func stopTextsAreCutOffAndChatRendersText() async throws {
            let workspace = try Workspace()
            try workspace.write(
                "in.jsonl",
                """
                {"prompt": "hello", "seed": 1}
                {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "hello"}], "seed": 1}

                """)
            let options = ["--chat", "--system", "S", "--temperature", "1", "--max-tokens", "40", "--ordered"]
            #expect(try await run(workspace, options).exitCode == 0)
            let first = try lines(workspace)
            #expect(tokens(first[0]) == tokens(first[1]))
            #expect(first[0]["prompt_tokens"] == first[1]["prompt_tokens"])

            // The letter that comes third ends it, and is not part of the text.
            let said = try #require(sample(first[0])?["text"]?.string)
            let letters = said.unicodeScalars.filter { $0.isASCII && $0.value > 32 && $0 != "\"" && $0 != "\\" }
            let stop = try #require(letters.first)
            try workspace.write("in.jsonl", "{\"prompt\": \"hello\", \"seed\": 1, \"stop\": [\"\(stop)\"]}\n")
            #expect(try await run(workspace, options, to: "cut.jsonl").exitCode == 0)
            let cut = try #require(try lines(workspace, "cut.jsonl").first)
            #expect(sample(cut)?["finish_reason"]?.string == "stop")
            #expect(sample(cut)?["text"]?.string == String(said.prefix { $0 != Character(stop) }))
        }

        @Test func toolsAndVariablesReachTheTemplate() async throws {
            let template = "{{ messages[-1].content }}{{ tools[0].name }}{% if loud %}!{% endif %}"
            let workspace = try Workspace(TinyModel(chatTemplate: template))
            try workspace.write(
                "in.jsonl",
                """
                {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "tool"}],
                 "chat_template_kwargs": {"loud": true}, "seed": 1}
                {"prompt": "atool!", "seed": 1}

                """.replacing(",\n ", with: ", "))
            let outcome = try await run(workspace, ["--temperature", "1", "--max-tokens", "6", "--ordered"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let both = try lines(workspace)
            #expect(both.map { $0["prompt_tokens"]?.int } == [6, 6] && tokens(both[0]) == tokens(both[1]))
        }

        @Test func keepSaysWhatIsCarried() async throws {
            let workspace = try Workspace()
            try workspace.write("in.jsonl", "{\"prompt\": \"a\", \"top_p\": 0.5, \"x\": 1}\n")
            for (keep, expected) in [
                ("unknown", ["index", "x", "seed", "prompt_tokens", "samples"]),
                ("all", ["index", "prompt", "top_p", "x", "seed", "prompt_tokens", "samples"]),
                ("none", ["index", "seed", "prompt_tokens", "samples"]),
            ] {
                let outcome = try await run(workspace, ["--keep", keep, "--max-tokens", "2"], to: keep)
                #expect(outcome.exitCode == 0, "\(outcome)")
                #expect(try lines(workspace, keep).first?.object.map { Array($0.keys) } == expected)
            }
        }

        @Test func otherFormatsAreRead() async throws {
            let workspace = try Workspace()
            try workspace.write("in.csv", "id,prompt,kind\na,hello,x\nb,\"good, bye\",y\n")
            let outcome = try await workspace.fledge(
                "generate", "--model", "model", "--device", "cpu", "--input", "in.csv", "--output", "out.jsonl",
                "--max-tokens", "2", "--json")
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(Set(try lines(workspace).map { $0["kind"]?.string }) == ["x", "y"])
            let summary = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
            #expect(summary["done"]?.int == 2 && summary["tokens"]?.int == 4 && summary["stopped"]?.bool == false)
        }

        // MARK: Bad lines

        @Test(arguments: [
            (#"{"prompt": 3}"#, "'prompt' is 3; give text or a list of messages"),
            (#"{"prompt": "a", "messages": []}"#, "the line has prompt and messages"),
            (#"{"text": "a"}"#, "the line has no prompt"), (#"{"prompt": ""}"#, "'prompt' is empty"),
            (#"{"prompt_token_ids": []}"#, "'prompt_token_ids' is empty"),
            (#"{"prompt_token_ids": [1, -2]}"#, "'prompt_token_ids[1]' is -2"),
            (#"{"prompt_token_ids": [1, 9999]}"#, "holds 9999; give ids below 258"),
            (#"{"messages": ["hello"]}"#, "'messages[0]' is"), (#"{"messages": []}"#, "'messages' is an empty list"),
            (#"{"prompt": "a", "temperature": "hot"}"#, "'temperature' is \"hot\"; give a number"),
            (#"{"prompt": "a", "top_p": 0}"#, "'top_p' is 0.0; give a share above 0"),
            (#"{"prompt": "a", "n": 0}"#, "'n' is 0; give an integer from 1 to 65536"),
            (#"{"prompt": "a", "n": 2, "temperature": 0}"#, "greedy samples are all the same"),
            (#"{"prompt": "a", "max_tokens": 1.5}"#, "'max_tokens' is 1.5"),
            (#"{"prompt": "a", "max_tokens": 600}"#, "1 prompt + 600 new tokens exceed the model's 512"),
            (#"{"prompt": "a", "seed": -1}"#, "'seed' is -1"), (#"{"prompt": "a", "stop": [1]}"#, "'stop' holds 1"),
            (#"{"prompt": "a", "bad_words": []}"#, "'bad_words' is not supported yet"),
            (#"{"prompt": "a", "logit_bias": {"9999": 1}}"#, "'logit_bias' names token 9999; the model's are 0 to 257"),
            (#"{"prompt": "a", "presence_penalty": 3}"#, "'presence_penalty' is 3.0; give a number from -2 to 2"),
            (#"{"prompt": "a", "max_new_tokens": 3}"#, "is max_tokens here"),
            (#"{"prompt": "a", "samples": []}"#, "is the name of a member of the output"),
            (#"{"prompt": "a", "id": [1]}"#, "'id' is a list"), (#"["a"]"#, "the row is a list, not an object"),
            (#"{"prompt": "a""#, "not JSON"), (#"{"custom_id": "1", "body": {}}"#, "OpenAI's batch format"),
        ])
        func badLine(_ line: String, _ part: String) async throws {
            let workspace = try Workspace()
            let good = "{\"prompt\": \"good\"}\n"
            try workspace.write("in.jsonl", good + line + "\n" + good)
            let options = ["--temperature", "1", "--max-tokens", "2"]
            let outcome = try await run(workspace, options)
            #expect(outcome.exitCode == 2, "\(outcome)")
            #expect(outcome.errors.contains("in.jsonl:2: ") && outcome.errors.contains(part), "\(outcome)")
            #expect((try? text(workspace))?.isEmpty ?? true)

            let skipping = try await run(workspace, options + ["--skip-bad", "--ordered"])
            #expect(skipping.exitCode == 0, "\(skipping)")
            #expect(skipping.errors.contains("1 bad lines left out") && skipping.errors.contains(part), "\(skipping)")
            #expect(try lines(workspace).map { $0["index"]?.int } == [0, 2])
        }

        @Test func manyBadLinesAreReportedTogether() async throws {
            let workspace = try Workspace()
            try workspace.write(
                "in.jsonl", (0..<700).map { "{\"prompt\": \($0 % 10 == 0 ? "1" : "\"a\"")}\n" }.joined())
            let outcome = try await run(workspace)
            #expect(outcome.exitCode == 2, "\(outcome)")
            for part in ["70 lines cannot be used", "in.jsonl:1:", "in.jsonl:191:", "and 50 more", "--skip-bad"] {
                #expect(outcome.errors.contains(part), "\(part) is not in \(outcome)")
            }
            #expect(!outcome.errors.contains("in.jsonl:201:"))
        }

        @Test func wrongUsage() async throws {
            let workspace = try Workspace()
            try workspace.write("in.jsonl", "{\"prompt\": \"a\"}\n")
            let model = ["generate", "--model", "model", "--device", "cpu"]
            for (arguments, part) in [
                (["--input", "in.jsonl"], "--output"), (["--prompt", "a", "--n", "2"], "--n goes with --input"),
                (["--input", "in.jsonl", "--output", "o", "--prompt", "a"], "without --prompt"),
                (["--input", "in.jsonl", "--output", "o", "--keep", "some"], "unknown, all or none"),
            ] {
                let outcome = try await FledgeProcess.run(model + arguments, in: workspace.folder)
                #expect(outcome.exitCode == 64 && outcome.errors.contains(part), "\(outcome)")
            }
            for (arguments, part) in [
                (["--n", "2"], "--n is 2, and --temperature is 0"), (["--top-p", "1.5"], "--top-p is 1.5"),
                (["--temperature", "-1"], "--temperature is -1.0"),
            ] {
                let outcome = try await run(workspace, arguments.map { $0 == "-1" ? "=-1" : $0 }.joinedOptions)
                #expect(outcome.exitCode == 2 && outcome.errors.contains(part), "\(outcome)")
            }
            let named = try await run(workspace, [], to: "out.csv")
            #expect(named.exitCode == 2 && named.errors.contains("end the name with .jsonl"), "\(named)")
            let none = try await workspace.fledge(
                "generate", "--model", "model", "--input", "none.jsonl", "--output", "o")
            #expect(none.exitCode == 2 && none.errors.contains("none.jsonl"), "\(none)")
        }
    }
}

extension [String] {
    /// `--name =-1` as `--name=-1`: the only way to give an option a value that begins with a dash.
    fileprivate var joinedOptions: [String] {
        reduce(into: []) { all, word in
            if word.hasPrefix("="), let last = all.popLast() { all.append(last + word) } else { all.append(word) }
        }
    }
}

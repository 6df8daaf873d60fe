import Foundation
import Telemetry
import Testing

extension CommandSuites {
    /// `tokenize`, `template` and `chat`, on a model whose every byte is a token.
    @Suite struct ConversationCommandTests {
        private static let imStart = 256, imEnd = 257

        private func json(_ outcome: FledgeProcess.Outcome) throws -> JSONValue {
            #expect(outcome.exitCode == 0, "\(outcome)")
            return try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
        }

        private func list(_ value: JSONValue?) -> [JSONValue]? {
            if case .array(let values)? = value { values } else { nil }
        }

        private func ints(_ value: JSONValue?) -> [Int]? { list(value)?.compactMap(\.int) }

        @Test func tokenizeShowsAndDecodes() async throws {
            let workspace = try Workspace()
            let listed = try json(await workspace.fledge("tokenize", "model", "hé <|im_end|>", "--json"))
            #expect(ints(listed["ids"]) == [104, 195, 169, 32, Self.imEnd])
            let last = list(listed["tokens"])?.last
            #expect(last?["special"]?.bool == true && last?["piece"]?.string == "<|im_end|>")
            #expect(ints(last?["bytes"]) == [4, 14] && ints(last?["characters"]) == [3, 13])

            let table = try await FledgeProcess.run(["tokenize", "model", "-"], in: workspace.folder, input: "a b\n")
            #expect(table.exitCode == 0 && table.output.contains("·") && table.output.contains("⏎"), "\(table)")
            #expect(table.errors.contains("4 tokens, 4 bytes, 4 characters"), "\(table)")

            let decoded = try await workspace.fledge("tokenize", "model", "--decode", "[104, 195 169,257]")
            #expect(decoded.output == "hé<|im_end|>\n", "\(decoded)")
            let skipped = try await workspace.fledge("tokenize", "model", "--decode", "104,257", "--no-special")
            #expect(skipped.output == "h\n", "\(skipped)")
            for ids in ["104,x", "-1", "999"] {
                let refused = try await workspace.fledge("tokenize", "model", "--decode=\(ids)")
                #expect(refused.exitCode == 2 && refused.errors.contains("--decode"), "\(refused)")
            }
            #expect(try await workspace.fledge("tokenize", "model", "a", "--decode", "1").exitCode == 64)
        }

        /// A tokenizer needs no weights.
        @Test func tokenizeTakesAFolderWithoutWeights() async throws {
            let workspace = try Workspace()
            for name in try FileManager.default.contentsOfDirectory(atPath: workspace.model.path)
            where !name.hasPrefix("tokenizer") {
                try FileManager.default.removeItem(at: workspace.model.appending(path: name))
            }
            #expect(try await workspace.fledge("tokenize", "model", "a").exitCode == 0)
            #expect(try await workspace.fledge("template", "model").exitCode == 0)
            let absent = try await workspace.fledge("tokenize", "nowhere", "a")
            #expect(absent.exitCode == 2 && absent.errors.contains("nowhere"), "\(absent)")
        }

        @Test func templateShowsMaskAndDrift() async throws {
            let workspace = try Workspace()
            try workspace.write(
                "talk.json",
                #"[{"role":"user","content":"a"},{"role":"assistant","content":"bc"},{"role":"user","content":"d"}]"#)
            let text = "<|im_start|>user\na<|im_end|><|im_start|>assistant\nbc<|im_end|><|im_start|>user\nd<|im_end|>"
            let plain = try await workspace.fledge(
                "template", "model", "--messages", "talk.json", "--generation-prompt")
            #expect(plain.output == text + "<|im_start|>assistant\n", "\(plain)")
            #expect(plain.errors.contains("3 of them the assistant's (found by prefixes)"), "\(plain)")
            #expect(plain.errors.contains("drift: none"), "\(plain)")

            let shown = try json(await workspace.fledge("template", "model", "--messages", "talk.json", "--json"))
            #expect(shown["text"]?.string == text && shown["assistant_mask_refused"] == .null)
            let marked = zip(ints(shown["ids"]) ?? [], ints(shown["assistant_mask"]) ?? []).filter { $0.1 == 1 }.map(
                \.0)
            #expect(marked == [98, 99, Self.imEnd])

            // A template that takes the thinking out of all turns but the last.
            let forgetful = """
                {% for m in messages %}<|im_start|>{{ m.role }} {{ m.content if loop.last else m.content.split(mark)[-1] }}\
                <|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}
                """
            try workspace.write("forgetful.jinja", forgetful)
            try workspace.write(
                "thought.json",
                #"[{"role":"user","content":"a"},{"role":"assistant","content":"b!x"},{"role":"user","content":"d"}]"#)
            let drifted = try json(
                await workspace.fledge(
                    "template", "model", "--messages", "thought.json", "--chat-template", "forgetful.jinja", "--set",
                    "mark=!", "--json"))
            #expect(drifted["assistant_mask"] == .null)
            #expect(drifted["assistant_mask_refused"]?.string?.contains("rewrites earlier turns") == true)
            #expect(drifted["drift"]?["kind"]?.string == "the template rewrites earlier turns")
            #expect(drifted["text"]?.string?.contains("<|im_start|>assistant x<|im_end|>") == true)
        }

        @Test func templateNamesWhatIsWrong() async throws {
            let workspace = try Workspace()
            try workspace.write("bad.json", "[{}]")
            try workspace.write("broken.json", "[")
            try workspace.write("bad.jinja", "\n{{ raise_exception('no such talk') }}")
            for (arguments, said) in [
                (["--messages", "bad.json"], "messages[0]"), (["--messages", "broken.json"], "broken.json"),
                (["--messages", "absent.json"], "absent.json"), (["--set", "x"], "key=value"),
                (["--chat-template", "bad.jinja"], "line 2, column"),
            ] {
                let outcome = try await FledgeProcess.run(["template", "model"] + arguments, in: workspace.folder)
                #expect(outcome.exitCode == 2 && outcome.errors.contains(said), "\(outcome)")
            }
        }

        /// Each turn's prompt is the one before with its answer, token for token.
        @Test func chatKeepsItsTokens() async throws {
            let workspace = try Workspace()
            let said = ["chat", "model", "--device", "cpu", "--max-tokens", "7", "--temperature", "1", "--json"]
            let outcome = try await FledgeProcess.run(said, in: workspace.folder, input: "hello\n\nand you\nbye\n")
            #expect(outcome.exitCode == 0, "\(outcome)")
            let turns = try outcome.output.split(separator: "\n").map {
                try JSONValue(parsing: Array($0.utf8), path: nil)
            }
            #expect(turns.map { $0["message"]?.string } == ["hello", "and you", "bye"])
            var tokens = "<user\nhello|".utf8.count + "<assistant\n".utf8.count
            for (turn, next) in zip(turns, ["and you", "bye", ""]) {
                #expect(turn["prompt_tokens"]?.double == Double(tokens), "\(outcome)")
                let ids = try #require(ints(turn["ids"]))
                #expect(list(turn["log_probs"])?.count == ids.count && !ids.isEmpty && ids.count <= 7)
                let isEnded = ids.last == Self.imEnd
                #expect(turn["finish_reason"]?.string == (isEnded ? "stop" : "length"))
                // The answer as it is, its end if it was cut off, the next question and what opens the next answer.
                tokens +=
                    ids.count + (isEnded ? 0 : 1) + "<user\n|".utf8.count + next.utf8.count + "<assistant\n".utf8.count
            }
        }

        @Test func chatIsAPlainPipe() async throws {
            let workspace = try Workspace()
            let said = ["chat", "model", "--device", "cpu", "--max-tokens", "5"]
            let outcome = try await FledgeProcess.run(said, in: workspace.folder, input: "/help")
            #expect(outcome.exitCode == 0 && !outcome.output.contains("/undo"), "\(outcome)")
            #expect(outcome.errors.contains("prompt tokens") && outcome.errors.contains("tokens/s"), "\(outcome)")
            let long = try await FledgeProcess.run(
                said, in: workspace.folder, input: String(repeating: "x", count: 600) + "\n")
            #expect(long.exitCode == 2 && long.errors.contains("512"), "\(long)")
        }
    }
}

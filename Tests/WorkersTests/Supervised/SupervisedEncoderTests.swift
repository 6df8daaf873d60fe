import Config
import Datasets
import Foundation
import TestSupport
import Testing
import TrainingEngine

@testable import Workers

@Suite struct SupervisedEncoderTests {
    static let chatML = """
        {% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant:{% endif %}
        """
    /// Says in every turn how many there are: no beginning is one of the whole.
    static let unstable = """
        {% for m in messages %}<|im_start|>{{ messages | length }}{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>{{ messages | length }}assistant:{% endif %}
        """

    /// A folder with a tokenizer and a template, and no weights.
    final class Folder {
        let path = NSTemporaryDirectory() + "fledge-encoder-\(UUID().uuidString)"
        deinit { try? FileManager.default.removeItem(atPath: path) }

        func text(_ template: String) throws -> TextProcessor {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            try write("tokenizer.json", ByteTokenizer.json)
            let config = ["eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "chat_template": template]
            try JSONEncoder().encode(config).write(to: URL(fileURLWithPath: path + "/tokenizer_config.json"))
            return try TextProcessor(at: path)
        }

        func write(_ name: String, _ text: String) throws {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path + "/" + name))
        }
    }

    let folder = Folder()

    private func encoder(
        _ kind: SupervisedKind = .sft, template: String = chatML, _ overrides: String...
    ) throws -> SupervisedEncoder {
        let config = try SupervisedConfig(
            kind, yaml: "{model: {path: m}, data: {train_files: x.jsonl}}", file: "recipe.yaml", overrides: overrides)
        return try SupervisedEncoder(
            text: folder.text(template), kind: kind, data: config.data,
            padID: kind == .rewardModel ? ByteTokenizer.turnEnd : nil)
    }

    private func dataset(_ encoder: SupervisedEncoder, _ lines: String...) throws -> SupervisedDataset {
        try folder.write("data.jsonl", lines.joined(separator: "\n"))
        return try SupervisedDataset(
            paths: [folder.path + "/data.jsonl"],
            columns: SupervisedColumns(encoder.kind == .sft ? .imitation : .pairs), encoder: encoder)
    }

    private func spell(_ ids: [Int32]) -> String {
        ids.map { id in
            switch id {
            case ByteTokenizer.turnStart: "<"
            case ByteTokenizer.turnEnd: ">"
            default: String(UnicodeScalar(UInt8(id)))
            }
        }.joined()
    }

    /// What is learnt, with a dot for every token between that is not.
    private func learnt(_ sequence: SupervisedSequence) -> String {
        zip(sequence.tokens.response, sequence.mask).map { $1 == 0 ? "." : spell([$0]) }.joined()
    }

    static let talk = """
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}, \
        {"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}]}
        """

    @Test func everyTurnOfTheAssistantIsLearnt() throws {
        let sequence = try dataset(encoder(), Self.talk).example(at: 0).sequences[0]
        #expect(spell(sequence.tokens.prompt) == "<user:a><assistant:")
        #expect(learnt(sequence) == "bc>" + String(repeating: ".", count: "<user:d><assistant:".count) + "e>")
    }

    @Test func aSystemTurnIsPutBefore() throws {
        let sequence = try dataset(encoder(.sft, "data.system_prompt=S"), Self.talk).example(at: 0).sequences[0]
        #expect(spell(sequence.tokens.prompt) == "<system:S><user:a><assistant:")
        let pair =
            #"{"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "b"}], "#
            + #""rejected": [{"role": "assistant", "content": "c"}]}"#
        let example = try dataset(encoder(.dpo, "data.system_prompt=S"), pair).example(at: 0)
        #expect(
            example.sequences.map { spell($0.tokens.prompt) }
                == Array(repeating: "<system:S><user:a><assistant:", count: 2))
        #expect(example.sequences.map(learnt) == ["b>", "c>"])
    }

    @Test func completionsOfTextEndWithTheEndToken() throws {
        let sequence = try dataset(encoder(), #"{"prompt": "1+1=", "completion": "2"}"#).example(at: 0).sequences[0]
        #expect(spell(sequence.tokens.prompt) == "1+1=" && learnt(sequence) == "2>")
        let all = try dataset(
            encoder(.sft, "data.assistant_only_loss=false"), #"{"prompt": "1+1=", "completion": "2"}"#)
        #expect(learnt(try all.example(at: 0).sequences[0]) == "+1=2>")
    }

    /// A conversation's prompt is what both sides begin with, and a reward model does not read padding at the end.
    @Test func pairsShareWhatBothBeginWith() throws {
        let row = """
            {"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bb"}], \
            "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}], "margin": 2}
            """
        let pair = try dataset(encoder(.dpo), row).example(at: 0)
        #expect(pair.sequences.map { spell($0.tokens.prompt) } == ["<user:a><assistant:", "<user:a><assistant:"])
        #expect(pair.sequences.map(learnt) == ["bb>", "bc>"] && pair.margin == 2)
        let read = try dataset(encoder(.rewardModel), row).example(at: 0)
        #expect(read.sequences.map { spell($0.tokens.prompt) } == ["<user:a><assistant:b", "<user:a><assistant:b"])
        #expect(read.sequences.map { spell($0.tokens.response) } == ["b", "c"])
    }

    private func refusal(_ body: () throws -> SupervisedDataset) -> String? {
        do {
            _ = try body()
            return nil
        } catch { return "\(error)" }
    }

    @Test func unstableTemplatesAreRefusedWhereTheRowStands() throws {
        let encoder = try encoder(template: Self.unstable)
        let found = refusal { try dataset(encoder, Self.talk) }
        #expect(found?.hasPrefix(folder.path + "/data.jsonl:1: ") == true, "\(found ?? "accepted")")
        #expect(found?.contains("rewrites earlier turns") == true && found?.contains("{% generation %}") == true)
    }

    @Test(arguments: [
        (#"{"prompt": [{"role": "user", "content": "a"}]}"#, "column 'messages': missing"),
        (#"{"messages": [{"role": "user", "content": "a"}]}"#, "no message is the assistant's"),
        ("{", "not JSON"),
    ])
    func badRowsAreNamed(_ row: String, _ says: String) throws {
        let encoder = try encoder()
        let found = refusal { try dataset(encoder, Self.talk, row) }
        #expect(
            found?.hasPrefix(folder.path + "/data.jsonl:2: ") == true && found?.contains(says) == true, "\(found ?? "")"
        )
    }

    @Test func longRowsFareAsConfigured() throws {
        let long = #"{"prompt": "12345678", "completion": "abcdefgh"}"#, short = #"{"prompt": "1", "completion": "a"}"#
        let refused = refusal { try dataset(encoder(.sft, "data.max_length=12"), short, long) }
        #expect(refused?.contains("data.jsonl:2") == true && refused?.contains("17 tokens, 12 are allowed") == true)
        let dropped = try dataset(encoder(.sft, "data.max_length=12", "data.truncation=drop"), long, short)
        #expect(dropped.count == 1 && dropped.dropped == 1 && dropped.longest == 17)
        #expect(spell(try dropped.example(at: 0).sequences[0].tokens.prompt) == "1")
        let right = try dataset(encoder(.sft, "data.max_length=12", "data.truncation=right"), long, short)
        #expect(right.count == 2 && right.cut == 1)
        #expect(learnt(try right.example(at: 0).sequences[0]) == "abcd")
        let left = try dataset(encoder(.sft, "data.max_length=12", "data.truncation=left"), long, short)
        #expect(spell(try left.example(at: 0).sequences[0].tokens.prompt) == "678")
        // Nothing is left to learn.
        let empty = try dataset(encoder(.sft, "data.max_length=8", "data.truncation=right"), long, short)
        #expect(empty.count == 1 && empty.dropped == 1)
        #expect(refusal { try dataset(encoder(.sft, "data.max_length=8", "data.truncation=drop"), long) } != nil)
    }

    @Test func marginsAreGivenToAllOrNone() throws {
        let encoder = try encoder(.rewardModel)
        let found = refusal {
            try dataset(
                encoder, #"{"chosen": "a", "rejected": "b", "margin": 1}"#, #"{"chosen": "a", "rejected": "b"}"#)
        }
        #expect(found?.contains("data.jsonl:2: column 'margin': missing") == true, "\(found ?? "accepted")")
    }

    @Test func aPairWithoutACommonPromptIsRefusedByDPO() throws {
        let row = #"{"chosen": "a", "rejected": "b"}"#
        let encoder = try encoder(.dpo)
        #expect(refusal { try dataset(encoder, row) }?.contains("column 'prompt': missing") == true)
        #expect(try dataset(self.encoder(.rewardModel), row).count == 1)
    }

    @Test func questionsEndWhereTheAnswerBegins() throws {
        let questions = try dataset(encoder(), Self.talk, #"{"prompt": "1+1=", "completion": "2"}"#).questions()
        #expect(spell(questions[0].prompt) == "<user:a><assistant:bc><user:d><assistant:")
        #expect(questions[0].reference == "e" && questions[0].text == "d")
        #expect(spell(questions[1].prompt) == "1+1=" && questions[1].reference == "2")
    }
}

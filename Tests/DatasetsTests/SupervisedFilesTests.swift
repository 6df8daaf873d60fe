import Foundation
import Testing

@testable import Datasets

@Suite struct SupervisedFilesTests {
    static func rows(_ lines: [String], _ kind: SupervisedColumns.Kind) throws -> SupervisedFiles {
        let file = try TemporaryFile(lines.joined(separator: "\n") + "\n")
        return try withExtendedLifetime(file) {
            try SupervisedFiles(paths: [file.path], columns: SupervisedColumns(kind))
        }
    }

    static let turns = #"[{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4", "name": null}]"#

    @Test func conversationsAndCompletionsAreRead() throws {
        let rows = try Self.rows(
            [
                #"{"messages": \#(Self.turns), "tools": "[{\"name\": \"add\"}]", "chat_template_kwargs": {"x": 1}}"#,
                #"{"prompt": "2 + 2 =", "completion": " 4", "other": 1}"#,
                #"{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": null, "tool_calls": []}]}"#,
            ], .imitation)
        guard case .conversation(let messages) = try rows.row(at: 0).content else {
            Issue.record("no conversation")
            return
        }
        // Keys that are null are none: Parquet gives every message every key.
        #expect(messages[1].members.map(\.name) == ["role", "content"])
        #expect(try rows.row(at: 0).tools?.text == #"[{"name":"add"}]"#)
        #expect(try rows.row(at: 0).templateVariables["x"] == .number("1"))
        #expect(
            try rows.row(at: 1).content
                == .completion(prompt: .text("2 + 2 ="), completion: .text(" 4")))
        guard case .completion(_, .messages(let answer)) = try rows.row(at: 2).content else {
            Issue.record("no completion")
            return
        }
        #expect(answer[0]["content"] == .null && answer[0]["tool_calls"] == .array([]))
    }

    @Test func pairsAreRead() throws {
        let rows = try Self.rows(
            [
                #"{"prompt": "q", "chosen": "yes", "rejected": "no", "margin": 0.5}"#,
                #"{"chosen": \#(Self.turns), "rejected": [{"role": "assistant", "content": "5"}]}"#,
            ], .pairs)
        #expect(
            try rows.row(at: 0).content
                == .pair(prompt: .text("q"), chosen: .text("yes"), rejected: .text("no"), margin: 0.5))
        guard case .pair(nil, .messages(let chosen), .messages(let rejected), nil) = try rows.row(at: 1).content else {
            Issue.record("no pair")
            return
        }
        #expect(chosen.count == 2 && rejected.count == 1)
    }

    struct Bad: Sendable, CustomTestStringConvertible {
        var kind: SupervisedColumns.Kind
        var row: String
        var column: String
        var says: String
        var testDescription: String { "\(column): \(says)" }
    }

    static let bad = [
        Bad(kind: .imitation, row: "{}", column: "messages", says: "missing, and so is 'completion'"),
        Bad(kind: .imitation, row: #"{"messages": []}"#, column: "messages", says: "empty list"),
        Bad(kind: .imitation, row: #"{"messages": "hi"}"#, column: "messages", says: "is a string"),
        Bad(
            kind: .imitation, row: #"{"messages": [{"role": "user", "content": "a"}]}"#, column: "messages",
            says: "no message is the assistant's"),
        Bad(
            kind: .imitation, row: #"{"messages": [{"content": "a"}]}"#, column: "messages[0].role", says: "missing"),
        Bad(
            kind: .imitation, row: #"{"messages": [{"role": "assistant"}]}"#, column: "messages[0].content",
            says: "missing"),
        Bad(
            kind: .imitation, row: #"{"messages": [{"role": "assistant", "content": 4}]}"#,
            column: "messages[0].content", says: "is a number"),
        Bad(kind: .imitation, row: #"{"messages": [3]}"#, column: "messages[0]", says: "is a number"),
        Bad(
            kind: .imitation, row: #"{"messages": \#(turns), "completion": "a"}"#, column: "messages",
            says: "'completion' as well"),
        Bad(kind: .imitation, row: #"{"completion": "a"}"#, column: "prompt", says: "missing"),
        Bad(kind: .imitation, row: #"{"prompt": "a", "completion": ""}"#, column: "completion", says: "is empty"),
        Bad(
            kind: .imitation, row: #"{"prompt": "a", "completion": \#(turns)}"#, column: "prompt",
            says: "make both the same"),
        Bad(
            kind: .imitation, row: #"{"messages": \#(turns), "tools": 3}"#, column: "tools",
            says: "list of JSON schemas"),
        Bad(
            kind: .imitation, row: #"{"messages": \#(turns), "tools": "{"}"#, column: "tools", says: "no JSON list"),
        Bad(
            kind: .imitation, row: #"{"messages": \#(turns), "chat_template_kwargs": 3}"#,
            column: "chat_template_kwargs", says: "must be an object"),
        Bad(kind: .pairs, row: #"{"prompt": "a", "chosen": "b"}"#, column: "rejected", says: "missing"),
        Bad(
            kind: .pairs, row: #"{"prompt": "a", "chosen": "b", "rejected": "b"}"#, column: "rejected",
            says: "same as 'chosen'"),
        Bad(
            kind: .pairs, row: #"{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "x"}"#, column: "margin",
            says: "must be a number"),
        Bad(
            kind: .pairs, row: #"{"chosen": [{"role": "user", "content": "a"}], "rejected": \#(turns)}"#,
            column: "chosen[0].role", says: "must be the assistant's"),
    ]

    @Test(arguments: bad) func badRowsAreNamedByFileLineAndColumn(_ bad: Bad) throws {
        let good =
            bad.kind == .imitation
            ? #"{"messages": \#(Self.turns)}"# : #"{"prompt": "a", "chosen": "b", "rejected": "c"}"#
        do {
            _ = try Self.rows([good, "", bad.row], bad.kind)
            Issue.record("\(bad.row) was accepted")
        } catch let error as DatasetError {
            #expect(error.code == .badColumn && error.column == bad.column, "\(error)")
            #expect(error.origin?.line == 3)
            #expect(error.message.contains(bad.says), "\(error)")
        }
    }

    @Test func rowsThatAreNoObjectsAreRefused() {
        #expect { try Self.rows([#"{"messages": "#], .imitation) } throws: {
            ($0 as? DatasetError)?.code == .malformedRow
        }
    }

    @Test func arithmeticFilesServeEveryCommand() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "fledge-arithmetic-\(UUID().uuidString)/a")
        defer { try? FileManager.default.removeItem(at: folder.deletingLastPathComponent()) }
        let problems = try ArithmeticProblems(seed: 3, space: .init(forms: [[.add]]), heldOut: 20)
        let written = try ArithmeticFiles(problems).write(to: folder.path, suffix: "jsonl", seed: 3)
        #expect(written.map(\.rows) == [problems.training.count, 20])
        #expect(written.map(\.path) == [folder.path + "/train.jsonl", folder.path + "/heldout.jsonl"])
        let paths = written.map(\.path)
        let imitation = try SupervisedFiles(paths: paths, columns: SupervisedColumns(.imitation))
        let pairs = try SupervisedFiles(paths: paths, columns: SupervisedColumns(.pairs))
        let prompts = try PromptFiles(paths: paths)
        #expect(imitation.count == pairs.count && prompts.count == pairs.count)
        var wordy = 0
        for index in 0..<pairs.count {
            let truth = try prompts.row(at: index).groundTruthText
            guard case .pair(_, .messages(let chosen), .messages(let rejected), _) = try pairs.row(at: index).content
            else { continue }
            #expect(chosen[0]["content"] == .string(truth))
            guard case .string(let text)? = rejected[0]["content"] else { continue }
            // Wordy and right, or bare and wrong.
            if Int(text) == nil {
                wordy += 1
                #expect(text.contains(truth))
            } else {
                #expect(text != truth)
            }
        }
        #expect(abs(wordy - pairs.count / 2) <= 1)
        #expect { try ArithmeticFiles(problems).write(to: folder.path, suffix: "jsonl", seed: 3) } throws: {
            ($0 as? DatasetError)?.code == .badSetting
        }
        let first = try Data(contentsOf: URL(fileURLWithPath: paths[0]))
        try ArithmeticFiles(problems).write(to: folder.path, suffix: "jsonl", seed: 3, replaces: true)
        #expect(try Data(contentsOf: URL(fileURLWithPath: paths[0])) == first)
    }
}

/// Parquet gives every message every key: what is null there is absent here.
@Suite(.enabled(if: ParquetSetUp.isDone)) struct SupervisedParquetTests {
    @Test(arguments: [SupervisedColumns.Kind.imitation, .pairs])
    func rowsAreThoseOfJSONLines(_ kind: SupervisedColumns.Kind) throws {
        let folder = try TemporaryFolder(), lines = folder.path + "/rows.jsonl", parquet = folder.path + "/rows.parquet"
        let tool = #"{"role": "assistant", "content": null, "reasoning_content": "x"}"#
        let rows = [
            #"{"messages": \#(SupervisedFilesTests.turns), "prompt": [{"role": "user", "content": "a"}], "#
                + #""chosen": [{"role": "assistant", "content": "b"}], "rejected": [\#(tool)], "margin": 0.5}"#,
            #"{"messages": [{"role": "user", "content": "é"}, \#(tool)], "prompt": [{"role": "user", "content": "c"}], "#
                + #""chosen": [\#(tool)], "rejected": [{"role": "assistant", "content": "d"}], "margin": 2}"#,
        ]
        try Data(rows.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: lines))
        try RecordConverter.convert([lines], to: parquet)
        let columns = SupervisedColumns(kind)
        let one = try SupervisedFiles(paths: [lines], columns: columns)
        let other = try SupervisedFiles(paths: [parquet], columns: columns)
        #expect(one.count == 2 && other.count == 2)
        for index in 0..<2 {
            #expect(try other.row(at: index).origin == RowOrigin(source: parquet, line: index + 1))
            var row = try other.row(at: index)
            row.origin = try one.row(at: index).origin
            #expect(try row == one.row(at: index))
        }
    }
}

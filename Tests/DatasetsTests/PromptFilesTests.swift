import Datasets
import Foundation
import Testing

@Suite struct PromptFilesTests {
    private let good = #"{"data_source":"a","prompt":"p","reward_model":{"ground_truth":"1"}}"#

    @Test func readsVerlsColumns() throws {
        let file = try TemporaryFile(
            #"""
            {"data_source": "openai/gsm8k", "prompt": [{"role": "system", "content": "S"}, {"content": "Q", "role": "user"}], "ability": "math", "reward_model": {"style": "rule", "ground_truth": 72}, "extra_info": {"index": 0, "split": "train", "ratio": 1.50}, "level": "easy"}
            """#)
        let dataset = try file.dataset()
        let row = try dataset.row(at: 0)
        #expect(dataset.count == 1)
        #expect(row.dataSource == "openai/gsm8k")
        #expect(row.prompt == .messages([.init(role: "system", content: "S"), .init(role: "user", content: "Q")]))
        #expect(row.ability == "math")
        #expect(row.rewardStyle == "rule")
        #expect(row.groundTruth == .number("72"))
        #expect(row.groundTruthText == "72")
        #expect(row.extraInfo.map { JSONValue.object($0).text } == #"{"index":0,"split":"train","ratio":1.50}"#)
        #expect(row.otherColumns["level"] == .string("easy"))
        #expect(dataset.otherColumnCounts == ["level": 1])
        #expect(row.origin == RowOrigin(source: file.path, line: 1))
    }

    @Test(arguments: [(#""7""#, "7"), ("-3.50", "-3.50"), ("true", "true"), (#"["a",1]"#, #"["a",1]"#)])
    func groundTruthKeepsItsType(json: String, text: String) throws {
        let file = try TemporaryFile(#"{"data_source":"a","prompt":"p","reward_model":{"ground_truth":\#(json)}}"#)
        let row = try file.dataset().row(at: 0)
        #expect(row.groundTruth.text == json)
        #expect(row.groundTruthText == text)
    }

    @Test func marksBlankLinesAndLineEndsDoNotMatter() throws {
        let bytes = [0xEF, 0xBB, 0xBF] + Array("\r\n\(good)\r\n \t\n\n\(good)\n\r\n\(good)".utf8)
        let dataset = try TemporaryFile(bytes).dataset()
        #expect(dataset.count == 3)
        #expect(try (0..<3).map { try dataset.row(at: $0).origin.line } == [2, 5, 7])
        let marked = try TemporaryFile([0xEF, 0xBB, 0xBF] + Array(good.utf8))
        #expect(try marked.dataset().row(at: 0).dataSource == "a")
    }

    @Test func linesLongerThanTheReadBufferAreWhole() throws {
        let long = String(repeating: "x", count: 3_000_001)
        let rows = ["short", long, "tail"].map {
            #"{"data_source":"a","prompt":"\#($0)","reward_model":{"ground_truth":"1"}}"#
        }
        let file = try TemporaryFile(rows.joined(separator: "\n") + "\n")
        let dataset = try file.dataset()
        #expect(try dataset.row(at: 1).prompt == .text(long))
        #expect(try dataset.row(at: 2).prompt == .text("tail"))
    }

    @Test func severalFilesAreOne() throws {
        func file(_ names: [String]) throws -> TemporaryFile {
            try TemporaryFile(
                names.map { #"{"data_source":"\#($0)","prompt":"p","reward_model":{"ground_truth":"1"}}"# }
                    .joined(separator: "\n"))
        }
        let files = try [file(["a", "b"]), file(["c"]), file(["d", "e", "f"])]
        let dataset = try PromptFiles(paths: files.map(\.path))
        #expect(try (0..<dataset.count).map { try dataset.row(at: $0).dataSource }.joined() == "abcdef")
        #expect(try dataset.row(at: 4).origin == RowOrigin(source: files[2].path, line: 2))
    }

    @Test(arguments: [
        (#"{"prompt":"p","reward_model":{"ground_truth":"1"}}"#, "data_source", "prompt, reward_model"),
        (#"{"data_source":"a","reward_model":{"ground_truth":"1"}}"#, "prompt", "missing"),
        (#"{"data_source":"a","prompt":null,"reward_model":{"ground_truth":"1"}}"#, "prompt", "missing"),
        (#"{"data_source":"a","prompt":[],"reward_model":{"ground_truth":"1"}}"#, "prompt", "empty list"),
        (#"{"data_source":"a","prompt":5,"reward_model":{"ground_truth":"1"}}"#, "prompt", "a number"),
        (#"{"data_source":"a","prompt":[{"role":"user"}],"reward_model":{}}"#, "prompt[0].content", "role"),
        (#"{"data_source":"a","prompt":[{"role":1,"content":"c"}]}"#, "prompt[0].role", "a number"),
        (#"{"data_source":"a","prompt":[{"role":"u","content":"c","x":1}]}"#, "prompt[0].x", "not supported"),
        (#"{"data_source":"a","prompt":["hi"]}"#, "prompt[0]", "a string"),
        (#"{"data_source":1,"prompt":"p","reward_model":{"ground_truth":"1"}}"#, "data_source", "a number"),
        (#"{"data_source":"a","prompt":"p"}"#, "reward_model", "missing"),
        (#"{"data_source":"a","prompt":"p","reward_model":{"style":"rule"}}"#, "reward_model.ground_truth", "style"),
        (#"{"data_source":"a","prompt":"p","reward_model":"x"}"#, "reward_model", "a string"),
        (
            #"{"data_source":"a","prompt":"p","reward_model":{"ground_truth":"1"},"extra_info":[]}"#, "extra_info",
            "list"
        ),
        (#"{"data_source":"a","prompt":"p","reward_model":{"ground_truth":"1"},"ability":2}"#, "ability", "a number"),
    ])
    func badColumnsAreNamed(line: String, column: String, message: String) throws {
        let file = try TemporaryFile("\(good)\n\n\(line)\n")
        let error = try #require(throws: DatasetError.self) { try file.dataset() }
        #expect(error.code == .badColumn)
        #expect(error.column == column)
        #expect(error.origin == RowOrigin(source: file.path, line: 3))
        #expect(error.message.contains(message))
        #expect(error.description.hasPrefix("\(file.path):3: column '\(column)': "))
    }

    @Test(arguments: [#"{"a":"#, "[1]", "hello", #"{"a":NaN}"#])
    func malformedLinesAreNamed(line: String) throws {
        let file = try TemporaryFile("\(good)\n\(line)")
        let error = try #require(throws: DatasetError.self) { try file.dataset() }
        #expect(error.code == .malformedRow)
        #expect(error.origin?.line == 2)
    }

    @Test(arguments: ["", "\n\n", "  \r\n"])
    func emptyFilesAreErrors(text: String) throws {
        let file = try TemporaryFile(text)
        #expect(try #require(throws: DatasetError.self) { try file.dataset() }.code == .empty)
    }

    @Test func noFileAndMissingFilesAreErrors() throws {
        #expect(try #require(throws: DatasetError.self) { try PromptFiles(paths: []) }.code == .empty)
        for path in ["/nonexistent/rows.jsonl", "/"] {
            let error = try #require(throws: DatasetError.self) { try PromptFiles(paths: [path]) }
            #expect(error.code == .unreadable)
            #expect(error.message.contains(path))
        }
    }

    @Test func aFileThatGotShorterIsAnError() throws {
        let file = try TemporaryFile("\(good)\n\(good)\n")
        let dataset = try file.dataset()
        let handle = try #require(fopen(file.path, "w"))
        fclose(handle)
        #expect(try #require(throws: DatasetError.self) { try dataset.row(at: 1) }.code == .unreadable)
    }

    @Test func columnsCanHaveOtherNamesAndNoGroundTruth() throws {
        var columns = PromptColumns()
        columns.prompt = "question"
        columns.dataSource = "from"
        columns.requiresGroundTruth = false
        let file = try TemporaryFile(#"{"from":"a","question":"p","prompt":"other"}"#)
        let row = try file.dataset(columns: columns).row(at: 0)
        #expect(row.prompt == .text("p"))
        #expect(row.groundTruth == .null)
        #expect(row.groundTruthText == "")
        #expect(row.otherColumns["prompt"] == .string("other"))
    }
}

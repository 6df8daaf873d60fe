import Datasets
import Foundation
import Testing

@Suite struct CSVTests {
    @Test(arguments: [
        ("a,b\n1,2\n", [#"{"a":"1","b":"2"}"#]),
        // Quotes, doubled quotes, delimiters and line ends inside; a missing last line end; CRLF.
        ("a,b\r\n\"x,\"\"y\"\"\",\"l1\nl2\"\r\n3,", [#"{"a":"x,\"y\"","b":"l1\nl2"}"#, #"{"a":"3","b":null}"#]),
        // Nothing is null, an empty text is quoted.
        ("a,b\n,\"\"\n", [#"{"a":null,"b":""}"#]),
        ("a\n\n \n\"\"\n", [#"{"a":" "}"#, #"{"a":""}"#]),
        ("\u{FEFF}é,数\nü,🍎\n", [#"{"é":"ü","数":"🍎"}"#]),
        ("a.x,b,a.y\n1,2,3\n,2,\n", [#"{"a":{"x":"1","y":"3"},"b":"2"}"#, #"{"b":"2"}"#]),
        ("a\n\"\"\"\"\n", [#"{"a":"\""}"#]),
        ("a,b\n", []),
    ])
    func readsRFC4180(text: String, rows: [String]) throws {
        #expect(try TemporaryFile(text, "csv").rows() == rows)
    }

    @Test func tabsSeparateToo() throws {
        #expect(try TemporaryFile("a\tb\nx, y\t\"t\tt\"\n", "tsv").rows() == [#"{"a":"x, y","b":"t\tt"}"#])
    }

    @Test(arguments: [
        ("a,b\n1\n", 2, "1 fields, and the header has 2"), ("a,b\n\n1,2,3\n", 3, "3 fields"),
        ("a\nx\"y\n", 2, "a quote inside a field"), ("a\n\"x\"y\n", 2, "after a closing quote"),
        ("a\n1\n\"open\n\n", 3, "never closed"), ("a,\n1,2\n", 1, "without a name"), ("a,a\n1,2\n", 1, "twice"),
        ("a,a.b\n1,2\n", 1, "as a value and as an object"),
    ])
    func whatIsWrongIsNamedByLine(text: String, line: Int, message: String) throws {
        let file = try TemporaryFile(text, "csv")
        let error = try #require(throws: DatasetError.self) { try file.rows() }
        #expect(error.code == .malformedRow)
        #expect(error.origin?.line == line)
        #expect(error.message.contains(message), "\(error)")
    }

    @Test func promptsAreTextOrMessages() throws {
        let file = try TemporaryFile(
            #"""
            data_source,prompt,reward_model.ground_truth,reward_model.style,extra_info.index
            a,What is 1 + 1?,2,rule,0
            b,"[{""role"": ""user"", ""content"": ""Two\nlines?""},
            {""role"": ""assistant"", ""content"": """"}]",3,,
            c,"[1] a text, [not] JSON",4,rule,2
            """#, "csv")
        let rows = try PromptFiles(paths: [file.path])
        #expect(try rows.row(at: 0).prompt == .text("What is 1 + 1?"))
        #expect(try rows.row(at: 0).extraInfo == JSONObject([.init(name: "index", value: .string("0"))]))
        #expect(
            try rows.row(at: 1).prompt
                == .messages([.init(role: "user", content: "Two\nlines?"), .init(role: "assistant", content: "")]))
        #expect(try rows.row(at: 1).rewardStyle == nil)
        #expect(try rows.row(at: 1).groundTruthText == "3")
        #expect(try rows.row(at: 2).prompt == .text("[1] a text, [not] JSON"))
        #expect(try rows.row(at: 2).origin == RowOrigin(source: file.path, line: 5))
    }

    /// Any fields, written by the rules and read again, through a read buffer's end too.
    @Test func whatIsWrittenIsRead() throws {
        var generator = SplitMix64(seed: 4)
        let pieces = [
            "", "a", "\"", "\n", "\r\n", ",", "\t", "é🍎", String(repeating: "long ", count: 60_000), " ", "x\"\"y",
        ]
        let rows = (0..<300).map { _ in
            (0..<3).map { _ in
                (0..<3).map { _ in pieces[Int(generator.next(below: UInt64(pieces.count)))] }.joined()
            }
        }
        for (ending, delimiter) in [("csv", ","), ("tsv", "\t")] {
            let text =
                ["c0", "c1", "c2"].joined(separator: delimiter) + "\n"
                + rows.map { fields in
                    fields.map { "\"" + $0.replacingOccurrences(of: "\"", with: "\"\"") + "\"" }
                        .joined(separator: delimiter) + "\n"
                }.joined()
            var read: [[String]] = []
            try RecordReader(path: TemporaryFileKeeper.keep(TemporaryFile(text, ending))).forEach { row, _ in
                read.append(row.members.map { if case .string(let text) = $0.value { text } else { "?" } })
                return true
            }
            #expect(read == rows)
        }
    }
}

@Suite struct JSONArrayTests {
    @Test(arguments: [
        (#"[{"a":1},{"a":[2,"]"]}]"#, [#"{"a":1}"#, #"{"a":[2,"]"]}"#]),
        ("[]", []), (" [ ] \n", []),
        ("\u{FEFF}[\n {\"a\": \"\\\"}\"} ,\n{}\n]\n", [#"{"a":"\"}"}"#, "{}"]),
    ])
    func elementsAreRows(text: String, rows: [String]) throws {
        #expect(try TemporaryFile(text, "json").rows() == rows)
    }

    @Test func linesOfJSONInADotJSONFile() throws {
        #expect(try TemporaryFile("{\"a\":1}\n{\"a\":2}\n", "json").rows() == [#"{"a":1}"#, #"{"a":2}"#])
    }

    @Test func originsAreLines() throws {
        let file = try TemporaryFile("[\n\n{\"a\":\n1}, {\"a\":2},\n{\"a\":3}]", "json")
        var lines: [Int] = []
        try RecordReader(path: file.path).forEach { _, origin in
            lines.append(origin.line)
            return true
        }
        #expect(lines == [3, 4, 5])
    }

    @Test(arguments: [
        ("[{}", 1, "ends inside"), ("[{}\n{}]", 2, "missing"), ("[{}] x", 1, "after the end"), ("7", 1, "neither"),
        ("", 1, "ends inside"), ("[{\"a\": \"x", 1, "ends inside"), ("[\n1]", 2, "a number"),
        ("[{},]", 1, "a row is missing"), ("[{},,{}]", 1, "not JSON"),
        ("[\"s\"]", 1, "a string"), ("[{}\n,{a}]", 2, "not JSON"),
    ])
    func whatIsWrongIsNamedByLine(text: String, line: Int, message: String) throws {
        let file = try TemporaryFile(text, "json")
        let error = try #require(throws: DatasetError.self) { try file.rows() }
        #expect(error.code == .malformedRow)
        #expect(error.origin?.line == line)
        #expect(error.message.contains(message), "\(error)")
    }

    @Test func rowsAreReachedInAnyOrder() throws {
        let rows = (0..<5000).map {
            #"{"data_source":"a","prompt":"row \#($0) [{\"}","reward_model":{"ground_truth":"\#($0)"}}"#
        }
        let file = try TemporaryFile("[" + rows.joined(separator: ",\n") + "]", "json")
        let dataset = try PromptFiles(paths: [file.path])
        #expect(dataset.count == 5000)
        for index in [4999, 0, 17, 2500] { #expect(try dataset.row(at: index).groundTruthText == "\(index)") }
        #expect(try dataset.row(at: 41).origin.line == 42)
    }
}

/// Keeps files to the end of the process, for those whose path is all that a test needs.
private enum TemporaryFileKeeper {
    static func keep(_ file: TemporaryFile) -> String {
        _ = Unmanaged.passRetained(file)
        return file.path
    }
}

@Suite struct FormatTests {
    @Test func compressedFilesAreRefused() throws {
        let file = try TemporaryFile([0x1F, 0x8B, 8, 0], "jsonl")
        let error = try #require(throws: DatasetError.self) { try file.rows() }
        #expect(error.message.contains("gunzip"))
    }

    @Test func aNameThatSaysNothingIsJudgedByContent() throws {
        #expect(try TemporaryFile(#"[{"a":1}]"#, "data").rows() == [#"{"a":1}"#])
        #expect(try TemporaryFile(#"{"a":1}"#, "data").rows() == [#"{"a":1}"#])
    }

    @Test func aParquetFileUnderAnotherNameIsNamed() throws {
        let file = try TemporaryFile("PAR1....", "jsonl")
        #expect(try #require(throws: DatasetError.self) { try file.rows() }.message.contains(".parquet"))
    }

    @Test func patternsAreSortedAndMustMatch() throws {
        let folder = try TemporaryFolder()
        for name in ["b.jsonl", "a.jsonl", "a10.jsonl", "c.json", "odd[1].jsonl"] {
            try Data("{}".utf8).write(to: URL(fileURLWithPath: folder.path + "/" + name))
        }
        func names(_ pattern: String) throws -> [String] {
            try FilePattern.files(folder.path + "/" + pattern).map { String($0.dropFirst(folder.path.count + 1)) }
        }
        #expect(try names("*.jsonl") == ["a.jsonl", "a10.jsonl", "b.jsonl", "odd[1].jsonl"])
        #expect(try names("?.jsonl") == ["a.jsonl", "b.jsonl"])
        #expect(try names("[bc].*") == ["b.jsonl", "c.json"])
        // A file that is there is itself; a plain name need not be there.
        #expect(try names("odd[1].jsonl") == ["odd[1].jsonl"])
        #expect(try names("none.jsonl") == ["none.jsonl"])
        let error = try #require(throws: DatasetError.self) { try names("*.csv") }
        #expect(error.code == .noMatch)
        #expect(error.message.contains("*.csv"))
    }
}

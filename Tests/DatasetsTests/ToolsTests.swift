@testable import Datasets
import Foundation
import Testing

@Suite struct ConverterTests {
    private let rows = [
        #"{"data_source":"a","prompt":[{"role":"user","content":"x, \"y\"\nz"}],"reward_model":{"style":"rule","ground_truth":"1"},"extra_info":{"index":0,"note":null,"empty":""}}"#,
        #"{"data_source":"b","prompt":[{"role":"user","content":"é"}],"reward_model":{"style":"rule","ground_truth":"2"},"extra_info":null}"#,
    ]

    private func convert(_ text: String, _ from: String, _ to: String, limit: Int = .max) throws -> String {
        let (file, folder) = (try TemporaryFile(text, from), try TemporaryFolder())
        try withExtendedLifetime(file) {
            _ = try RecordConverter.convert([file.path], to: folder.path + "/out." + to, limit: limit)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["out." + to])
        return try String(contentsOfFile: folder.path + "/out." + to, encoding: .utf8)
    }

    @Test func jsonFormatsKeepEverything() throws {
        let lines = rows.joined(separator: "\n") + "\n"
        let list = "[\n" + rows.joined(separator: ",\n") + "\n]\n"
        #expect(try convert(lines, "jsonl", "json") == list)
        #expect(try convert(list, "json", "jsonl") == lines)
        #expect(try convert(lines, "jsonl", "jsonl", limit: 1) == rows[0] + "\n")
        #expect(try convert("", "jsonl", "json") == "[]\n")
    }

    @Test func csvFlattensObjectsAndReadsBackAsPrompts() throws {
        let csv = try convert(rows.joined(separator: "\n"), "jsonl", "csv")
        #expect(
            csv.hasPrefix(
                "data_source,prompt,reward_model.style,reward_model.ground_truth,extra_info.index,extra_info.note,"
                    + "extra_info.empty\n"))
        let (file, lines) = (try TemporaryFile(csv, "csv"), try TemporaryFile(rows.joined(separator: "\n")))
        let (read, original) = (try PromptFiles(paths: [file.path]), try lines.dataset())
        for index in 0..<2 {
            #expect(try read.row(at: index).prompt == original.row(at: index).prompt)
            #expect(try read.row(at: index).groundTruthText == original.row(at: index).groundTruthText)
        }
        // Messages stay messages on the way back, too.
        #expect(try convert(csv, "csv", "jsonl").contains(#""prompt":[{"role":"user","content":"x, \"y\"\nz"}]"#))
        // Null is nothing, an empty text is quoted.
        #expect(csv.contains("1,0,,\"\"\n"))
    }

    @Test func whatCSVCannotHoldIsNamed() throws {
        for (text, part) in [
            (#"{"a":{"b":1}}"# + "\n" + #"{"a":2}"#, "'a'"), (#"{"a.b":1}"#, "'a.b'"),
        ] {
            let error = try #require(throws: DatasetError.self) { try convert(text, "jsonl", "csv") }
            #expect("\(error)".contains(part))
        }
    }

    @Test func aNameThatSaysNoFormatIsAnError() throws {
        #expect(throws: DatasetError.self) { try convert("{}", "jsonl", "xlsx") }
    }

    @Test func aBadRowLeavesNothingBehind() throws {
        let (file, folder) = (try TemporaryFile(rows[0] + "\n{"), try TemporaryFolder())
        #expect(throws: DatasetError.self) {
            try RecordConverter.convert([file.path], to: folder.path + "/out.jsonl")
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == [])
    }
}

@Suite struct StatisticsTests {
    @Test func countsWhatThereIs() throws {
        let prompts = ["aa", "bbbb", "aa", "", "数数数"]
        let text =
            prompts.enumerated().map { index, prompt in
                #"{"data_source":"\#(index < 3 ? "x" : "y")","prompt":"\#(prompt)","n":\#(index % 2 == 0 ? "\(index)" : "null")}"#
            }.joined(separator: "\n") + "\n" + #"{"data_source":"x","prompt":[{"role":"user","content":"aa"}],"n":1.5}"#
        let file = try TemporaryFile(text)
        let statistics = try RecordStatistics(paths: [file.path]) { prompt, _ in
            switch prompt {
            case .text(let text): text.utf8.count
            case .messages: 100
            }
        }
        #expect(statistics.rows == 6)
        #expect(statistics.columns.map(\.name) == ["data_source", "prompt", "n"])
        #expect(statistics.columns[1].kinds == ["string": 5, "list": 1])
        #expect(statistics.columns[2].kinds == ["integer": 3, "null": 2, "number": 1])
        #expect(statistics.emptyPrompts == 1)
        #expect(statistics.duplicatePrompts == 2)
        #expect(statistics.sources.map(\.name) == ["x", "y"] && statistics.sources.map(\.rows) == [4, 2])
        #expect(statistics.characters?.minimum == 0 && statistics.characters?.maximum == 4)
        #expect(statistics.characters?.median == 2)
        #expect(statistics.tokens?.maximum == 100)
        #expect(statistics.tokens?.p90 == 100)
    }

    @Test func rowsWithoutPromptsAreCounted() throws {
        let file = try TemporaryFile(#"{"q":"x"}"# + "\n" + #"{"q":"y","prompt":[]}"#)
        let statistics = try RecordStatistics(paths: [file.path])
        #expect(statistics.emptyPrompts == 2)
        #expect(statistics.sources.isEmpty)
        #expect(statistics.columns[1].count == 1)
    }
}

@Suite struct ParallelTests {
    @Test(arguments: [0, 1, 63, 64, 65, 1000]) func keepsTheOrder(count: Int) throws {
        #expect(try Parallel.map(count, grain: 8) { $0 * $0 } == (0..<count).map { $0 * $0 })
    }

    @Test func throwsForTheLowestNumber() throws {
        struct Failure: Error, Equatable { let index: Int }
        for _ in 0..<20 {
            #expect(throws: Failure(index: 137)) {
                try Parallel.map(5000, grain: 4) { if $0 % 1000 == 137 || $0 > 300 { throw Failure(index: $0) } }
            }
        }
    }
}

@Suite struct JSONBytesTests {
    @Test(
        arguments: [
            (0, "1970-01-01"), (-1, "1969-12-31"), (19782, "2024-02-29"), (19783, "2024-03-01"),
            (-719_468, "0000-03-01"),
            (11016, "2000-02-29"), (2_932_896, "9999-12-31"),
        ] as [(Int64, String)])
    func dates(days: Int64, text: String) {
        var bytes = JSONBytes()
        bytes.append(date: days)
        #expect(String(decoding: bytes.bytes, as: UTF8.self) == "\"\(text)\"")
    }

    @Test(
        arguments: [
            (5, 0, "5"), (5, 2, "0.05"), (-5, 1, "-0.5"), (1234, 2, "12.34"), (0, 3, "0.000"), (-1200, 2, "-12.00"),
        ] as [(Int128, Int, String)])
    func decimals(value: Int128, scale: Int, text: String) {
        var bytes = JSONBytes()
        bytes.append(decimal: value, scale: scale)
        #expect(String(decoding: bytes.bytes, as: UTF8.self) == text)
    }

    @Test func timestamps() {
        func text(_ ticks: Int64, _ perSecond: Int64, _ isUTC: Bool = false) -> String {
            var bytes = JSONBytes()
            bytes.append(timestamp: ticks, ticksPerSecond: perSecond, isUTC: isUTC)
            return String(decoding: bytes.bytes, as: UTF8.self)
        }
        #expect(text(-1, 1) == "\"1969-12-31T23:59:59\"")
        #expect(text(-1, 1000, true) == "\"1969-12-31T23:59:59.999Z\"")
        #expect(text(1_000_000_001, 1_000_000_000) == "\"1970-01-01T00:00:01.000000001\"")
        #expect(text(.min, 1_000_000).hasPrefix("\"-"))
    }
}

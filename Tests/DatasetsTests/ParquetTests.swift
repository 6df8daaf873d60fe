@testable import Datasets
import Foundation
import TestSupport
import Testing

/// Whether Arrow is here; says so once where it is not.
enum ParquetSetUp {
    static let isDone: Bool = {
        if ArrowLibrary.isSetUp { return true }
        let notice = "SKIPPED Parquet suites: Arrow's library is not set up; run scripts/setup --parquet\n"
        FileHandle.standardError.write(Data(notice.utf8))
        return false
    }()
}

/// Parquet files that pyarrow, pandas and datasets wrote (`scripts/peers/make_parquet_fixtures.py`), against the rows that
/// pyarrow reads in them.
@Suite(.enabled(if: ParquetSetUp.isDone)) struct ParquetTests {
    static func fixture(_ name: String) -> String {
        Golden.packageRoot.appending(path: "Tests/Fixtures/parquet/\(name)").path
    }

    private func bytes(_ name: String) throws -> [UInt8] {
        try Array(Data(contentsOf: URL(fileURLWithPath: Self.fixture(name))))
    }

    @Test(arguments: ["gsm8k", "dapo", "types"])
    func rowsAreThoseThatPyarrowReads(name: String) throws {
        let expected = try String(contentsOfFile: Self.fixture(name + ".jsonl"), encoding: .utf8)
            .split(separator: "\n").map(String.init)
        #expect(try jsonRows(Self.fixture(name + ".parquet")) == expected)
    }

    @Test(arguments: ["gsm8k", "dapo"])
    func promptsAreThoseOfTheSameRowsInJSONLines(name: String) throws {
        let parquet = try PromptFiles(paths: [Self.fixture(name + ".parquet")])
        let lines = try PromptFiles(paths: [Self.fixture(name + ".jsonl")])
        #expect(parquet.count == lines.count)
        #expect(parquet.otherColumnCounts == lines.otherColumnCounts)
        for index in (0..<parquet.count).reversed() {
            let row = try parquet.row(at: index)
            var other = try lines.row(at: index)
            #expect(row.origin == RowOrigin(source: Self.fixture(name + ".parquet"), line: index + 1))
            // Columns that nothing uses are not read from Parquet.
            other.otherColumns = JSONObject()
            other.origin = row.origin
            #expect(row == other)
        }
    }

    @Test func onlyWantedColumnsAreRead() throws {
        var first: JSONObject?
        try RecordReader(path: Self.fixture("dapo.parquet")).forEach(columns: ["prompt", "ability", "absent"]) {
            row, _ in
            first = row
            return false
        }
        #expect(first?.members.map(\.name) == ["prompt", "ability"])
        // A column without a form in JSON harms nobody who does not ask for it.
        var count = 0
        try RecordReader(path: Self.fixture("binary.parquet")).forEach(columns: ["prompt"]) { _, _ in
            count += 1
            return true
        }
        #expect(count == 1)
    }

    @Test func theFooterSaysWhatThereIs() throws {
        let summary = try #require(try RecordReader(path: Self.fixture("dapo.parquet")).parquetSummary())
        #expect(summary.rows == 40)
        #expect(summary.rowGroups == 6)
        #expect(summary.columns == ["data_source", "prompt", "ability", "reward_model", "extra_info", "source_prompt"])
    }

    @Test func whatHasNoFormInJSONIsNamed() throws {
        let binary = try #require(throws: DatasetError.self) { try jsonRows(Self.fixture("binary.parquet")) }
        #expect(binary.code == .badColumn)
        #expect(binary.column == "image" && "\(binary)".contains("binary.parquet' has binary data"))
        let infinite = try #require(throws: DatasetError.self) { try jsonRows(Self.fixture("infinite.parquet")) }
        #expect(infinite.origin?.line == 2)
    }

    @Test(arguments: [0, 3, 4, 8, 100, 1000, 5000])
    func truncatedFilesAreErrorsThatNameThem(length: Int) throws {
        let file = try TemporaryFile(bytes("gsm8k.parquet").prefix(length), "parquet")
        let error = try #require(throws: DatasetError.self) { try file.rows() }
        #expect(error.code == .unreadable)
        #expect(error.message.contains(file.path))
    }

    /// Damage anywhere is an error or other rows, never a crash.
    @Test func damagedFilesAreErrorsOrRows() throws {
        var generator = SplitMix64(seed: 11)
        let whole = try bytes("types.parquet")
        var failures = 0
        for _ in 0..<150 {
            var bytes = whole
            for _ in 0...generator.next(below: 4) {
                bytes[Int(generator.next(below: UInt64(bytes.count)))] = UInt8(truncatingIfNeeded: generator.next())
            }
            let file = try TemporaryFile(bytes, "parquet")
            do {
                _ = try file.rows()
            } catch let error as DatasetError {
                failures += 1
                #expect("\(error)".contains(file.path))
            }
        }
        #expect(failures > 10)
    }

    @Test func missingFilesAreNamed() throws {
        let error = try #require(throws: DatasetError.self) { try PromptFiles(paths: ["/nonexistent/x.parquet"]) }
        #expect(error.message.contains("/nonexistent/x.parquet"))
    }

    @Test func formatsAndRowGroupsMixInOneSource() throws {
        let paths = ["gsm8k.parquet", "dapo.jsonl", "dapo.parquet"].map(Self.fixture)
        let files = try PromptFiles(paths: paths)
        #expect(files.count == 24 + 40 + 40)
        #expect(files.rows(ofFile: 1) == 24..<64)
        #expect(try files.row(at: 30).groundTruth == files.row(at: 70).groundTruth)
        #expect(files.fingerprint == (try PromptFiles(paths: paths).fingerprint))
    }

    // MARK: Writing

    @Test(arguments: ["gsm8k", "dapo"])
    func parquetThatIsWrittenReadsBack(name: String) throws {
        let folder = try TemporaryFolder()
        let output = folder.path + "/out.parquet"
        #expect(try RecordConverter.convert([Self.fixture(name + ".jsonl")], to: output) > 0)
        // Members that some rows lack are null there.
        let expected = try jsonRows(Self.fixture(name + ".jsonl"))
        let read = try jsonRows(output)
        if name == "gsm8k" { #expect(read == expected) }
        #expect(read.count == expected.count)
        let (parquet, lines) = (
            try PromptFiles(paths: [output]), try PromptFiles(paths: [Self.fixture(name + ".jsonl")])
        )
        for index in 0..<lines.count {
            #expect(try parquet.row(at: index).prompt == lines.row(at: index).prompt)
            #expect(try parquet.row(at: index).groundTruth == lines.row(at: index).groundTruth)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["out.parquet"])
    }

    @Test func typesThatDoNotAgreeAreNamed() throws {
        let file = try TemporaryFile(#"{"a":{"b":1}}"# + "\n" + #"{"a":{"b":"x"}}"#)
        let folder = try TemporaryFolder()
        let error = try #require(throws: DatasetError.self) {
            try RecordConverter.convert([file.path], to: folder.path + "/out.parquet")
        }
        #expect(error.column == "a.b")
        #expect(error.origin?.line == 2)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == [])
    }

    @Test func valuesKeepTheirTypes() throws {
        let row = #"{"i":1,"d":0.5,"m":3,"b":true,"n":null,"s":"2024-01-01","l":[1.5,2],"o":{"x":[{"y":"z"}]},"e":[]}"#
        let second = #"{"i":-7,"d":1e300,"m":2.5,"b":false,"n":null,"s":"","l":[],"o":{"x":[]},"e":[]}"#
        let file = try TemporaryFile(row + "\n" + second)
        let folder = try TemporaryFolder()
        let output = folder.path + "/out.parquet"
        try RecordConverter.convert([file.path], to: output)
        #expect(
            try jsonRows(output) == [
                row.replacing("\"m\":3", with: "\"m\":3.0").replacing("[1.5,2]", with: "[1.5,2.0]"),
                second.replacing("1e300", with: "1e+300"),
            ])
    }
}

@Suite struct ArrowLibraryTests {
    /// A checkout with what set-up leaves there.
    private func checkout(arrow: String?, bridge: String?) throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        try FileManager.default.createDirectory(
            atPath: folder.path + "/.deps/parquet/pyarrow", withIntermediateDirectories: true)
        if let arrow { try touch(folder.path + "/.deps/parquet/pyarrow/libparquet.so.\(arrow)") }
        if let bridge { try touch(folder.path + "/.deps/parquet/libfledge-parquet.so.\(bridge)") }
        return folder
    }

    private func touch(_ path: String) throws { try Data().write(to: URL(fileURLWithPath: path)) }

    private func locate(_ folder: TemporaryFolder, _ environment: [String: String] = [:]) throws -> ArrowLibrary.Place {
        try ArrowLibrary.locate(
            variable: { environment[$0] }, executable: folder.path + "/.build/x/debug/fledge")
    }

    @Test func whatSetUpLeftIsFound() throws {
        let folder = try checkout(arrow: "2600", bridge: "2600")
        let place = try locate(folder)
        #expect(place.pyarrow == folder.path + "/.deps/parquet/pyarrow")
        #expect(place.bridge == folder.path + "/.deps/parquet/libfledge-parquet.so.2600")
    }

    @Test func anInstallOfAnotherVersionIsRefusedWithTheRemedy() throws {
        let (folder, other) = (try checkout(arrow: "2600", bridge: "2600"), try checkout(arrow: "1900", bridge: nil))
        let pyarrow = other.path + "/.deps/parquet/pyarrow"
        let error = try #require(throws: DatasetError.self) { try locate(folder, ["FLEDGE_ARROW": pyarrow]) }
        #expect(error.code == .arrowMissing)
        for part in ["built for Arrow 26", "is Arrow 19", "pyarrow==26.*", "FLEDGE_ARROW=\(pyarrow) scripts/setup"] {
            #expect(error.message.contains(part), "\(error)")
        }
    }

    @Test func nothingSetUpSaysWhatToDo() throws {
        let folder = try TemporaryFolder()
        for environment in [[:], ["FLEDGE_ARROW": folder.path], ["FLEDGE_TORCH": folder.path + "/torch"]] {
            let error = try #require(throws: DatasetError.self) { try locate(folder, environment) }
            #expect(error.code == .arrowMissing)
            #expect(error.message.contains("scripts/setup --parquet") && error.message.contains("FLEDGE_ARROW"))
        }
        let unbuilt = try checkout(arrow: "2600", bridge: nil)
        #expect(try #require(throws: DatasetError.self) { try locate(unbuilt) }.message.contains("was not built"))
    }

    @Test func pyarrowBesideTorchIsFound() throws {
        let folder = try checkout(arrow: nil, bridge: "2600")
        try FileManager.default.removeItem(atPath: folder.path + "/.deps/parquet/pyarrow")
        try FileManager.default.createDirectory(
            atPath: folder.path + "/site/pyarrow", withIntermediateDirectories: true)
        try FileManager.default.createDirectory(atPath: folder.path + "/site/torch", withIntermediateDirectories: true)
        try touch(folder.path + "/site/pyarrow/libparquet.so.2600")
        let place = try locate(folder, ["FLEDGE_TORCH": folder.path + "/site/torch"])
        #expect(place.pyarrow == folder.path + "/site/torch/../pyarrow")
    }
}

import Datasets
import Foundation

/// A file that goes when the test is done with it.
final class TemporaryFile {
    let path: String

    init(_ bytes: some Sequence<UInt8>, _ ending: String = "jsonl") throws {
        path = FileManager.default.temporaryDirectory.appending(path: "fledge-\(UUID().uuidString).\(ending)").path
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }

    convenience init(_ text: String, _ ending: String = "jsonl") throws { try self.init(text.utf8, ending) }

    /// Every row, as compact JSON.
    func rows() throws -> [String] { try withExtendedLifetime(self) { try jsonRows(path) } }

    func dataset(columns: PromptColumns = PromptColumns()) throws -> PromptFiles {
        try withExtendedLifetime(self) { try PromptFiles(paths: [path], columns: columns) }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

func jsonRows(_ path: String) throws -> [String] {
    var rows: [String] = []
    try RecordReader(path: path).forEach { row, _ in
        rows.append(JSONValue.object(row).text)
        return true
    }
    return rows
}

/// A folder that goes when the test is done with it.
final class TemporaryFolder {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appending(path: "fledge-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

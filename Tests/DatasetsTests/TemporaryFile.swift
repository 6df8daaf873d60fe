import Datasets
import Foundation

/// A file that goes when the test is done with it.
final class TemporaryFile {
    let path: String

    init(_ bytes: some Sequence<UInt8>) throws {
        path = FileManager.default.temporaryDirectory.appending(path: "fledge-\(UUID().uuidString).jsonl").path
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }

    convenience init(_ text: String) throws { try self.init(text.utf8) }

    func dataset(columns: PromptColumns = PromptColumns()) throws -> JSONLinesDataset {
        try withExtendedLifetime(self) { try JSONLinesDataset(paths: [path], columns: columns) }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

internal import Foundation

/// Reading of files, each failure with the file's path before it.
enum TokenizerFile {
    /// A tokenizer's file is never larger: above is taken for a mistake.
    static let maximumSize = 1 << 30

    static func read<Result>(_ file: URL, _ body: ([UInt8]) throws -> Result) throws -> Result {
        let data: Data
        do {
            data = try Data(contentsOf: file, options: .mappedIfSafe)
        } catch {
            throw TokenizerError(.unreadable, "\(file.path): \(error.localizedDescription)")
        }
        guard data.count <= maximumSize else {
            throw TokenizerError(.unreadable, "\(file.path): \(data.count) bytes, more than any tokenizer has")
        }
        return try named(file) { try body(Array(data)) }
    }

    static func named<Result>(_ file: URL, _ body: () throws -> Result) throws -> Result {
        do {
            return try body()
        } catch let error as TokenizerError {
            throw TokenizerError(error.code, "\(file.path): \(error.message)")
        }
    }

    static func exists(_ file: URL) -> Bool { FileManager.default.fileExists(atPath: file.path) }
}

import Foundation
import TestSupport

@testable import Tokenizers

/// The rows of the golden files, read with the tokenizers' own JSON scanner.
enum GoldenCases {
    static let folders: [String] = {
        guard let root = Golden.directory("tokenizers") else { return [] }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
        return names.filter {
            FileManager.default.fileExists(atPath: root.appending(path: "\($0)/cases.jsonl").path)
        }.sorted()
    }()

    static func tokenizer(_ folder: String) throws -> Tokenizer { try Tokenizer(contentsOf: file(folder)) }

    static func document(_ folder: String) throws -> JSONDocument {
        try JSONDocument(Array(Data(contentsOf: file(folder))))
    }

    /// Other folders of cases may leave the large tokenizers out: those of the usual folder are used then.
    private static func file(_ folder: String) throws -> URL {
        guard let root = Golden.directory("tokenizers") else { throw CocoaError(.fileNoSuchFile) }
        let file = root.appending(path: "\(folder)/tokenizer.json")
        if FileManager.default.fileExists(atPath: file.path) { return file }
        let shared = Golden.packageRoot.deletingLastPathComponent().appending(path: "shared/golden/tokenizers")
        return shared.appending(path: "\(folder)/tokenizer.json")
    }

    static func rows(_ path: String) throws -> [JSONNode] {
        guard let root = Golden.directory("tokenizers") else { return [] }
        let file = root.appending(path: path)
        guard FileManager.default.fileExists(atPath: file.path) else { return [] }
        let text = try Data(contentsOf: file)
        return try text.split(separator: 0x0A).map { try JSONDocument(Array($0)).root }
    }
}

extension JSONNode {
    var ints: [Int] { elements.compactMap(\.int) }
    var ids: [Int32] { ints.map { Int32($0) } }
    var ranges: [Range<Int>] {
        elements.map {
            let pair = $0.ints; return pair[0]..<pair[1]
        }
    }
    var strings: [String] { elements.compactMap(\.string) }
}

/// Byte for byte: `==` of strings holds canonically equivalent texts for equal.
func same(_ a: String?, _ b: String?) -> Bool { a.map { Array($0.utf8) } == b.map { Array($0.utf8) } }

/// Collects failures so that a broken tokenizer gives one readable issue, not a thousand.
struct Failures {
    private(set) var count = 0
    private(set) var lines: [String] = []

    mutating func add(_ line: @autoclosure () -> String) {
        count += 1
        if lines.count < 3 { lines.append(line()) }
    }

    var summary: String { "\(count) failures:\n" + lines.joined(separator: "\n") }
}

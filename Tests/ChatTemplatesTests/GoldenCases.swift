import ChatTemplates
import Foundation
import TestSupport

/// One line of a golden file: what went in and what the peers gave.
struct GoldenCase {
    let file: String
    let record: TemplateValue

    static func lines(_ url: URL) throws -> [GoldenCase] {
        let text = try String(contentsOf: url, encoding: .utf8)
        let file = url.deletingPathExtension().lastPathComponent
        // Integers past 64 bits are not supported, in templates or in JSON: the error says so.
        return try text.split(separator: "\n").filter { !$0.contains("\"bigint\"") }.map {
            GoldenCase(file: file, record: try TemplateValue(json: $0.utf8))
        }
    }

    var name: String { record["name"]?.string ?? record["id"].map { "\($0)" } ?? "?" }
    var errorKind: String? { record["error"]?["kind"]?.string }
    var errorMessage: String? { record["error"]?["message"]?.string }

    /// The time that the golden files were made at.
    static let time = TemplateTime(year: 2025, month: 3, day: 14, hour: 15, minute: 9, second: 26)

    /// The variables under a key that holds an object.
    func variables(_ key: String) -> [String: TemplateValue] {
        guard case .object(let object)? = record[key] else { return [:] }
        return Dictionary(object.pairs.map { ($0.key, $0.value) }) { _, last in last }
    }

    func array(_ key: String) -> [TemplateValue]? {
        guard case .array(let values)? = record[key] else { return nil }
        return values
    }
}

/// Equality by code points: Swift's `==` would take composed and decomposed text for the same.
func sameBytes(_ left: String, _ right: String?) -> Bool {
    right.map { left.utf8.elementsEqual($0.utf8) } ?? false
}

import Foundation
import TensorCore
import TestSupport
import Testing

/// One case of the golden algorithms.
struct GoldenCase: CustomTestStringConvertible, @unchecked Sendable {
    let name, kind, algorithm: String
    let config, inputs, outputs: [String: Any]
    let rtol, atol: Double
    private let overrides: [String: Any]
    var testDescription: String { name }

    init(_ url: URL) throws {
        guard let root = try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any],
            let name = root["name"] as? String, let kind = root["kind"] as? String,
            let algorithm = root["algorithm"] as? String
        else { throw CocoaError(.fileReadCorruptFile) }
        self.name = name
        self.kind = kind
        self.algorithm = algorithm
        config = root["config"] as? [String: Any] ?? [:]
        inputs = root["inputs"] as? [String: Any] ?? [:]
        outputs = root["outputs"] as? [String: Any] ?? [:]
        let tolerance = root["tolerance"] as? [String: Any] ?? [:]
        rtol = tolerance["rtol"] as? Double ?? 1e-5
        atol = tolerance["atol"] as? Double ?? 1e-6
        overrides = tolerance["overrides"] as? [String: Any] ?? [:]
    }

    /// The cases of a kind whose algorithm is one of `algorithms`; all where it is nil.
    static func all(_ kind: String, _ algorithms: Set<String>? = nil) -> [GoldenCase] {
        Golden.files("algorithms", withExtension: "json").compactMap { url in
            guard url.lastPathComponent.hasPrefix(kind + ".") else { return nil }
            guard let found = try? GoldenCase(url) else { fatalError("unreadable golden case \(url.path)") }
            return algorithms?.contains(found.algorithm) ?? true ? found : nil
        }
    }

    func matrix(_ value: Any?) throws -> Tensor {
        let rows = (value as? [[NSNumber]]) ?? []
        return try Tensor(rows.flatMap { $0.map(\.floatValue) }, shape: [rows.count, rows.first?.count ?? 0])
    }
    func input(_ key: String) throws -> Tensor { try matrix(inputs[key]) }
    func number(_ key: String) -> Double? { (config[key] as? NSNumber)?.doubleValue }
    func batchInfo(_ key: String) -> Double? {
        ((config["global_batch_info"] as? [String: Any])?[key] as? NSNumber)?.doubleValue
    }

    /// The largest excess of |actual − expected| over the case's tolerance; at most 0 when they agree.
    func excess(_ actual: Tensor, _ expected: Any?, _ key: String) throws -> Double {
        let wanted: [Double] =
            if let rows = expected as? [[NSNumber]] { rows.flatMap { $0.map(\.doubleValue) } } else {
                [(expected as? NSNumber)?.doubleValue ?? .nan]
            }
        let got = try actual.values(Double.self)
        guard got.count == wanted.count else { return .infinity }
        let override = overrides[key] as? [String: Any]
        let relative = (override?["rtol"] as? Double) ?? rtol, absolute = (override?["atol"] as? Double) ?? atol
        return zip(got, wanted).map { $0 == $1 ? -1 : abs($0 - $1) - absolute - relative * abs($1) }.max() ?? 0
    }
}

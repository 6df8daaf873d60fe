import PolicyAlgorithms
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

    // MARK: - Inputs and settings

    /// Numbers of nested lists in row-major order, with the lists' sizes.
    private static func flat(_ value: Any) -> (values: [Double], shape: [Int])? {
        if let number = value as? NSNumber { return ([number.doubleValue], []) }
        guard let list = value as? [Any] else { return nil }
        let parts = list.compactMap(flat)
        guard parts.count == list.count else { return nil }
        return (parts.flatMap(\.values), [list.count] + (parts.first?.shape ?? []))
    }

    /// The case's own field, or nil where it is absent or null.
    func optionalInput(_ key: String) throws -> Tensor? {
        guard let value = inputs[key], let (values, shape) = Self.flat(value) else { return nil }
        return try Tensor(values.map(Float.init), shape: shape)
    }
    func input(_ key: String) throws -> Tensor {
        let found = try optionalInput(key)
        return try #require(found, "\(name) has no input \(key)")
    }
    /// A float32 leaf that gathers its gradient.
    func trainable(_ key: String) throws -> Tensor {
        let tensor = try input(key)
        try tensor.setRequiresGrad()
        return tensor
    }
    func integers(_ key: String) throws -> Tensor { try input(key).to(dtype: .int64) }
    func numbers(_ key: String) -> [Double] { inputs[key].flatMap(Self.flat)?.values ?? [] }
    func numbers(_ section: String, _ key: String) -> [Double] {
        (inputs[section] as? [String: Any])?[key].flatMap(Self.flat)?.values ?? []
    }

    func number(_ key: String) -> Double? { (config[key] as? NSNumber)?.doubleValue }
    func text(_ key: String) -> String? { config[key] as? String }
    func flag(_ key: String) -> Bool? { config[key] as? Bool }
    /// The settings nested under `key`.
    func section(_ key: String) -> [String: Any] { config[key] as? [String: Any] ?? [:] }
    func batchInfo(_ key: String) -> Double? { (section("global_batch_info")[key] as? NSNumber)?.doubleValue }

    var totals: LossAggregation.Totals {
        LossAggregation.Totals(
            tokens: batchInfo("batch_num_tokens").map(Int.init),
            sequences: batchInfo("global_batch_size").map(Int.init),
            ranks: batchInfo("dp_size").map(Int.init) ?? 1)
    }
    func aggregation() throws -> LossAggregation {
        let mode = try #require(LossAggregation.Mode(rawValue: text("loss_agg_mode") ?? ""))
        return LossAggregation(mode, scaleFactor: batchInfo("loss_scale_factor"))
    }
    /// Group ids as small integers.
    var groups: [Int] {
        var seen: [String: Int] = [:]
        return (inputs["index"] as? [Any] ?? []).map { id in
            if seen["\(id)"] == nil { seen["\(id)"] = seen.count }
            return seen["\(id)"]!
        }
    }

    // MARK: - Comparison

    /// The largest excess of |actual − expected| over the case's tolerance; at most 0 when they agree.
    func excess(_ actual: [Double], _ expected: Any?, _ key: String) -> Double {
        guard let wanted = expected.flatMap(Self.flat)?.values, actual.count == wanted.count else { return .infinity }
        let override = overrides[key] as? [String: Any]
        let relative = (override?["rtol"] as? Double) ?? rtol, absolute = (override?["atol"] as? Double) ?? atol
        return zip(actual, wanted).map { got, want in
            let excess = got == want ? -1 : abs(got - want) - absolute - relative * abs(want)
            return excess.isNaN ? .infinity : excess
        }.max() ?? 0
    }
    func excess(_ actual: Tensor, _ expected: Any?, _ key: String) throws -> Double {
        excess(try actual.values(Double.self), expected, key)
    }

    /// Records an issue unless `actual` is the case's output `key`.
    func expect(_ actual: Tensor, _ key: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
        expect(try actual.values(Double.self), key, sourceLocation: sourceLocation)
    }
    func expect(_ actual: [Double], _ key: String, sourceLocation: SourceLocation = #_sourceLocation) {
        let excess = excess(actual, outputs[key], key)
        #expect(excess <= 0, "\(name): \(key) is off by \(excess) over the tolerance", sourceLocation: sourceLocation)
    }
    /// Back-propagates from `loss` and compares the gradient of `leaf` with output `key`.
    func expectGradient(
        of loss: Tensor, _ leaf: Tensor, _ key: String, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try loss.backward()
        let grad = try leaf.grad()
        try expect(#require(grad), key, sourceLocation: sourceLocation)
    }
    /// Every metric of the case must be among `metrics` and equal.
    func expectMetrics(
        _ metrics: [(name: String, value: Tensor)], sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let wanted = outputs["metrics"] as? [String: Any] ?? [:]
        #expect(Set(metrics.map(\.name)) == Set(wanted.keys), "\(name)", sourceLocation: sourceLocation)
        for (metric, value) in metrics where wanted[metric] != nil {
            let excess = try excess(value, wanted[metric], metric)
            let got = try value.item()
            #expect(excess <= 0, "\(name): \(metric) is \(got), not \(wanted[metric]!)", sourceLocation: sourceLocation)
        }
    }
}

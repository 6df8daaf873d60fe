import Checkpoints
import Datasets
import Foundation
import Telemetry
import TensorCore

/// What an output was made with, in a small file beside it: all that decides what its lines hold.
struct BatchManifest: Hashable {
    private(set) var members: [Datasets.JSONObject.Member]

    init(members: [Datasets.JSONObject.Member]) { self.members = members }

    static func path(output: String) -> String { output + ".settings.json" }

    init(_ settings: BatchSettings, lines: Int, fingerprint: UInt64, plan: PolicyWorker.Plan) throws {
        let sampling = settings.sampling
        let strings = { (items: [String]) in Datasets.JSONValue.array(items.map { .string($0) }) }
        let source = try ModelSource.open(plan.modelPath)
        let values: [(String, Datasets.JSONValue)] = [
            ("format", .number("1")), ("input", .string(settings.input)), ("lines", .number("\(lines)")),
            ("input_digest", .string(String(fingerprint, radix: 16))), ("model", .string(plan.modelPath)),
            ("model_digest", .string(try Self.digest(source, plan))), ("adapter", Self.adapter(plan)),
            ("dtype", .string("\(plan.dtype)")), ("device", .string(plan.device.isCUDA ? "cuda" : "cpu")),
            ("chat", .bool(settings.isChat)), ("system", settings.system.map { .string($0) } ?? .null),
            ("n", .number("\(sampling.n)")), ("temperature", .number("\(sampling.temperature)")),
            ("top_k", .number("\(max(0, sampling.topK))")), ("top_p", .number("\(sampling.topP)")),
            ("min_p", .number("\(sampling.minP)")),
            ("repetition_penalty", .number("\(sampling.repetitionPenalty)")),
            ("presence_penalty", .number("\(sampling.presencePenalty)")),
            ("frequency_penalty", .number("\(sampling.frequencyPenalty)")),
            ("max_tokens", .number("\(sampling.maxTokens)")), ("min_tokens", .number("\(sampling.minTokens)")),
            ("stop", strings(sampling.stop)),
            ("stop_token_ids", .array(sampling.stopTokenIDs.map { .number("\($0)") })),
            ("ignore_eos", .bool(sampling.ignoresEndOfTurn)), ("seed", .number("\(sampling.seed)")),
            ("logprobs", .bool(settings.logProbs)), ("ordered", .bool(settings.isOrdered)),
            ("keep", .string(settings.keep.rawValue)),
        ]
        members = values.map { Datasets.JSONObject.Member(name: $0.0, value: $0.1) }
    }

    /// - Throws: ``BatchError`` `damagedOutput` when the file holds something else; `TelemetryError`.
    init?(reading path: String) throws {
        guard let bytes = try LineFile.content(of: path) else { return nil }
        let value = bytes.withUnsafeBufferPointer { try? Datasets.JSONParser.parse($0) }
        guard case .object(let object) = value, object["format"] == .number("1") else {
            throw BatchError(
                .damagedOutput,
                "\(path): does not say what the output beside it was made with; give another --output, or --overwrite")
        }
        members = object.members
    }

    var text: String {
        var writer = JSONWriter(style: .pretty)
        writer.object { object in
            for member in members {
                object.key(member.name)
                object.value(json: member.value.text)
            }
        }
        return writer.text + "\n"
    }

    /// Names that may differ: where things lie is not what they are.
    private static let places: Set<String> = ["input", "model"]

    /// What differs from `other`, an earlier run's: `temperature was 0.7 and is 1.0`.
    func differences(from other: BatchManifest) -> [String] {
        members.compactMap { member in
            let earlier = Datasets.JSONObject(other.members)[member.name]
            guard !Self.places.contains(member.name), earlier?.text.utf8.elementsEqual(member.value.text.utf8) != true
            else { return nil }
            return "\(member.name) was \(earlier?.text ?? "not there") and is \(member.value.text)"
        }
    }

    private static func adapter(_ plan: PolicyWorker.Plan) -> Datasets.JSONValue {
        if case .folder(let path, _)? = plan.adapter { .string(path) } else { .null }
    }

    /// Of the weights (by samples, as ``ModelSource/digest``) and of every small file that decides on tokens.
    private static func digest(_ source: ModelSource, _ plan: PolicyWorker.Plan) throws -> String {
        var hash = XXHash64()
        hash.update(source.digest)
        var files: [String] = []
        if source.gguf == nil {
            files = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json"].map {
                source.path + "/" + $0
            }
        }
        files += [plan.templatePath].compactMap(\.self)
        if case .folder(let path, _)? = plan.adapter {
            files += ["adapter_config.json", "adapter_model.safetensors"].map { path + "/" + $0 }
        }
        for file in files {
            guard let data = FileManager.default.contents(atPath: file) else { continue }
            data.withUnsafeBytes { hash.update($0) }
        }
        return hash.hexadecimal
    }
}

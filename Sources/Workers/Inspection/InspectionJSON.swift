public import Checkpoints
import OrderedCollections
import TensorCore

extension ModelInspection {
    /// The report for programs; what is not known is null.
    public var json: JSONValue {
        .object([
            "path": .string(path), "usable": .bool(isUsable), "storage": .string(storage.rawValue),
            "architecture": .optional(architecture), "model_type": .optional(modelType), "shape": shapeJSON,
            "attention": .optional(attention), "rope": .optional(rope),
            "context_length": contextLength.map(JSONValue.int) ?? .null,
            "tied_embeddings": isTied.map(JSONValue.bool) ?? .null, "weights": weightsJSON, "text": textJSON,
            "memory": .array(memory.map(\.json)),
            "findings": .array(
                findings.sorted { $0.severity < $1.severity }.map {
                    .object([
                        "severity": .string($0.severity.rawValue), "topic": .string($0.topic),
                        "message": .string($0.message),
                    ])
                }),
        ])
    }

    private var shapeJSON: JSONValue {
        guard let shape else { return .null }
        return .object([
            "layers": .int(shape.layers), "hidden": .int(shape.hidden), "heads": .int(shape.queryHeads),
            "key_value_heads": .int(shape.keyValueHeads), "head_dim": .int(shape.headDim),
            "intermediate": .int(shape.intermediate), "vocabulary": .int(shape.vocabulary),
            "experts": .int(shape.experts), "experts_per_token": .int(shape.expertsPerToken),
        ])
    }

    private var weightsJSON: JSONValue {
        var parts: JSONObject = [:], types: JSONObject = [:]
        for part in ParameterParts.Part.allCases { parts[part.rawValue] = .int(weights.parts[part]) }
        for type in weights.types { types[type.name] = .int(type.bytes) }
        return .object([
            "files": .int(weights.files), "tensors": .int(weights.tensors), "bytes": .int(weights.bytes),
            "parameters": .int(weights.parts.total), "parts": .object(parts), "bytes_by_type": .object(types),
        ])
    }

    private var textJSON: JSONValue {
        var specials: JSONObject = [:]
        for token in text.specialTokens {
            specials[token.role] = .object(["text": .string(token.text), "id": token.id.map(JSONValue.int) ?? .null])
        }
        func flag(_ value: Bool?) -> JSONValue { value.map(JSONValue.bool) ?? .null }
        return .object([
            "tokenizer": .optional(text.kind), "vocabulary": text.vocabulary.map(JSONValue.int) ?? .null,
            "special_tokens": .object(specials),
            "end_of_turn": .array(
                text.endOfTurn.map { .object(["id": .int($0.id), "text": .string($0.text)]) }),
            "chat_template": .object([
                "present": .bool(text.hasTemplate), "generation_tags": flag(text.templateMarksGeneration),
                "tools": flag(text.templateTakesTools), "thinking": flag(text.templateTakesThinking),
                "names": .array(text.templateNames.map(JSONValue.string)),
            ]),
        ])
    }
}

extension MemoryEstimate {
    fileprivate var json: JSONValue {
        var bytes: JSONObject = [:]
        for part in parts { bytes[part.name] = .int(part.bytes) }
        return .object([
            "method": .string(method), "dtype": .string("\(dtype)"), "bytes": .int(total), "parts": .object(bytes),
        ])
    }
}

extension JSONValue {
    fileprivate static func optional(_ text: String?) -> JSONValue { text.map(JSONValue.string) ?? .null }
}

internal import Checkpoints
internal import OrderedCollections

/// Writes small GGUF files to start from.
struct GGUFWriter {
    var metadata: [(key: String, value: GGUFValue)] = []
    /// Dimensions in the file's order: rows' length first.
    var tensors: [(name: String, dimensions: [Int], type: GGMLType, data: [UInt8])] = []

    private static func bytes<Value: BitwiseCopyable>(_ value: Value) -> [UInt8] {
        withUnsafeBytes(of: value) { Array($0) }
    }

    private static func string(_ text: [UInt8]) -> [UInt8] { bytes(UInt64(text.count)) + text }

    private static func typed(_ value: GGUFValue) -> [UInt8] {
        switch value {
        case .unsigned(let value):
            bytes(UInt32(value > UInt32.max ? 10 : 4)) + (value > UInt32.max ? bytes(value) : bytes(UInt32(value)))
        case .signed(let value): bytes(UInt32(11)) + bytes(value)
        case .float32(let value): bytes(UInt32(6)) + bytes(value)
        case .float64(let value): bytes(UInt32(12)) + bytes(value)
        case .bool(let value): bytes(UInt32(7)) + [value ? 1 : 0]
        case .string(let value): bytes(UInt32(8)) + string(value)
        case .array(let value): bytes(UInt32(9)) + array(value)
        }
    }

    private static func array(_ array: GGUFArray) -> [UInt8] {
        func list<Element>(_ type: UInt32, _ elements: [Element], _ write: (Element) -> [UInt8]) -> [UInt8] {
            bytes(type) + bytes(UInt64(elements.count)) + elements.flatMap(write)
        }
        return switch array {
        case .unsigned(let values): list(4, values) { bytes(UInt32(truncatingIfNeeded: $0)) }
        case .signed(let values): list(5, values) { bytes(Int32(truncatingIfNeeded: $0)) }
        case .float32(let values): list(6, values, bytes)
        case .float64(let values): list(12, values, bytes)
        case .bool(let values): list(7, values) { [$0 ? 1 : 0] }
        case .string(let values): list(8, values, string)
        case .array(let values): list(9, values, Self.array)
        }
    }

    func file() -> [UInt8] {
        var out = Array("GGUF".utf8) + Self.bytes(UInt32(3))
        out += Self.bytes(UInt64(tensors.count)) + Self.bytes(UInt64(metadata.count))
        for (key, value) in metadata { out += Self.string(Array(key.utf8)) + Self.typed(value) }
        var data: [UInt8] = []
        for tensor in tensors {
            while data.count % 32 != 0 { data.append(0) }
            out += Self.string(Array(tensor.name.utf8)) + Self.bytes(UInt32(tensor.dimensions.count))
            out += tensor.dimensions.flatMap { Self.bytes(UInt64($0)) }
            out += Self.bytes(tensor.type.rawValue) + Self.bytes(UInt64(data.count))
            data += tensor.data
        }
        while out.count % 32 != 0 { out.append(0) }
        return out + data
    }

    // MARK: Seeds

    /// A Llama of one layer, its matrices of every type in turn, with a tokenizer of `kind`.
    static func llama(tokenizer kind: String) -> GGUFWriter {
        func text(_ string: String) -> GGUFValue { .string(Array(string.utf8)) }
        func texts(_ strings: [String]) -> GGUFValue { .array(.string(strings.map { Array($0.utf8) })) }
        let (hidden, heads, groups, inner, tokens) = (256, 4, 2, 256, 8)
        var writer = GGUFWriter()
        writer.metadata = [
            ("general.architecture", text("llama")), ("general.alignment", .unsigned(32)),
            ("llama.block_count", .unsigned(1)), ("llama.context_length", .unsigned(64)),
            ("llama.embedding_length", .unsigned(UInt64(hidden))),
            ("llama.feed_forward_length", .unsigned(UInt64(inner))),
            ("llama.attention.head_count", .unsigned(UInt64(heads))),
            ("llama.attention.head_count_kv", .unsigned(UInt64(groups))),
            ("llama.attention.layer_norm_rms_epsilon", .float32(1e-5)), ("llama.rope.freq_base", .float32(100_000)),
            ("tokenizer.ggml.model", text(kind)), ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", texts(["<s>", "a", "Ġb", "Ġ", "b", "▁a", "▁", "<0x41>"])),
            ("tokenizer.ggml.token_type", .array(.signed([3, 1, 1, 1, 1, 1, 1, 6]))),
            ("tokenizer.ggml.bos_token_id", .unsigned(0)), ("tokenizer.ggml.eos_token_id", .unsigned(0)),
            ("tokenizer.ggml.add_bos_token", .bool(true)), ("tokenizer.chat_template", text("{{ messages }}")),
            ("test.nested", .array(.array([.signed([1, 2]), .unsigned([]), .float64([0.5]), .bool([true])]))),
        ]
        if kind == "gpt2" {
            writer.metadata.append(("tokenizer.ggml.merges", texts(["Ġ b"])))
        } else {
            writer.metadata.append(("tokenizer.ggml.scores", .array(.float32([0, -1, -2, -3, -4, -5, -6, -7]))))
        }
        var next = kind == "gpt2" ? 0 : 5
        func add(_ name: String, _ dimensions: [Int], _ fixed: GGMLType? = nil) {
            let type = fixed ?? GGMLType.allCases[next % GGMLType.allCases.count]
            if fixed == nil { next += 1 }
            let count = dimensions.reduce(1, *) / type.blockSize * type.blockBytes
            writer.tensors.append((name, dimensions, type, (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }))
        }
        add("token_embd.weight", [hidden, tokens])
        add("blk.0.attn_norm.weight", [hidden], .f32)
        add("blk.0.attn_q.weight", [hidden, hidden / 16])
        add("blk.0.attn_k.weight", [hidden, hidden / 32])
        add("blk.0.attn_v.weight", [hidden, 4])
        add("blk.0.attn_output.weight", [hidden, 4])
        add("blk.0.ffn_gate.weight", [hidden, 3])
        add("blk.0.ffn_up.weight", [hidden, 3])
        add("blk.0.ffn_down.weight", [inner, 3])
        add("output_norm.weight", [hidden], .f32)
        add("output.weight", [hidden, tokens])
        return writer
    }

    /// A small valid file from a real one: all of its metadata with lists cut short, and of each tensor of the first block the
    /// first rows.
    static func cut(_ file: GGUFFile) -> GGUFWriter {
        var writer = GGUFWriter()
        func cut(_ array: GGUFArray) -> GGUFArray {
            switch array {
            case .unsigned(let values): .unsigned(Array(values.prefix(200)))
            case .signed(let values): .signed(Array(values.prefix(200)))
            case .float32(let values): .float32(Array(values.prefix(200)))
            case .float64(let values): .float64(Array(values.prefix(200)))
            case .bool(let values): .bool(Array(values.prefix(200)))
            case .string(let values): .string(Array(values.prefix(200)))
            case .array(let values): .array(values.prefix(20).map(cut))
            }
        }
        for key in file.metadata.keys {
            var value = file.metadata[key]!
            if case .array(let array) = value { value = .array(cut(array)) }
            writer.metadata.append((key, value))
        }
        for name in file.tensors.keys where !name.hasPrefix("blk.") || name.hasPrefix("blk.0.") {
            guard let entry = file.tensors[name], let columns = entry.shape.last else { continue }
            let rowBytes = columns / entry.type.blockSize * entry.type.blockBytes
            var shape = entry.shape
            // Room for a few heads of q and k, so that their rows still divide.
            if shape.count == 2 { shape[0] = min(shape[0], name.contains("attn_") ? 72 : 4) }
            guard shape.count <= 2, rowBytes * (shape.count == 2 ? shape[0] : 1) <= 1 << 16 else { continue }
            let count = rowBytes * (shape.count == 2 ? shape[0] : 1)
            let data = Array(file.file.bytes[entry.range].prefix(count))
            writer.tensors.append((name, shape.reversed(), entry.type, data))
        }
        return writer
    }
}

/// Writes small GGUF files for tests.
struct GGUFBuilder {
    enum Value {
        case u32(UInt32), f32(Float), bool(Bool), string(String), strings([String]), i32s([Int32]), nested([[Int32]])
        case raw(UInt32, [UInt8])
    }

    var version: UInt32 = 3
    var metadata: [(String, Value)] = []
    /// Name, dimensions in file order, GGML type, data.
    var tensors: [(name: String, dimensions: [UInt64], type: UInt32, data: [UInt8])] = []
    var alignment = 32

    private static func bytes<T>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }
    private static func string(_ text: String) -> [UInt8] { bytes(UInt64(text.utf8.count)) + Array(text.utf8) }
    private static func ints(_ values: [Int32]) -> [UInt8] {
        bytes(UInt32(5)) + bytes(UInt64(values.count)) + values.flatMap(bytes)
    }

    static func floats(_ values: [Float]) -> [UInt8] { values.flatMap(bytes) }

    func build() -> [UInt8] {
        var out = Array("GGUF".utf8) + Self.bytes(version)
        out += Self.bytes(UInt64(tensors.count)) + Self.bytes(UInt64(metadata.count))
        for (key, value) in metadata {
            out += Self.string(key)
            switch value {
            case .u32(let value): out += Self.bytes(UInt32(4)) + Self.bytes(value)
            case .f32(let value): out += Self.bytes(UInt32(6)) + Self.bytes(value)
            case .bool(let value): out += Self.bytes(UInt32(7)) + [value ? 1 : 0]
            case .string(let value): out += Self.bytes(UInt32(8)) + Self.string(value)
            case .strings(let values):
                out += Self.bytes(UInt32(9)) + Self.bytes(UInt32(8)) + Self.bytes(UInt64(values.count))
                out += values.flatMap(Self.string)
            case .i32s(let values): out += Self.bytes(UInt32(9)) + Self.ints(values)
            case .nested(let values):
                out += Self.bytes(UInt32(9)) + Self.bytes(UInt32(9)) + Self.bytes(UInt64(values.count))
                out += values.flatMap(Self.ints)
            case .raw(let type, let bytes): out += Self.bytes(type) + bytes
            }
        }
        var data: [UInt8] = []
        for tensor in tensors {
            while data.count % alignment != 0 { data.append(0) }
            out += Self.string(tensor.name) + Self.bytes(UInt32(tensor.dimensions.count))
            out += tensor.dimensions.flatMap(Self.bytes) + Self.bytes(tensor.type) + Self.bytes(UInt64(data.count))
            data += tensor.data
        }
        while out.count % alignment != 0 { out.append(0) }
        return out + data
    }

    /// A Llama of one layer: 2 heads of 4 over 1 key-value head, all rows numbered so that their order shows.
    static func llama() -> GGUFBuilder {
        var builder = GGUFBuilder()
        builder.metadata = [
            ("general.architecture", .string("llama")), ("llama.block_count", .u32(1)),
            ("llama.context_length", .u32(64)), ("llama.embedding_length", .u32(8)),
            ("llama.feed_forward_length", .u32(16)), ("llama.attention.head_count", .u32(2)),
            ("llama.attention.head_count_kv", .u32(1)), ("llama.attention.layer_norm_rms_epsilon", .f32(1e-5)),
            ("llama.rope.freq_base", .f32(100000)), ("tokenizer.ggml.model", .string("gpt2")),
            ("tokenizer.ggml.pre", .string("smollm")), ("tokenizer.ggml.tokens", .strings(["<s>", "a", "Ġb"])),
            ("tokenizer.ggml.token_type", .i32s([3, 1, 1])), ("tokenizer.ggml.merges", .strings(["Ġ b"])),
            ("tokenizer.ggml.bos_token_id", .u32(0)), ("tokenizer.ggml.eos_token_id", .u32(0)),
            ("tokenizer.ggml.add_bos_token", .bool(false)), ("tokenizer.chat_template", .string("{{ x }}")),
            ("test.nested", .nested([[1, 2], [], [3]])),
        ]
        func matrix(_ name: String, _ rows: Int, _ columns: Int) {
            let values = (0..<rows * columns).map { Float($0 / columns) + Float($0 % columns) / 16 }
            builder.tensors.append((name, [UInt64(columns), UInt64(rows)], 0, floats(values)))
        }
        func norm(_ name: String) { builder.tensors.append((name, [8], 0, floats([Float](repeating: 1, count: 8)))) }
        matrix("token_embd.weight", 3, 8)
        norm("blk.0.attn_norm.weight")
        matrix("blk.0.attn_q.weight", 8, 8)
        matrix("blk.0.attn_k.weight", 4, 8)
        matrix("blk.0.attn_v.weight", 4, 8)
        matrix("blk.0.attn_output.weight", 8, 8)
        norm("blk.0.ffn_norm.weight")
        matrix("blk.0.ffn_gate.weight", 16, 8)
        matrix("blk.0.ffn_up.weight", 16, 8)
        matrix("blk.0.ffn_down.weight", 8, 16)
        norm("output_norm.weight")
        return builder
    }
}

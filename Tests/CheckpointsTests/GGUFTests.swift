import Checkpoints
import OrderedCollections
import TensorCore
import Testing

@Suite struct GGUFTests {
    private func write(_ builder: GGUFBuilder) throws -> (TemporaryFolder, String) {
        let folder = try TemporaryFolder()
        return (folder, try folder.write(builder.build(), "model.gguf"))
    }

    @Test func readsMetadataOfAllTypes() throws {
        var builder = GGUFBuilder()
        builder.version = 2
        let eight: [UInt8] = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]
        builder.metadata = [
            ("u8", .raw(0, [254])), ("i8", .raw(1, [254])), ("u16", .raw(2, [254, 255])), ("i16", .raw(3, [254, 255])),
            ("u32", .u32(7)), ("i32", .raw(5, Array(eight[..<4]))), ("f32", .f32(1e-5)), ("yes", .bool(true)),
            ("text", .string("é")), ("u64", .raw(10, eight)), ("i64", .raw(11, eight)),
            ("f64", .raw(12, withUnsafeBytes(of: 0.1) { Array($0) })), ("list", .i32s([-1, 2])),
            ("nested", .nested([[1, 2], [], [3]])),
        ]
        let (folder, path) = try write(builder)
        defer { withExtendedLifetime(folder) {} }
        let values = try GGUFFile(path: path).metadata
        #expect(values.keys.elementsEqual(builder.metadata.map(\.0)))
        #expect(["u8", "i8", "u16", "i16", "u32", "i32"].map { values[$0]?.intValue } == [254, -2, 65534, -2, 7, -2])
        #expect(values["u64"] == .unsigned(.max - 1) && values["u64"]?.intValue == nil)
        #expect(values["i64"]?.intValue == -2)
        #expect(values["f32"]?.doubleValue == 1e-5)
        #expect(values["f64"]?.doubleValue == 0.1)
        #expect(values["yes"]?.boolValue == true)
        #expect(values["text"]?.stringValue == "é")
        #expect(values["list"]?.arrayValue?.integers == [-1, 2])
        #expect(values["nested"] == .array(.array([.signed([1, 2]), .signed([]), .signed([3])])))
    }

    @Test func readsALlamaUnderHuggingFaceNames() throws {
        let (folder, path) = try write(.llama())
        defer { withExtendedLifetime(folder) {} }
        let source = try ModelSource.open(path)
        #expect(source.architecture == "LlamaForCausalLM")
        #expect(
            source.tensorNames == [
                "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
                "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.o_proj.weight",
                "model.layers.0.post_attention_layernorm.weight", "model.layers.0.mlp.gate_proj.weight",
                "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight", "model.norm.weight",
            ])
        func rows(_ name: String) throws -> [Int] {
            let tensor = try source.tensor(named: name, dtype: .float32)
            let values = try tensor.values(Float.self)
            return stride(from: 0, to: values.count, by: tensor.size(-1)).map { Int(values[$0]) }
        }
        // llama.cpp has rows 0 2 | 1 3 of a head of four as 0 1 2 3.
        #expect(try rows("model.layers.0.self_attn.q_proj.weight") == [0, 2, 1, 3, 4, 6, 5, 7])
        #expect(try rows("model.layers.0.self_attn.k_proj.weight") == [0, 2, 1, 3])
        #expect(try rows("model.layers.0.self_attn.v_proj.weight") == [0, 1, 2, 3])
        #expect(try source.shape(of: "model.layers.0.mlp.down_proj.weight") == [8, 16])
        let half = try source.tensor(named: "model.layers.0.self_attn.q_proj.weight", dtype: .bfloat16)
        let full = try source.tensor(named: "model.layers.0.self_attn.q_proj.weight", dtype: .float32)
        #expect(half.dtype == .bfloat16)
        #expect(try half.equals(full.to(dtype: .bfloat16)))
        let double = try source.tensor(named: "model.norm.weight", dtype: .float64)
        #expect(double.dtype == .float64)
    }

    @Test func saysWhatConfigJSONWouldSay() throws {
        let (folder, path) = try write(.llama())
        defer { withExtendedLifetime(folder) {} }
        let config = try ModelSource.open(path).config
        let ints = [
            "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
            "intermediate_size": 16, "max_position_embeddings": 64, "vocab_size": 3, "bos_token_id": 0,
            "eos_token_id": 0,
        ]
        for (key, value) in ints { #expect(try config.int(key) == value, "\(key)") }
        #expect(try config.double("rms_norm_eps") == 1e-5)
        #expect(try config.rope().theta == 100000)
        #expect(try config.rope().type == "default")
        #expect(try config.bool("tie_word_embeddings"))
        #expect(config.modelType == "llama")

        var untied = GGUFBuilder.llama()
        untied.tensors.append(
            ("output.weight", [8, 3], 0, GGUFBuilder.floats([Float](repeating: 1, count: 24))))
        let (other, otherPath) = try write(untied)
        defer { withExtendedLifetime(other) {} }
        let source = try ModelSource.open(otherPath)
        #expect(try !source.config.bool("tie_word_embeddings"))
        #expect(source.contains("lm_head.weight"))
    }

    @Test func findsLlama3ScalingInTheStoredFrequencies() throws {
        var builder = GGUFBuilder.llama()
        builder.metadata.removeAll { $0.0 == "llama.rope.freq_base" }
        builder.metadata += [("llama.rope.freq_base", .f32(500000)), ("llama.rope.dimension_count", .u32(64))]
        // Llama 3.1's: factor 8, bounds 1 and 4, trained on 8192 positions.
        let divisors = (0..<32).map { index -> Float in
            var wavelength = 2 * Double.pi
            // 500000^(1/32), multiplied up.
            for _ in 0..<index { wavelength *= 1.5069290760695855 }
            if wavelength < 2048 { return 1 }
            if wavelength > 8192 { return 8 }
            let smooth = (8192 / wavelength - 1) / 3
            return Float(1 / ((1 - smooth) / 8 + smooth))
        }
        builder.tensors.append(("rope_freqs.weight", [32], 0, GGUFBuilder.floats(divisors)))
        let (folder, path) = try write(builder)
        defer { withExtendedLifetime(folder) {} }
        let rope = try ModelSource.open(path).config.rope()
        #expect(rope.type == "llama3")
        #expect(try rope.parameters.double("factor") == 8)
        #expect(try rope.parameters.int("original_max_position_embeddings") == 8192)

        builder.tensors[builder.tensors.count - 1].data = GGUFBuilder.floats((0..<32).map { 1 + Float($0 % 5) })
        let (other, otherPath) = try write(builder)
        defer { withExtendedLifetime(other) {} }
        let error = #expect(throws: CheckpointError.self) { try ModelSource.open(otherPath) }
        #expect(error?.code == .unsupported)
    }

    @Test func readsTheTokenizer() throws {
        let (folder, path) = try write(.llama())
        defer { withExtendedLifetime(folder) {} }
        let tokenizer = try GGUFTokenizerMetadata(GGUFFile(path: path))
        #expect(tokenizer.model == "gpt2" && tokenizer.pre == "smollm")
        #expect(tokenizer.tokens.map { String(decoding: $0, as: UTF8.self) } == ["<s>", "a", "Ġb"])
        #expect(tokenizer.types == [3, 1, 1])
        #expect(tokenizer.merges == [Array("Ġ b".utf8)])
        #expect(tokenizer.bosID == 0 && tokenizer.eosID == 0 && tokenizer.padID == nil)
        #expect(tokenizer.addsBOS == false && tokenizer.addsEOS == nil)
        #expect(tokenizer.chatTemplate == "{{ x }}")
        var bad = GGUFBuilder.llama()
        bad.metadata.append(("tokenizer.ggml.padding_token_id", .u32(3)))
        let (other, otherPath) = try write(bad)
        defer { withExtendedLifetime(other) {} }
        #expect(throws: CheckpointError.self) { try GGUFTokenizerMetadata(GGUFFile(path: otherPath)) }
    }

    static let hostile: [(name: String, code: CheckpointError.Code, change: @Sendable (inout GGUFBuilder) -> Void)] = [
        ("version 1", .unsupported, { $0.version = 1 }),
        ("big-endian", .unsupported, { $0.version = 3 << 24 }),
        ("repeated key", .duplicate, { $0.metadata.append(("llama.block_count", .u32(1))) }),
        ("repeated tensor", .duplicate, { $0.tensors.append($0.tensors[0]) }),
        ("unknown value type", .malformed, { $0.metadata.append(("x", .raw(99, []))) }),
        ("boolean of 2", .malformed, { $0.metadata.append(("x", .raw(7, [2]))) }),
        ("endless string", .truncated, { $0.metadata.append(("x", .raw(8, [UInt8](repeating: 0xFF, count: 8)))) }),
        (
            "endless array", .truncated,
            { $0.metadata.append(("x", .raw(9, [4, 0, 0, 0] + [UInt8](repeating: 0x7F, count: 8)))) }
        ),
        (
            "arrays nested too deep", .malformed,
            {
                let level: [UInt8] = [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
                $0.metadata.append(("x", .raw(9, (0..<9).flatMap { _ in level })))
            }
        ),
        ("alignment 0", .malformed, { $0.metadata.append(("general.alignment", .u32(0))) }),
        ("alignment 3", .malformed, { $0.metadata.append(("general.alignment", .u32(3))) }),
        ("unknown tensor type", .unsupported, { $0.tensors[0].type = 77 }),
        ("unread tensor type", .unsupported, { $0.tensors[0].type = 10 }),
        ("rows that are no whole blocks", .malformed, { $0.tensors[0].type = 8 }),
        ("dimension 0", .malformed, { $0.tensors[0].dimensions = [0, 3] }),
        ("overflowing shape", .malformed, { $0.tensors[0].dimensions = [1 << 62, 1 << 62] }),
        ("huge dimension", .malformed, { $0.tensors[0].dimensions = [.max, 1] }),
        ("more than the file", .truncated, { $0.tensors[0].dimensions = [8, 1 << 40] }),
        ("overlap", .malformed, { $0.tensors[0].dimensions = [8, 6] }),
        ("rank 9", .malformed, { $0.tensors[0].dimensions = [UInt64](repeating: 1, count: 9) }),
        ("cut data", .truncated, { $0.tensors[$0.tensors.count - 1].data.removeLast() }),
        ("unknown architecture", .unknownArchitecture, { $0.metadata[0].1 = .string("bloom9") }),
        ("no architecture", .configuration, { $0.metadata.remove(at: 0) }),
        ("no layers", .configuration, { $0.metadata.remove(at: 1) }),
        ("a part of a split model", .unsupported, { $0.metadata.append(("split.count", .u32(2))) }),
        ("more heads than width", .configuration, { $0.metadata[5].1 = .u32(9) }),
        ("no embedding", .missingTensor, { $0.tensors.remove(at: 0) }),
        ("foreign tensor", .unsupported, { $0.tensors[3].name = "v.blk.0.weight" }),
    ]

    @Test(arguments: hostile.map(\.name))
    func refuses(_ name: String) throws {
        let (_, code, change) = try #require(Self.hostile.first { $0.name == name })
        var builder = GGUFBuilder.llama()
        change(&builder)
        let (folder, path) = try write(builder)
        defer { withExtendedLifetime(folder) {} }
        let error = #expect(throws: CheckpointError.self) { try ModelSource.open(path) }
        #expect(error?.code == code, "\(String(describing: error))")
    }

    /// What only a read of the tensor shows.
    @Test(arguments: [[], [8, 7], [1], [8, 8, 3, 1]] as [[UInt64]])
    func refusesRowsThatAreNoHeads(_ dimensions: [UInt64]) throws {
        var builder = GGUFBuilder.llama()
        let count = Int(dimensions.reduce(1, *))
        builder.tensors[2].dimensions = dimensions
        builder.tensors[2].data = GGUFBuilder.floats([Float](repeating: 0, count: count))
        let (folder, path) = try write(builder)
        defer { withExtendedLifetime(folder) {} }
        let source = try ModelSource.open(path)
        let name = "model.layers.0.self_attn.q_proj.weight"
        let error = #expect(throws: CheckpointError.self) { try source.tensor(named: name, dtype: .float32) }
        #expect(error?.code == .malformed)
    }

    @Test func anyDamageIsAnErrorOrHarmless() throws {
        let folder = try TemporaryFolder()
        var builder = GGUFBuilder.llama()
        builder.tensors.append(("blk.0.attn_q.bias", [32], 3, [UInt8](repeating: 3, count: 20)))
        let original = builder.build()
        var random = SplitMix(state: 11)
        var refused = 0
        for _ in 0..<4000 {
            let path = try folder.write(random.mutate(original), "damaged.gguf")
            do {
                let model = try GGUFModel(path: path)
                _ = try GGUFTokenizerMetadata(model.file)
                for name in model.tensorNames {
                    do { _ = try model.tensor(named: name) } catch is CheckpointError { refused += 1 }
                }
            } catch is CheckpointError {
                refused += 1
            }
        }
        #expect(refused > 500)
    }
}

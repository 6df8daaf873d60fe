import Checkpoints
public import OrderedCollections

/// The tokenizer inside a GGUF file, written the way Hugging Face's library reads it.
enum GGUFTokenizerExport {
    /// `tokenizer.json`, `tokenizer_config.json` and `generation_config.json`.
    /// - Throws: ``WorkerError`` for a vocabulary that is not byte-level BPE.
    static func files(_ metadata: GGUFTokenizerMetadata) throws -> [HuggingFaceExporter.CompanionFile] {
        guard metadata.model == "gpt2" else {
            throw WorkerError(
                .badCheckpoint,
                "the GGUF tokenizer is of kind '\(metadata.model)'; only byte-level BPE (gpt2) can be exported")
        }
        func file(_ name: String, _ object: JSONObject) -> HuggingFaceExporter.CompanionFile {
            .init(name: name, bytes: Array((JSONValue.object(object).text() + "\n").utf8))
        }
        var config: JSONObject = [
            "tokenizer_class": .string("PreTrainedTokenizerFast"), "clean_up_tokenization_spaces": .bool(false),
        ]
        for (name, id) in [("bos_token", metadata.bosID), ("eos_token", metadata.eosID), ("pad_token", metadata.padID)]
        {
            if let id { config[name] = .string(text(metadata, id)) }
        }
        if let template = metadata.chatTemplate { config["chat_template"] = .string(template) }
        var generation: JSONObject = [:]
        if let id = metadata.bosID { generation["bos_token_id"] = .int(id) }
        if let id = metadata.eosID { generation["eos_token_id"] = .int(id) }
        return [
            file("tokenizer.json", try tokenizer(metadata)), file("tokenizer_config.json", config),
            file("generation_config.json", generation),
        ]
    }

    private static func text(_ metadata: GGUFTokenizerMetadata, _ id: Int) -> String {
        String(decoding: metadata.tokens[id], as: UTF8.self)
    }

    private static func tokenizer(_ metadata: GGUFTokenizerMetadata) throws -> JSONObject {
        // llama.cpp's token types: 3 is a control token, 4 one that users added.
        let added = metadata.tokens.indices.filter { $0 < metadata.types.count && [3, 4].contains(metadata.types[$0]) }
        var vocabulary: JSONObject = [:]
        for id in metadata.tokens.indices { vocabulary[text(metadata, id)] = .int(id) }
        return [
            "version": .string("1.0"), "truncation": .null, "padding": .null,
            "added_tokens": .array(
                added.map { id in
                    .object([
                        "id": .int(id), "content": .string(text(metadata, id)), "single_word": .bool(false),
                        "lstrip": .bool(false), "rstrip": .bool(false), "normalized": .bool(false),
                        "special": .bool(metadata.types[id] == 3),
                    ])
                }),
            "normalizer": .null, "pre_tokenizer": try preTokenizer(metadata.pre),
            "post_processor": .null,
            "decoder": .object([
                "type": .string("ByteLevel"), "add_prefix_space": .bool(true), "trim_offsets": .bool(true),
                "use_regex": .bool(true),
            ]),
            "model": .object([
                "type": .string("BPE"), "dropout": .null, "unk_token": .null, "continuing_subword_prefix": .null,
                "end_of_word_suffix": .null, "fuse_unk": .bool(false), "byte_fallback": .bool(false),
                "ignore_merges": .bool(metadata.pre == "llama-bpe"), "vocab": .object(vocabulary),
                "merges": .array(metadata.merges.map { .string(String(decoding: $0, as: UTF8.self)) }),
            ]),
        ]
    }

    private static func preTokenizer(_ pre: String) throws -> JSONValue {
        func byteLevel(regex: Bool) -> JSONValue {
            .object([
                "type": .string("ByteLevel"), "add_prefix_space": .bool(false), "trim_offsets": .bool(true),
                "use_regex": .bool(regex),
            ])
        }
        func split(_ pattern: String) -> JSONValue {
            .object([
                "type": .string("Split"), "pattern": .object(["Regex": .string(pattern)]),
                "behavior": .string("Isolated"), "invert": .bool(false),
            ])
        }
        func sequence(_ parts: JSONValue...) -> JSONValue {
            .object(["type": .string("Sequence"), "pretokenizers": .array(parts)])
        }
        switch pre {
        case "smollm":
            return sequence(
                .object(["type": .string("Digits"), "individual_digits": .bool(true)]), byteLevel(regex: true))
        case "gpt-2", "default": return byteLevel(regex: true)
        case "llama-bpe":
            return sequence(
                split(
                    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
                ), byteLevel(regex: false))
        case "qwen2":
            return sequence(
                split(
                    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
                ), byteLevel(regex: false))
        default:
            throw WorkerError(
                .badCheckpoint,
                "the GGUF tokenizer splits text as '\(pre)', which cannot be exported; known are smollm, gpt-2, llama-bpe, qwen2"
            )
        }
    }
}

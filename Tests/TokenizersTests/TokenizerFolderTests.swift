import Foundation
import Testing

@testable import Tokenizers

/// A folder of small files that is gone when the test is over.
private final class ScratchFolder {
    let url: URL

    init(_ files: [String: String], copying models: [String: String] = [:]) throws {
        url = FileManager.default.temporaryDirectory.appending(path: "fledge-tokenizer-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        for (name, text) in files { try Data(text.utf8).write(to: url.appending(path: name)) }
        for (name, fixture) in models {
            try FileManager.default.copyItem(
                at: PieceFixtures.folders[0].appending(path: fixture), to: url.appending(path: name))
        }
    }

    deinit { try? FileManager.default.removeItem(at: url) }
}

@Suite struct TokenizerFolderTests {
    @Test func readsRolesFromConfig() throws {
        let folder = try ScratchFolder([
            "tokenizer.json": TinyTokenizers.byteLevelJSON(),
            "tokenizer_config.json": """
            {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": {"content": "<s>", "lstrip": false},
             "eos_token": "<|end|>", "pad_token": null, "model_max_length": 2048, "add_bos_token": true,
             "extra_special_tokens": {"image_token": "<img>"},
             "chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}],
             "added_tokens_decoder": {
                "264": {"content": "<s>", "special": true},
                "265": {"content": "<think>", "special": false, "normalized": false},
                "263": {"content": "<tool>", "special": true}}}
            """,
            // Without meaning where there is an added_tokens_decoder.
            "special_tokens_map.json": #"{"eos_token": "<tool>"}"#, "added_tokens.json": #"{"nothing": 9000}"#,
            "generation_config.json": """
            {"eos_token_id": [262, 263], "temperature": 0.6, "top_p": 0.95, "top_k": 20, "do_sample": true,
             "max_new_tokens": 100, "repetition_penalty": 1.05}
            """, "config.json": #"{"model_type": "llama", "eos_token_id": 5}"#,
        ])
        let opened = try TokenizerFolder(folder.url)
        #expect(opened.kind == .json)
        let config = opened.config
        #expect(config.bosToken == "<s>" && config.eosToken == "<|end|>" && config.padToken == nil)
        #expect(config.maximumLength == 2048 && config.chatTemplate == "D")
        #expect(config.namedChatTemplates == ["default": "D", "tool_use": "T"])
        #expect(config.specialTokensByName == ["bos_token": "<s>", "eos_token": "<|end|>", "image_token": "<img>"])
        #expect(opened.endOfTurnIDs == [262, 263])
        #expect(
            config.generation.temperature == 0.6 && config.generation.topK == 20 && config.generation.samples == true)
        #expect(config.generation.maximumNewTokens == 100 && config.generation.minP == nil)
        // The file's own tokens stay as they are; new ones come behind them in the order of their ids, roles last.
        let tokenizer = opened.tokenizer
        #expect(try tokenizer.encode("<s><think><img><tool>") == [264, 265, 266, 263])
        #expect(tokenizer.isSpecial(264) && !tokenizer.isSpecial(265) && tokenizer.isSpecial(266))
        #expect(!tokenizer.isSpecial(263))
        // add_bos_token has no say where tokenizer.json has: transformers drops it too.
        #expect(try tokenizer.encode("h", addSpecialTokens: true) == [104])
    }

    @Test func legacyFilesCountWithoutADecoder() throws {
        let folder = try ScratchFolder([
            "tokenizer.json": TinyTokenizers.byteLevelJSON(),
            "tokenizer_config.json": #"{"eos_token": "<|end|>"}"#,
            "special_tokens_map.json": #"{"eos_token": {"content": "<tool>"}, "additional_special_tokens": ["<x>"]}"#,
            "added_tokens.json": #"{"<y>": 265, "<x>": 264}"#, "config.json": #"{"eos_token_id": 7}"#,
        ])
        let opened = try TokenizerFolder(folder.url)
        #expect(opened.config.eosToken == "<tool>")
        #expect(try opened.tokenizer.encode("<x><y>") == [264, 265])
        #expect(opened.tokenizer.isSpecial(264) && !opened.tokenizer.isSpecial(265))
        // A token with a role is special whatever tokenizer.json says.
        #expect(opened.tokenizer.isSpecial(263))
        #expect(opened.endOfTurnIDs == [7, 263])
    }

    @Test func cleansUpOnlyWhatIsNotBPE() throws {
        let words = #"{"model": {"type": "WordLevel", "vocab": {"a": 0, ",": 1, "do": 2, "not": 3}, "unk_token": "a"}}"#
        let config = #"{"clean_up_tokenization_spaces": true}"#
        let folder = try ScratchFolder(["tokenizer.json": words, "tokenizer_config.json": config])
        #expect(try TokenizerFolder(folder.url).tokenizer.decode([0, 1, 0, 2, 3]) == "a, a do not")
        let other = try ScratchFolder([
            "tokenizer.json": TinyTokenizers.byteLevelJSON(), "tokenizer_config.json": config,
        ])
        #expect(try TokenizerFolder(other.url).tokenizer.decode([104, 32, 44]) == "h ,")
    }

    @Test func opensASentencePieceFolder() throws {
        let config = #"{"tokenizer_class": "LlamaTokenizerFast", "legacy": false}"#
        let folder = try ScratchFolder(
            ["tokenizer_config.json": config, "added_tokens.json": #"{"<|im_end|>": 1000}"#],
            copying: ["tokenizer.model": "bpe_bytes.model"])
        let opened = try TokenizerFolder(folder.url)
        #expect(opened.kind == .sentencePiece)
        #expect(
            opened.config.bosToken == "<s>" && opened.config.eosToken == "</s>" && opened.config.padToken == "<pad>")
        let model = try SentencePieceModel(contentsOf: folder.url.appending(path: "tokenizer.model"))
        let wanted = try Tokenizer(sentencePiece: model, as: .llama(isLegacy: false)).encode("the good")
        #expect(try opened.tokenizer.encode("the good") == wanted)
        #expect(try opened.tokenizer.encode("the good", addSpecialTokens: true) == [1] + wanted)
        #expect(opened.tokenizer.id(for: "<|im_end|>") == 1000)
        #expect(opened.endOfTurnIDs == [2])
    }

    @Test func conventionFollowsTheClass() throws {
        let bpe = try SentencePieceModel(contentsOf: PieceFixtures.folders[0].appending(path: "bpe_bytes.model"))
        let unigram = try SentencePieceModel(contentsOf: PieceFixtures.folders[0].appending(path: "unigram.model"))
        func convention(_ name: String?, _ model: SentencePieceModel) throws -> SentencePieceConvention {
            var config = TokenizerConfig()
            config.tokenizerClass = name
            return try config.convention(for: model)
        }
        #expect(try convention("LlamaTokenizer", bpe) == .llama())
        #expect(try convention("GemmaTokenizer", bpe) == .gemma)
        #expect(try convention("T5Tokenizer", unigram) == .t5())
        #expect(try convention(nil, unigram) == .general)
        #expect(try convention("BaichuanTokenizer", bpe) == .llama(addsPrefixSpace: false))
        #expect(throws: TokenizerError.self) { try convention("XLMRobertaTokenizer", unigram) }
    }

    @Test func opensARankFileWhateverItsName() throws {
        let config = """
            {"tokenizer_class": "ChatGLM4Tokenizer", "eos_token": "<|end|>", "add_eos_token": true,
             "added_tokens_decoder": {"602": {"content": "<|end|>", "special": true}, "600": {"content": "<|a|>"}}}
            """
        let folder = try ScratchFolder(
            ["tokenizer_config.json": config], copying: ["tokenizer.model": "ranks.tiktoken"])
        let opened = try TokenizerFolder(folder.url)
        #expect(opened.kind == .tiktoken)
        #expect(try opened.tokenizer.encode("<|a|><|reserved_token_601|><|end|>") == [600, 601, 602])
        #expect(try opened.tokenizer.encode("a", addSpecialTokens: true) == [97, 602])
        let unknown = try ScratchFolder([:], copying: ["x.tiktoken": "ranks.tiktoken"])
        #expect(throws: TokenizerError.self) { try TokenizerFolder(unknown.url) }
    }

    @Test(arguments: [
        ("tokenizer_config.json", "["), ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", #"{"bos_token": 4}"#),
        ("tokenizer_config.json", #"{"added_tokens_decoder": {"x": {"content": "a"}}}"#),
        ("tokenizer_config.json", #"{"added_tokens_decoder": {"99999999": {"content": "a"}}}"#),
        ("tokenizer_config.json", #"{"added_tokens_decoder": {"1": {}}}"#),
        ("tokenizer_config.json", #"{"added_tokens_decoder": []}"#),
        ("tokenizer_config.json", #"{"extra_special_tokens": "a"}"#), ("tokenizer_config.json", #"{"legacy": 1}"#),
        ("tokenizer_config.json", #"{"model_max_length": "x"}"#), ("tokenizer_config.json", #"{"chat_template": 1}"#),
        ("added_tokens.json", #"{"a": -1}"#), ("special_tokens_map.json", #"{"eos_token": []}"#),
        ("generation_config.json", #"{"eos_token_id": -1}"#), ("generation_config.json", #"{"eos_token_id": ["a"]}"#),
        ("generation_config.json", #"{"temperature": "hot"}"#), ("generation_config.json", #"{"top_k": -1}"#),
    ])
    func refusesByFileAndField(_ name: String, _ text: String) throws {
        let folder = try ScratchFolder(["tokenizer.json": TinyTokenizers.byteLevelJSON(), name: text])
        let error = #expect(throws: TokenizerError.self) { try TokenizerFolder(folder.url) }
        #expect(error?.message.contains(name) == true)
    }

    @Test func namesWhatItLookedFor() throws {
        let folder = try ScratchFolder([:])
        let error = #expect(throws: TokenizerError.self) { try TokenizerFolder(folder.url) }
        #expect(error?.message.contains("tokenizer.model") == true)
        let two = try ScratchFolder(["a.tiktoken": "", "b.tiktoken": ""])
        #expect(throws: TokenizerError.self) { try TokenizerFolder(two.url) }
    }
}

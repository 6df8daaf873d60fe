/// What a rank file does not say: how text is split, and the special tokens. A file comes with neither, so the family must
/// be known: by the class in `tokenizer_config.json`, by the file's name, or by the number of ranks.
public struct TiktokenFamily: Sendable {
    public var name: String
    /// The pattern that pieces are split by.
    public var pattern: String
    public var normalizesNFC = false
    /// Spellings and ids behind the ranks.
    public var specialTokens: [(spelling: String, id: Int)] = []

    /// - Parameter pattern: in Oniguruma's syntax, which for these is that of tiktoken.
    public init(
        name: String, pattern: String, normalizesNFC: Bool = false, specialTokens: [(spelling: String, id: Int)] = []
    ) {
        self.name = name
        self.pattern = pattern
        self.normalizesNFC = normalizesNFC
        self.specialTokens = specialTokens
    }

    /// Qwen (first generation, and the ranks of 2, 2.5 and 3).
    public static func qwen(idBound: Int = 151_643) -> TiktokenFamily {
        let names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + (0..<205).map { "<|extra_\($0)|>" }
        return TiktokenFamily(
            name: "qwen", pattern: KnownPattern.qwen2.source, normalizesNFC: true,
            specialTokens: names.enumerated().map { ($1, idBound + $0) })
    }

    /// Llama 3 and 3.1: 256 special tokens behind the ranks.
    public static func llama3(idBound: Int = 128_000) -> TiktokenFamily {
        var names = [
            "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
            "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
            "<|eot_id|>", "<|python_tag|>",
        ]
        names += (2..<256 - 11 + 2).map { "<|reserved_special_token_\($0)|>" }
        return TiktokenFamily(
            name: "llama3", pattern: KnownPattern.llama3.source,
            specialTokens: names.enumerated().map { ($1, idBound + $0) })
    }

    /// GPT-2's and Codex's: `r50k_base`, `p50k_base`.
    public static let r50k = TiktokenFamily(
        name: "r50k_base",
        pattern: "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+\\z|\\s+(?!\\S)|\\s",
        specialTokens: [("<|endoftext|>", 50_256)])

    /// GPT-4's.
    public static let cl100k = TiktokenFamily(
        name: "cl100k_base",
        pattern: "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
            + "|\\s+\\z|\\s*[\\r\\n]|\\s+(?!\\S)|\\s",
        specialTokens: [
            ("<|endoftext|>", 100_257), ("<|fim_prefix|>", 100_258), ("<|fim_middle|>", 100_259),
            ("<|fim_suffix|>", 100_260), ("<|endofprompt|>", 100_276),
        ])

    /// GPT-4o's.
    public static let o200k = TiktokenFamily(
        name: "o200k_base", pattern: GGUFSplit.gpt4o,
        specialTokens: [("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)])

    /// Kimi's and Moonlight's: Han on its own; the special tokens stand in `tokenizer_config.json`.
    public static let kimi = TiktokenFamily(
        name: "kimi",
        pattern: "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*"
            + "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            + "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+"
            + "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            + "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")

    /// The family of a file, or nil if nothing tells.
    ///
    /// - Parameter tokenizerClass: `tokenizer_class` of `tokenizer_config.json`.
    static func known(tokenizerClass: String?, fileName: String, ranks: TiktokenRanks) -> TiktokenFamily? {
        let bound = ranks.idBound
        switch tokenizerClass {
        case "QWenTokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast": return .qwen(idBound: bound)
        case "ChatGLM4Tokenizer":
            return TiktokenFamily(name: "glm4", pattern: KnownPattern.llama3.source)
        case "TikTokenTokenizer": return .kimi
        default: break
        }
        switch fileName {
        case "qwen.tiktoken": return .qwen(idBound: bound)
        case "r50k_base.tiktoken", "p50k_base.tiktoken", "gpt2.tiktoken": return .r50k
        case "cl100k_base.tiktoken": return .cl100k
        case "o200k_base.tiktoken": return .o200k
        default: break
        }
        switch bound {
        case 151_643: return .qwen()
        case 128_000: return .llama3()
        case 100_256: return .cl100k
        case 199_998: return .o200k
        case 50_256: return .r50k
        default: return nil
        }
    }
}

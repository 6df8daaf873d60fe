/// How byte-level models of a `tokenizer.ggml.pre` split their text.
struct GGUFSplit {
    var preTokenizer: PreTokenizer
    var normalizesNFC = false
    var ignoresMerges = false

    init(_ pre: String) throws {
        func pattern(_ source: String) throws -> PreTokenizer {
            let pattern = try Pattern(source)
            return .split(.expression(pattern), .isolated, invert: false, PatternSplitter(pattern))
        }
        func bytes(splitting: Bool) throws -> PreTokenizer {
            .byteLevel(addsPrefixSpace: false, splits: splitting ? try PatternSplitter(KnownPattern.gpt2.source) : nil)
        }
        switch pre {
        case "default", "gpt-2", "gpt2", "phi-2", "jina-es", "jina-de", "gigachat", "roberta-bpe", "exaone4", "mpt",
            "olmo", "jais", "trillion", "granite-docling":
            preTokenizer = try bytes(splitting: true)
        case "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b":
            preTokenizer = .sequence([.digits(individual: true), try bytes(splitting: true)])
        case "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "dbrx",
            "smaug-bpe", "chatglm-bpe", "glm4", "jina-v5-nano":
            preTokenizer = .sequence([try pattern(KnownPattern.llama3.source), try bytes(splitting: false)])
            ignoresMerges = pre == "llama3" || pre == "llama-v3" || pre == "llama-bpe" || pre.hasPrefix("falcon")
        case "qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open", "kormo", "f2llmv2":
            preTokenizer = .sequence([try pattern(KnownPattern.qwen2.source), try bytes(splitting: false)])
            normalizesNFC = pre == "qwen2" || pre == "deepseek-r1-qwen"
        case "tekken":
            preTokenizer = .sequence([try pattern(Self.tekken), try bytes(splitting: false)])
            ignoresMerges = true
        case "kimi-k2":
            preTokenizer = .sequence([try pattern(TiktokenFamily.kimi.pattern), try bytes(splitting: false)])
        case "qwen35":
            preTokenizer = .sequence([try pattern(KnownPattern.qwen35.source), try bytes(splitting: false)])
            normalizesNFC = true
        case "deepseek-v3", "hunyuan-dense", "joyai-llm":
            let sources = [Self.digitsByThree, Self.eastAsian, Self.deepSeekWords]
            preTokenizer = .sequence(try sources.map(pattern) + [bytes(splitting: false)])
        case "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2":
            preTokenizer = .sequence([try pattern(Self.gpt4o), try bytes(splitting: false)])
        default:
            throw TokenizerError(
                .unsupported, "tokenizer.ggml.pre is '\(pre)': no split is known for it; use the model's tokenizer.json"
            )
        }
    }

    static let digitsByThree = "\\p{N}{1,3}"
    static let eastAsian = "[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+"
    static let deepSeekWords =
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
        + "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
    static let gpt4o = cased(contraction: "(?i:'s|'t|'re|'ve|'m|'ll|'d)?", digits: "{1,3}")
    static let tekken = cased(contraction: "", digits: "")

    /// Words split where small letters meet capital ones.
    private static func cased(contraction: String, digits: String) -> String {
        let upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
        let lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
        let lead = "[^\\r\\n\\p{L}\\p{N}]?"
        let words = "\(lead)\(upper)*\(lower)+\(contraction)|\(lead)\(upper)+\(lower)*\(contraction)"
        return words + "|\\p{N}\(digits)| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    }
}

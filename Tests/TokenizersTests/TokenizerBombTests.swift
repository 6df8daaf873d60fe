import Foundation
import Testing

@testable import Tokenizers

/// Files that are made to crash, to hang or to fill the memory.
@Suite struct TokenizerBombTests {
    private func error(_ body: () throws -> Void) -> TokenizerError? {
        do {
            try body()
            return nil
        } catch {
            return error as? TokenizerError
        }
    }

    // MARK: Patterns

    // Numbers as arguments: the runner prints them.
    @Test(arguments: 0..<4)
    func refusesPatternsThatNestTooDeep(_ index: Int) {
        let patterns = [
            "a" + String(repeating: "?", count: 100_000), "(?:a" + String(repeating: "{1}", count: 50_000) + ")",
            String(repeating: "(?:", count: 90) + "a" + String(repeating: "+++++++++++)", count: 90),
            String(repeating: "(", count: 100_000),
        ]
        let failure = error { _ = try Pattern(patterns[index]) }
        #expect(failure?.code == .invalidPattern)
        #expect((failure?.message.utf8.count ?? 0) < 1000)
    }

    @Test func refusesRepetitionsOfNothingThatMultiply() {
        #expect(error { _ = try Pattern("(?:){1000}{1000}{1000}{1000}") }?.code == .invalidPattern)
        #expect(error { _ = try Pattern("(?:(?:(?:){999}){999}){999}") }?.code == .invalidPattern)
    }

    // MARK: Post-processors

    private func tokenizer(postProcessor: String) throws -> Tokenizer {
        try Tokenizer(
            jsonData: Data(TinyTokenizers.byteLevelJSON(extra: "\"post_processor\": \(postProcessor),").utf8))
    }

    @Test func refusesNegativeIDsOfSpecialTokens() {
        let template = """
            {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [],
             "special_tokens": {"x": {"id": "x", "ids": [-9], "tokens": ["x"]}}}
            """
        #expect(error { _ = try tokenizer(postProcessor: template) }?.code == .invalidField)
        let bert = #"{"type": "BertProcessing", "sep": ["s", -1], "cls": ["c", 2]}"#
        #expect(error { _ = try tokenizer(postProcessor: bert) }?.code == .invalidField)
    }

    // MARK: Growth

    private static func sequence(_ kind: String, _ step: String, times: Int) -> String {
        "{\"type\": \"Sequence\", \"\(kind)\": [" + Array(repeating: step, count: times).joined(separator: ",") + "]}"
    }

    private static let doubles = #"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#

    @Test(arguments: 0..<5)
    func stopsNormalizersThatGrowTheText(_ index: Int) throws {
        let normalizers = [
            Self.sequence("normalizers", Self.doubles, times: 60),
            Self.sequence("normalizers", #"{"type": "ByteLevel"}"#, times: 60),
            Self.sequence("normalizers", Self.sequence("normalizers", Self.doubles, times: 4), times: 20),
            #"{"type": "Prepend", "prepend": ""# + String(repeating: "b", count: 100_000) + "\"}",
            #"{"type": "Replace", "pattern": {"Regex": ""}, "content": ""# + String(repeating: "b", count: 5000)
                + "\"}",
        ]
        let json = TinyTokenizers.byteLevelJSON(extra: "\"normalizer\": \(normalizers[index]),")
        let tokenizer = try Tokenizer(jsonData: Data(json.utf8))
        #expect(error { _ = try tokenizer.encode("a é a") }?.code == .cannotTruncate)
        #expect(error { _ = try tokenizer.encoding("a é a") }?.code == .cannotTruncate)
    }

    @Test func stopsPreTokenizersThatGrowTheText() throws {
        let step = #"{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}"#
        let json = TinyTokenizers.byteLevelJSON(preTokenizer: Self.sequence("pretokenizers", step, times: 60))
        let tokenizer = try Tokenizer(jsonData: Data(json.utf8))
        #expect(error { _ = try tokenizer.encode("é") }?.code == .cannotTruncate)
        #expect(try tokenizer.encode("hello") == [259])
    }

    @Test func refusesDecodersThatGrowTheText() throws {
        func load(_ decoder: String) throws {
            let json = TinyTokenizers.byteLevelJSON()
                .replacing(#""decoder": {"type": "ByteLevel"}"#, with: "\"decoder\": \(decoder)")
            _ = try Tokenizer(jsonData: Data(json.utf8))
        }
        #expect(error { try load(Self.sequence("decoders", Self.doubles, times: 60)) }?.code == .invalidField)
        try load(Self.sequence("decoders", Self.doubles, times: 3))
    }

    @Test func refusesCharsmapsWithHugeReplacements() {
        let map = [8, 0, 0, 0] + [UInt8](repeating: 0, count: 8) + [UInt8](repeating: 0x62, count: 100_000)
        let normalizer = #"{"type": "Precompiled", "precompiled_charsmap": "\#(Data(map).base64EncodedString())"}"#
        let json = TinyTokenizers.byteLevelJSON(extra: "\"normalizer\": \(normalizer),")
        #expect(error { _ = try Tokenizer(jsonData: Data(json.utf8)) }?.code == .invalidField)
    }

    // MARK: Work

    @Test func refusesAffixesThatEverySymbolWouldCarry() {
        let long = String(repeating: "@", count: 100_000)
        for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
            let json = TinyTokenizers.byteLevelJSON(model: "\"\(field)\": \"\(long)\",")
            #expect(error { _ = try Tokenizer(jsonData: Data(json.utf8)) }?.code == .invalidField)
        }
    }

    /// Trying every end of a word of a million letters would take hours.
    @Test func wordPieceTakesLinearTimeForAnyWord() throws {
        let json = """
            {"model": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100000000, "vocab": {"?": 0, "a": 1, "##a": 2, "##é": 3, "aé": 4}}}
            """
        let tokenizer = try Tokenizer(jsonData: Data(json.utf8))
        let ids = try tokenizer.encode("aé" + String(repeating: "aé", count: 500_000))
        #expect(ids.count == 1_000_001)
        #expect(ids.prefix(4) == [4, 2, 3, 2])
        #expect(try tokenizer.encode("a" + String(repeating: "é", count: 1000) + "x") == [0])
    }

    @Test func refusesPatternsOfManyClasses() {
        let scalars = (0..<3000).map {
            "[\(UnicodeScalar(0x20000 + $0 * 2)!)\(UnicodeScalar(0x20000 + $0 * 2 + 256)!)]"
        }
        let split = #"{"type": "Split", "pattern": {"Regex": "\#(scalars.joined())"}, "behavior": "Isolated"}"#
        let json = TinyTokenizers.byteLevelJSON(preTokenizer: Self.sequence("pretokenizers", split, times: 10))
        #expect(error { _ = try Tokenizer(jsonData: Data(json.utf8)) }?.code == .invalidPattern)
    }

    @Test func refusesPaddingAndTemplatesBeyondReason() {
        let padding = #""padding": {"strategy": {"Fixed": 16777216}, "pad_id": 0, "pad_token": "x"},"#
        #expect(
            error { _ = try Tokenizer(jsonData: Data(TinyTokenizers.byteLevelJSON(extra: padding).utf8)) }?.code
                == .invalidField)
        let text = Array(repeating: #"{"Sequence": {"id": "A", "type_id": 0}}"#, count: 1000).joined(separator: ",")
        let template = #"{"type": "TemplateProcessing", "single": [\#(text)], "pair": [], "special_tokens": {}}"#
        #expect(error { _ = try tokenizer(postProcessor: template) }?.code == .invalidField)
    }
}

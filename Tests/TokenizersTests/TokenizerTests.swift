import Foundation
import Testing

@testable import Tokenizers

@Suite struct TokenizerTests {
    @Test func encodesByMerges() throws {
        let tokenizer = try TinyTokenizers.byteLevel()
        let ids = try tokenizer.encode("hello world<|end|>")
        #expect(ids.map { tokenizer.token(for: $0) } == ["hello", "\u{120}w", "or", "l", "d", "<|end|>"])
        #expect(tokenizer.decode(ids) == "hello world")
        #expect(tokenizer.decode(ids, skipSpecialTokens: false) == "hello world<|end|>")
        #expect(tokenizer.vocabularyCount == 264)
        #expect(tokenizer.specialTokens == [262])
        #expect(tokenizer.isSpecial(262) && !tokenizer.isSpecial(263))
        #expect(tokenizer.id(for: "<tool>") == 263 && tokenizer.id(for: "nothing") == nil)
    }

    @Test func roundTripsAnyText() throws {
        let tokenizer = try TinyTokenizers.byteLevel()
        var texts = RandomTexts(seed: 1)
        for length in 0..<200 {
            let text = texts.text(length: length)
            let encoding = try tokenizer.encoding(text)
            #expect(same(tokenizer.decode(encoding.ids, skipSpecialTokens: false), text))
            #expect(try tokenizer.encode(text) == encoding.ids)
            #expect(encoding.byteOffsets.allSatisfy { $0.upperBound <= text.utf8.count })
            var stream = StreamingDetokenizer(tokenizer, skipSpecialTokens: false)
            let streamed = encoding.ids.map { stream.push($0) }.joined() + stream.flush()
            #expect(same(streamed, text))
        }
    }

    @Test func streamHoldsBrokenCharacters() throws {
        let tokenizer = try TinyTokenizers.byteLevel()
        var stream = StreamingDetokenizer(tokenizer)
        let ids = Array("é😀".utf8).map { Int32($0) }
        #expect(ids.map { stream.push($0) } == ["", "é", "", "", "", "😀"])
        #expect(stream.push(0xF0) == "")
        #expect(stream.flush() == "\u{FFFD}")
        #expect(stream.flush() == "")
    }

    @Test func unknownIDsAreLeftOut() throws {
        let tokenizer = try TinyTokenizers.byteLevel()
        #expect(tokenizer.decode([-1, 104, 100_000, Int32.max, Int32.min]) == "h")
        #expect(tokenizer.token(for: -1) == nil && tokenizer.token(for: Int32.max) == nil)
    }

    @Test func batchesAgreeWithSingleTexts() throws {
        let tokenizer = try TinyTokenizers.byteLevel()
        var random = RandomTexts(seed: 2)
        let texts = (0..<100).map { random.text(length: $0) }
        #expect(try tokenizer.encodeBatch(texts) == texts.map { try tokenizer.encode($0) })
        #expect(try tokenizer.encodeBatch([]).isEmpty)
    }

    @Test func longWordsMergeAsShortOnesDo() throws {
        // The heap for long words and the scan for short ones must agree: words of both kinds from one text.
        let tokenizer = try TinyTokenizers.byteLevel()
        let long = String(repeating: "hello", count: 100)
        #expect(try tokenizer.encode(long) == Array(repeating: tokenizer.id(for: "hello")!, count: 100))
        #expect(try tokenizer.encode(String(repeating: "l", count: 101)).count == 51)
    }

    @Test func truncationAndPadding() throws {
        let extra = """
            "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": {"strategy": {"Fixed": 6}, "direction": "Left", "pad_id": 7, "pad_type_id": 0, "pad_token": "x"},
            """
        let json = TinyTokenizers.byteLevelJSON(extra: extra)
        let tokenizer = try Tokenizer(jsonData: Data(json.utf8))
        #expect(try tokenizer.encode("abcdef") == [7, 7, 97, 98, 99, 100])
        #expect(try tokenizer.encoding("abcdef").attentionMask == [0, 0, 1, 1, 1, 1])
        #expect(try tokenizer.withoutTruncationAndPadding().encode("abcdef").count == 6)
    }

    @Test func ggufEqualsJSON() throws {
        let tokenizer = try TinyTokenizers.byteLevel()
        let count = tokenizer.vocabularyCount
        var tokens = (0..<Int32(count)).map { Array(tokenizer.token(for: $0)!.utf8) }
        var types = [Int32](repeating: 1, count: count)
        types[262] = 3
        types[263] = 4
        let merges = ["h e", "l l", "he ll", "hell o", "\u{120} w", "o r"].map { Array($0.utf8) }
        let gguf = GGUFVocabulary(
            model: "gpt2", pre: "gpt-2", tokens: tokens, tokenTypes: types, merges: merges, bosID: 262, addsBOS: true)
        let other = try Tokenizer(gguf: gguf)
        var texts = RandomTexts(seed: 3)
        for length in 0..<50 {
            let text = texts.text(length: length) + " hello<|end|> world<tool>"
            #expect(try other.encode(text) == tokenizer.encode(text))
        }
        #expect(try other.encode("a", addSpecialTokens: true) == [262, 97])
        #expect(other.decode([262, 97]) == "a")
        #expect(throws: TokenizerError.self) { try Tokenizer(gguf: GGUFVocabulary(model: "rwkv", tokens: tokens)) }
        #expect(throws: TokenizerError.self) {
            try Tokenizer(gguf: GGUFVocabulary(model: "gpt2", pre: "nobody", tokens: tokens))
        }
        tokens[0] = [0xFF]
        #expect(throws: TokenizerError.self) { try Tokenizer(gguf: GGUFVocabulary(model: "gpt2", tokens: tokens)) }
    }

    @Test func sentencePieceFromGGUF() throws {
        let pieces: [(String, Float, Int32)] =
            [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
            + (0..<256).map { (String(decoding: BPEModel.fallbackSpelling(UInt8($0)), as: UTF8.self), 0, 6) }
            + [("\u{2581}a", -1, 1), ("ab", -2, 1), ("\u{2581}", -3, 1), ("a", -4, 1), ("b", -5, 1)]
        let gguf = GGUFVocabulary(
            model: "llama", tokens: pieces.map { Array($0.0.utf8) }, tokenTypes: pieces.map(\.2),
            scores: pieces.map(\.1),
            bosID: 1, unknownID: 0, addsBOS: true)
        let tokenizer = try Tokenizer(gguf: gguf)
        #expect(try tokenizer.encode("ab", addSpecialTokens: true) == [1, 259, 263])
        #expect(try tokenizer.encode("é") == [261, 0xC3 + 3, 0xA9 + 3])
        #expect(tokenizer.decode([1, 259, 263, 0xC3 + 3, 0xA9 + 3]) == "abé")
    }
}

@Suite struct HostileTokenizerTests {
    @Test(arguments: [
        "", "{", "[]", "null", "{\"model\": null}", "{\"model\": {}}", "{\"model\": {\"type\": \"Nothing\"}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 99999999999}, \"merges\": []}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1.5}, \"merges\": []}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [], \"dropout\": 0.5}}",
        "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 4, \"vocab\": [[\"a\", 1]]}}",
        "{\"model\": {\"type\": \"WordLevel\", \"vocab\": []}}",
        "{\"model\": {\"type\": \"WordLevel\", \"vocab\": {}}, \"normalizer\": {\"type\": \"Precompiled\", \"precompiled_charsmap\": \"////\"}}",
        "{\"model\": {\"type\": \"WordLevel\", \"vocab\": {}}, \"added_tokens\": [{\"id\": -1, \"content\": \"a\"}]}",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}",
        "{\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"a\": 0}}, \"post_processor\": {\"type\": \"BertProcessing\", \"cls\": [\"a\", 0], \"sep\": [\"x\", 7]}}",
        "{\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"a\": 0}}, \"truncation\": {\"max_length\": 4, \"direction\": \"Up\"}}",
        "{\"a\": \"\\ud800\"", "{\"a\": 1,}", "[1 2]", "{\"a\" 1}", "\"\\x\"",
    ])
    func refuses(_ json: String) {
        #expect(throws: TokenizerError.self) { try Tokenizer(jsonData: Data(json.utf8)) }
    }

    @Test(arguments: [
        "(", "[", "a{2,1}", "a**{3000}", "\\p{Nobody}", "(?<=a+)b", "\\1", "(a", "*", "[b-a]", "\\", "(?i",
    ])
    func refusesPattern(_ pattern: String) {
        #expect(throws: TokenizerError.self) { try Pattern(pattern) }
    }

    @Test func deepNestingIsRefused() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(throws: TokenizerError.self) { try JSONDocument(Array(deep.utf8)) }
        #expect(throws: TokenizerError.self) { try Pattern(String(repeating: "(", count: 10_000)) }
    }

    @Test func endlessPatternsEnd() throws {
        let pattern = try Pattern("(a|aa)+$")
        let text = Array((String(repeating: "a", count: 60) + "b").utf8)
        #expect(throws: TokenizerError.self) {
            try text.withUnsafeBufferPointer { try pattern.forEachMatch(in: $0) { _, _ in } }
        }
    }

    /// Any damage to a file gives an error or a tokenizer, never a trap.
    @Test func survivesMutations() throws {
        let original = Array(TinyTokenizers.byteLevelJSON().utf8)
        var random = RandomTexts(seed: 5)
        for _ in 0..<300 {
            var bytes = original
            for _ in 0...random.next(4) {
                let position = random.next(bytes.count)
                switch random.next(4) {
                case 0: bytes[position] = UInt8(random.next(256))
                case 1: bytes.remove(at: position)
                case 2: bytes.removeSubrange(position..<min(bytes.count, position + random.next(200)))
                default: bytes.insert(contentsOf: Array("[{\"}],:0".utf8).shuffled().prefix(2), at: position)
                }
            }
            guard let tokenizer = try? Tokenizer(jsonData: Data(bytes)) else { continue }
            let ids = (try? tokenizer.encode("hello <|end|> wörld")) ?? []
            _ = tokenizer.decode(ids)
        }
    }
}

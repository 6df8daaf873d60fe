import Foundation
import Testing

@testable import Tokenizers

@Suite struct PatternTests {
    private func matches(_ pattern: String, _ text: String) throws -> [String] {
        let bytes = Array(text.utf8)
        var result: [String] = []
        try bytes.withUnsafeBufferPointer { buffer in
            try Pattern(pattern).forEachMatch(in: buffer) {
                result.append(String(decoding: buffer[$0..<$1], as: UTF8.self))
            }
        }
        return result
    }

    @Test func matchesAsOnigurumaDoes() throws {
        #expect(try matches("a|ab", "abab") == ["a", "a"])
        #expect(try matches("\\s+(?!\\S)|\\s+", "a   b ") == ["  ", " ", " "])
        #expect(try matches("(?i:'s|'t)", "'S'ſ't'x") == ["'S", "'ſ", "'t"])
        #expect(try matches("[a-z&&[^aeiou]]+", "hello") == ["h", "ll"])
        #expect(try matches("(?<=\\d)(?=(\\d{3})+\\b)", "1234567") == ["", ""])
        #expect(try matches("(?<!\\w)[A-Z]\\w*", "Ab cD E") == ["Ab", "E"])
        #expect(try matches("a*?b", "aab") == ["aab"])
        #expect(try matches("a++a", "aaa") == [])
        #expect(try matches("(?>a|ab)c", "abc ac") == ["ac"])
        #expect(try matches("x*", "axb") == ["", "x", ""])
        #expect(try matches("(a?)*b", "aab") == ["aab"])
        #expect(try matches("[^(\\s|[.,])]+", "a,b (c)") == ["a", "b", "c"])
        #expect(try matches("\\p{^L}|\\P{N}", "a1") == ["a", "1"])
        #expect(try matches("[[:alpha:]]+", "ab1") == ["ab"])
        #expect(try matches("\\x{4F60}|\\u597D", "你好") == ["你", "好"])
    }

    @Test(arguments: KnownPattern.allCases)
    func scannersByHandAgreeWithTheMatcher(_ known: KnownPattern) throws {
        let pattern = try Pattern(known.source)
        let splitter = PatternSplitter(pattern)
        #expect(splitter.known == known)
        var texts = RandomTexts(seed: 7)
        for length in 0..<600 {
            let text = Array(texts.text(length: length % 60).utf8)
            try text.withUnsafeBufferPointer { buffer in
                var slow: [Range<Int>] = []
                var fast: [Range<Int>] = []
                try pattern.forEachMatch(in: buffer) { slow.append($0..<$1) }
                try splitter.forEachMatch(in: buffer) { fast.append($0..<$1) }
                #expect(slow == fast, "\(String(decoding: buffer, as: UTF8.self).debugDescription)")
            }
        }
    }
}

@Suite struct TokenizerConfigTests {
    @Test func readsAFolder() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "tokenizer-config-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func write(_ name: String, _ text: String) throws {
            try Data(text.utf8).write(to: folder.appending(path: name))
        }
        try write(
            "tokenizer_config.json",
            """
            {"bos_token": null, "eos_token": {"content": "<|end|>"}, "model_max_length": 1e30, "add_bos_token": false,
             "chat_template": [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]}
            """)
        try write("special_tokens_map.json", "{\"pad_token\": \"<tool>\", \"bos_token\": \"x\"}")
        try write("generation_config.json", "{\"eos_token_id\": [5, 262]}")
        try write("tokenizer.json", TinyTokenizers.byteLevelJSON())
        var read = try TokenizerFolder(folder)
        // The map has the last word where there is no added_tokens_decoder, as in transformers.
        #expect(read.config.bosToken == "x" && read.config.eosToken == "<|end|>" && read.config.padToken == "<tool>")
        #expect(read.config.maximumLength == nil && read.config.addsBOS == false)
        #expect(read.config.chatTemplate == "A" && read.config.namedChatTemplates["tool_use"] == "B")
        #expect(read.endOfTurnIDs == [5, 262])
        try write("chat_template.jinja", "C")
        read = try TokenizerFolder(folder)
        #expect(read.config.chatTemplate == "C")
        try write("generation_config.json", "{\"eos_token_id\": \"x\"}")
        #expect(throws: TokenizerError.self) { try TokenizerFolder(folder) }
    }
}

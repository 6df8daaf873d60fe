import Foundation

@testable import Tokenizers

/// Small tokenizers written out in the tests, so that they run without golden files.
enum TinyTokenizers {
    /// Byte-level BPE over all bytes with a few merges, an added special token and one that is not special.
    static func byteLevelJSON(preTokenizer: String = gpt2, extra: String = "", model: String = "") -> String {
        let spellings = ByteAlphabet.scalars.map { String(Character(UnicodeScalar($0)!)) }
        let merged = ["he", "ll", "hell", "hello", "\u{120}w", "or"]
        let vocabulary = (spellings + merged).enumerated().map { "\(quoted($0.element)): \($0.offset)" }
        let merges = ["h e", "l l", "he ll", "hell o", "\u{120} w", "o r"].map(quoted)
        return """
            {"version": "1.0", \(extra)
             "added_tokens": [
                {"id": 262, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
                 "normalized": false, "special": true},
                {"id": 263, "content": "<tool>", "single_word": false, "lstrip": false, "rstrip": false,
                 "normalized": false, "special": false}],
             "pre_tokenizer": \(preTokenizer), "decoder": {"type": "ByteLevel"},
             "model": {"type": "BPE", \(model) "vocab": {\(vocabulary.joined(separator: ", "))},
                       "merges": [\(merges.joined(separator: ", "))]}}
            """
    }

    static let gpt2 = #"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#

    static func byteLevel() throws -> Tokenizer { try Tokenizer(jsonData: Data(byteLevelJSON().utf8)) }

    static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 0x20:
                result += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}

/// Texts of all kinds by a generator that is the same on every run.
struct RandomTexts {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next(_ bound: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(state >> 33) % bound
    }

    mutating func text(length: Int) -> String {
        let common = Array(
            "aZé ßſ'sStTmMdDrRvVlLeE  \t\n\r\u{A0}\u{3000}0129½٣.,!?-_/你好カ\u{301}\u{93F}😀\u{200D}".unicodeScalars)
        var text = String.UnicodeScalarView()
        for _ in 0..<length {
            if next(12) > 0 {
                text.append(common[next(common.count)])
            } else if let scalar = UnicodeScalar(UInt32(next(0x30000))) {
                text.append(scalar)
            }
        }
        return String(text)
    }
}

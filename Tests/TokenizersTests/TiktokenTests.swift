import Foundation
import TestSupport
import Testing

@testable import Tokenizers

@Suite struct TiktokenTests {
    static let folders = PieceFixtures.folders.map { $0.appending(path: "ranks.tiktoken") }

    @Test(arguments: folders)
    func agreesWithTheLibrary(_ file: URL) throws {
        let ranks = try TiktokenRanks(contentsOf: file)
        let special = [(spelling: "<|end|>", id: ranks.idBound)]
        var families = [TiktokenFamily.r50k, .cl100k, .o200k, .llama3(), .qwen()]
        // The peer's encodings have one special token each, and leave normalization to who calls.
        for index in families.indices {
            families[index].specialTokens = special
            families[index].normalizesNFC = false
        }
        var tokenizers: [String: Tokenizer] = [:]
        for family in families {
            let name = family.name.replacing("_base", with: "")
            tokenizers[name] = try Tokenizer(tiktoken: ranks, family: family)
        }
        var failures = Failures()
        for row in try PieceFixtures.rows(file.deletingPathExtension().appendingPathExtension("jsonl")) {
            let tokenizer = try #require(tokenizers[row["family"]!.string!])
            let text = row["text"]!.string!
            let wanted = row["ids"]!.ids
            let encoding = try tokenizer.encoding(text)
            let plain = try tokenizer.encode(text)
            if plain != wanted || encoding.ids != wanted {
                failures.add("\(row["family"]!.string!) \(text.debugDescription): \(plain) not \(wanted)")
            }
            if !same(tokenizer.decode(wanted, skipSpecialTokens: false), text) { failures.add("decode of \(wanted)") }
        }
        #expect(failures.count == 0, "\(failures.summary)")
    }

    @Test func findsTheFamily() throws {
        let ranks = try TiktokenRanks(contentsOf: Self.folders[0])
        func name(_ tokenizerClass: String?, _ file: String) -> String? {
            TiktokenFamily.known(tokenizerClass: tokenizerClass, fileName: file, ranks: ranks)?.name
        }
        #expect(name("QWenTokenizer", "x") == "qwen")
        #expect(name("TikTokenTokenizer", "tiktoken.model") == "kimi")
        #expect(name(nil, "o200k_base.tiktoken") == "o200k_base")
        #expect(name("Another", "tokenizer.model") == nil)
        let qwen = try Tokenizer(tiktoken: ranks, family: .qwen(idBound: ranks.idBound))
        #expect(qwen.id(for: "<|im_end|>") == Int32(ranks.idBound + 2))
        #expect(qwen.vocabularyCount == ranks.idBound + 208)
        #expect(try Tokenizer(tiktoken: ranks, family: .llama3(idBound: ranks.idBound)).specialTokens.count == 256)
        #expect(throws: Never.self) { try Tokenizer(tiktoken: ranks, family: .kimi) }
    }

    @Test(arguments: [
        "", "IQ==", "IQ== x", "IQ== -1", "IQ== 99999999", "!!! 0", " 0", "IQ== 0\nIQ== 1", "IQ== 0\nIg== 0", "IQ== 0",
    ])
    func refuses(_ text: String) {
        #expect(throws: TokenizerError.self) { try TiktokenRanks(bytes: Array(text.utf8)) }
    }
}

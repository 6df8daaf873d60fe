import Foundation
import TestSupport
import Testing

@testable import Tokenizers

/// The committed fixtures, and larger ones of the same kind in the golden area `spm` where there is one.
/// `scripts/peers/tokenizer_fixtures.py` makes both.
enum PieceFixtures {
    static let folders: [URL] = {
        let committed = Golden.packageRoot.appending(
            path: "Tests/TokenizersTests/Fixtures", directoryHint: .isDirectory)
        return [committed] + [Golden.directory("spm")].compactMap(\.self)
    }()

    static let models: [URL] = folders.flatMap { folder in
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.filter { $0.hasSuffix(".model") }.sorted().map { folder.appending(path: $0) }
    }

    static func rows(_ model: URL, _ kind: String) throws -> [JSONNode] {
        try rows(model.deletingPathExtension().appendingPathExtension("\(kind).jsonl"))
    }

    static func rows(_ file: URL) throws -> [JSONNode] {
        try Data(contentsOf: file).split(separator: 0x0A).map { try JSONDocument(Array($0)).root }
    }
}

@Suite struct SentencePieceTests {
    @Test func fixturesAreThere() { #expect(PieceFixtures.models.count >= 4) }

    @Test(arguments: PieceFixtures.models)
    func agreesWithTheLibrary(_ file: URL) throws {
        let tokenizer = try Tokenizer(sentencePiece: SentencePieceModel(contentsOf: file))
        var failures = Failures()
        for row in try PieceFixtures.rows(file, "library") {
            let wanted = row["ids"]!.ids
            if let text = row.present("text")?.string {
                let ids = try tokenizer.encode(text)
                if ids != wanted { failures.add("\(text.debugDescription): \(ids) not \(wanted)") }
                let encoding = try tokenizer.encoding(text)
                if encoding.ids != wanted { failures.add("with offsets \(text.debugDescription): \(encoding.ids)") }
                checkOffsets(encoding, text, &failures)
            }
            let decoded = tokenizer.decode(wanted)
            if !same(decoded, row["decoded"]!.string) {
                failures.add(
                    "decode \(wanted): \(decoded.debugDescription) not \(row["decoded"]!.string.debugDescription)")
            }
        }
        #expect(failures.count == 0, "\(failures.summary)")
    }

    /// Offsets rise and stay in the text.
    private func checkOffsets(_ encoding: Encoding, _ text: String, _ failures: inout Failures) {
        var last = 0
        for range in encoding.byteOffsets {
            if range.lowerBound < last || range.upperBound > text.utf8.count {
                failures.add("offsets of \(text.debugDescription): \(encoding.byteOffsets)")
                return
            }
            last = range.lowerBound
        }
    }

    /// The pieces as a GGUF file holds them give the same ids, whose merges go by the scores.
    @Test(arguments: PieceFixtures.models)
    func ggufEqualsTheModel(_ file: URL) throws {
        let model = try SentencePieceModel(contentsOf: file)
        guard model.kind == .bpe, model.hasByteFallback else { return }
        let gguf = GGUFVocabulary(
            model: "llama", tokens: model.pieces.map(\.spelling),
            tokenTypes: model.pieces.map { Int32($0.type.rawValue) },
            scores: model.pieces.map(\.score), bosID: 1, eosID: 2, unknownID: 0, addsBOS: true)
        let tokenizer = try Tokenizer(gguf: gguf)
        let wanted = try Tokenizer(sentencePiece: model, as: .llama())
        var failures = Failures()
        for row in try PieceFixtures.rows(file, "library") {
            // GGUF's unknown token is found whole, as in llama.cpp; so it is in a folder, where it has a role.
            guard let text = row.present("text")?.string, !text.contains("<unk>") else { continue }
            let ids = try tokenizer.encode(text, addSpecialTokens: true)
            let expected = try wanted.encode(text, addSpecialTokens: true)
            if ids != expected { failures.add("\(text.debugDescription): \(ids) not \(expected)") }
            if !same(tokenizer.decode(ids), wanted.decode(ids)) { failures.add("decode \(ids)") }
        }
        #expect(failures.count == 0, "\(failures.summary)")
    }

    @Test(arguments: PieceFixtures.models)
    func convertsAsTransformers(_ file: URL) throws {
        let model = try SentencePieceModel(contentsOf: file)
        let conventions: [String: SentencePieceConvention] = [
            "llama_legacy": .llama(), "llama": .llama(isLegacy: false),
            "llama_no_prefix": .llama(isLegacy: false, addsPrefixSpace: false), "gemma": .gemma, "general": .general,
            "t5": .t5(),
        ]
        let tokenizers = try conventions.mapValues { try Tokenizer(sentencePiece: model, as: $0) }
        var failures = Failures()
        for row in try PieceFixtures.rows(file, "converted") {
            let name = row["convention"]!.string!
            let text = row["text"]!.string!
            guard let tokenizer = tokenizers[name] else { continue }
            let encoding = try tokenizer.encoding(text)
            let wanted = row["ids"]!.ids
            let plain = try tokenizer.encode(text)
            if encoding.ids != wanted || plain != wanted {
                failures.add("\(name) \(text.debugDescription): \(encoding.ids) not \(wanted)")
            } else if encoding.characterOffsets != row["offsets"]!.ranges {
                failures.add(
                    "\(name) offsets \(text.debugDescription): \(encoding.characterOffsets) not \(row["offsets"]!.ranges)"
                )
            }
            let decoded = tokenizer.decode(wanted)
            if !same(decoded, row["decoded"]!.string) {
                failures.add("\(name) decode \(wanted): \(decoded.debugDescription) not \(row["decoded"]!.string!)")
            }
        }
        #expect(failures.count == 0, "\(failures.summary)")
    }
}

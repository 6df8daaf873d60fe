import Foundation
import Testing

@testable import Tokenizers

/// Damage to a model file gives an error or a tokenizer, never a trap; texts of any kind come back.
@Suite struct DamagedModelTests {
    private func damaged(_ original: [UInt8], _ random: inout RandomTexts) -> [UInt8] {
        var bytes = original
        let isGentle = random.next(2) == 0
        for _ in 0...random.next(5) where !bytes.isEmpty {
            let position = random.next(bytes.count)
            if isGentle {
                bytes[position] ^= UInt8(1 << random.next(8))
                continue
            }
            switch random.next(5) {
            case 0: bytes[position] = UInt8(random.next(256))
            case 1: bytes.remove(at: position)
            case 2: bytes.removeSubrange(position..<min(bytes.count, position + random.next(300)))
            case 3: bytes.removeLast(random.next(bytes.count))
            default:
                bytes.insert(contentsOf: bytes[position..<min(bytes.count, position + random.next(60))], at: position)
            }
        }
        return bytes
    }

    @Test(arguments: ["unigram.model", "unigram_bytes.model", "bpe.model", "bpe_bytes.model"])
    func sentencePiece(_ name: String) throws {
        let original = Array(try Data(contentsOf: PieceFixtures.folders[0].appending(path: name)))
        var random = RandomTexts(seed: 11)
        var opened = 0
        for round in 0..<120 {
            let bytes = damaged(original, &random)
            guard let model = try? SentencePieceModel(bytes: bytes) else { continue }
            let conventions: [SentencePieceConvention] = [.library, .llama(), .gemma, .general]
            guard let tokenizer = try? Tokenizer(sentencePiece: model, as: conventions[round % 4]) else { continue }
            opened += 1
            let ids = (try? tokenizer.encode(random.text(length: 60))) ?? []
            _ = tokenizer.decode(ids, skipSpecialTokens: false)
            _ = try? tokenizer.encoding("the good world <sep>", addSpecialTokens: true)
        }
        #expect(opened > 5)
    }

    @Test func tiktoken() throws {
        let original = Array(try Data(contentsOf: PieceFixtures.folders[0].appending(path: "ranks.tiktoken")))
        var random = RandomTexts(seed: 12)
        for _ in 0..<60 {
            guard let ranks = try? TiktokenRanks(bytes: damaged(original, &random)) else { continue }
            guard let tokenizer = try? Tokenizer(tiktoken: ranks, family: .qwen(idBound: ranks.idBound)) else {
                continue
            }
            let ids = (try? tokenizer.encode(random.text(length: 60))) ?? []
            _ = tokenizer.decode(ids)
        }
    }

    @Test(arguments: [
        [UInt8](), [0x0A], [0x0A, 0xFF], [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
        [0x0B], [0x00], [0x0A, 0x00], Array(repeating: 0xFF, count: 40), [0x0D, 0, 0, 0], [0x12, 0x02, 0x18, 0x03],
    ])
    func refusesBytes(_ bytes: [UInt8]) {
        #expect(throws: TokenizerError.self) { try SentencePieceModel(bytes: bytes) }
    }

    private func message(_ pieces: [(String, Float, UInt8)], trainer: [UInt8] = [0x18, 0x02]) -> [UInt8] {
        var bytes: [UInt8] = []
        for (text, score, type) in pieces {
            let bits = score.bitPattern
            let body =
                [0x0A, UInt8(text.utf8.count)] + Array(text.utf8) + [0x15]
                + (0..<4).map { UInt8(truncatingIfNeeded: bits >> UInt32($0 * 8)) } + [0x18, type]
            bytes += [0x0A, UInt8(body.count)] + body
        }
        return bytes + [0x12, UInt8(trainer.count)] + trainer
    }

    @Test func namesTheField() throws {
        let good: [(String, Float, UInt8)] = [("<unk>", 0, 2), ("a", -1, 1), ("b", -2, 1), ("ab", -3, 1)]
        #expect(try Tokenizer(sentencePiece: SentencePieceModel(bytes: message(good))).encode("ab").count > 0)
        func failure(_ pieces: [(String, Float, UInt8)], trainer: [UInt8] = [0x18, 0x02]) -> String {
            do {
                _ = try Tokenizer(sentencePiece: SentencePieceModel(bytes: message(pieces, trainer: trainer)))
                return ""
            } catch { return "\(error)" }
        }
        #expect(failure(good + [("a", -5, 1)]).contains("pieces[4]"))
        #expect(failure(good + [("c", .nan, 1)]).contains("pieces[4].score"))
        #expect(failure(good + [("c", 0, 9)]).contains("pieces[4].type"))
        #expect(failure(Array(good.dropFirst())).contains("UNKNOWN"))
        #expect(failure(good + [("<x>", 0, 2)]).contains("UNKNOWN"))
        #expect(failure(good, trainer: [0x18, 0x04]).contains("model_type"))
        #expect(failure(good, trainer: [0x18, 0x63]).contains("model_type"))
        #expect(failure(good, trainer: [0x98, 0x02, 0x01]).contains("byte_fallback"))
        #expect(failure(good, trainer: [0xC0, 0x01, 0x01]).contains("treat_whitespace_as_suffix"))
        #expect(failure(good, trainer: [0xD0, 0x02, 0x63]).contains("eos_id"))
    }

    /// A text and bytes of any kind are kept by tokenizers that have a token for every byte.
    @Test(arguments: [0, 1, 2])
    func roundTrips(_ kind: Int) throws {
        let tokenizer: Tokenizer
        if kind == 0 {
            tokenizer = try TinyTokenizers.byteLevel()
        } else if kind == 1 {
            let ranks = try TiktokenRanks(contentsOf: PieceFixtures.folders[0].appending(path: "ranks.tiktoken"))
            tokenizer = try Tokenizer(tiktoken: ranks, family: .llama3(idBound: ranks.idBound))
        } else {
            let file = PieceFixtures.folders[0].appending(path: "bpe_bytes.model")
            tokenizer = try Tokenizer(sentencePiece: SentencePieceModel(contentsOf: file), as: .llama())
        }
        var random = RandomTexts(seed: UInt64(20 + kind))
        for length in 0..<150 {
            // Broken bytes become U+FFFD before a tokenizer sees them: a String holds no others.
            let bytes = (0..<length).map { _ in UInt8(random.next(256)) }
            let text = random.text(length: length) + String(decoding: bytes, as: UTF8.self)
            // A mark in the text comes back as the blank that it stands for.
            let wanted = kind == 2 ? text.replacing("\u{2581}", with: " ") : text
            let ids = try tokenizer.encode(text)
            #expect(same(tokenizer.decode(ids, skipSpecialTokens: false), wanted))
            #expect(ids.allSatisfy { $0 >= 0 && Int($0) < tokenizer.vocabularyCount })
            #expect(try tokenizer.encoding(text).ids == ids)
        }
    }

    /// What a stream lets out is what decoding all at once gives, and it is never half a character.
    @Test(arguments: ["unigram.model", "unigram_bytes.model", "bpe.model", "bpe_bytes.model"])
    func streams(_ name: String) throws {
        let model = try SentencePieceModel(contentsOf: PieceFixtures.folders[0].appending(path: name))
        for convention in [SentencePieceConvention.library, .llama(), .gemma, .general] {
            let tokenizer = try Tokenizer(sentencePiece: model, as: convention)
            var random = RandomTexts(seed: 41)
            for length in 0..<60 {
                let ids = try tokenizer.encode("the good " + random.text(length: length))
                var stream = StreamingDetokenizer(tokenizer, skipSpecialTokens: false)
                let pieces = ids.map { stream.push($0) }
                #expect(same(pieces.joined() + stream.flush(), tokenizer.decode(ids, skipSpecialTokens: false)))
            }
        }
    }

    @Test func batchesAreInOrderOnAnyNumberOfThreads() throws {
        let tokenizer = try TinyTokenizers.byteLevel()
        var random = RandomTexts(seed: 31)
        let texts = (0..<500).map { _ in random.text(length: 20) }
        let wanted = try texts.map { try tokenizer.encode($0) }
        for threads in [1, 2, 7, 1000] { #expect(try tokenizer.encodeBatch(texts, threads: threads) == wanted) }
    }
}

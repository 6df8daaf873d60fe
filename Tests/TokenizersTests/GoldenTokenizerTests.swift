import Foundation
import TestSupport
import Testing

@testable import Tokenizers

@Suite struct GoldenTokenizerTests {
    @Test(arguments: GoldenCases.folders)
    func encodesAndDecodes(_ folder: String) throws {
        let tokenizer = try GoldenCases.tokenizer(folder)
        var failures = Failures()
        for row in try GoldenCases.rows("\(folder)/cases.jsonl") {
            let text = row["text"]!.string!
            let second = row.present("pair")?.string
            let adds = row["add_special_tokens"]!.bool!
            let wanted = row["ids"]!.ids
            let encoding = try tokenizer.encoding(text, second, addSpecialTokens: adds)
            if encoding.ids != wanted {
                failures.add("\(row["category"]?.string ?? "") \(text.debugDescription): \(encoding.ids) not \(wanted)")
                continue
            }
            if second == nil {
                let ids = try tokenizer.encode(text, addSpecialTokens: adds)
                if ids != wanted { failures.add("without offsets \(text.debugDescription): \(ids) not \(wanted)") }
            }
            let tokens = encoding.tokens
            if !zip(tokens, row["tokens"]!.strings).allSatisfy({ same($0, $1) }) {
                failures.add("tokens \(tokens) not \(row["tokens"]!.strings)")
            }
            if let offsets = row.present("offsets")?.ranges, offsets != encoding.characterOffsets {
                failures.add(
                    "offsets of \(text.debugDescription): \(encoding.characterOffsets) not \(offsets) \(tokens)")
            }
            if let types = row.present("type_ids")?.ids, types != encoding.typeIDs {
                failures.add("types of \(text.debugDescription): \(encoding.typeIDs) not \(types)")
            }
            if let mask = row.present("special_tokens_mask")?.ints, mask != encoding.specialTokensMask.map({ Int($0) })
            {
                failures.add("special mask of \(text.debugDescription): \(encoding.specialTokensMask) not \(mask)")
            }
            if let mask = row.present("attention_mask")?.ints, mask != encoding.attentionMask.map({ Int($0) }) {
                failures.add("attention mask of \(text.debugDescription): \(encoding.attentionMask) not \(mask)")
            }
            check(row, wanted, tokenizer, &failures)
        }
        for row in try GoldenCases.rows("\(folder)/decode_cases.jsonl") {
            check(row, row["ids"]!.ids, tokenizer, &failures)
        }
        #expect(failures.count == 0, "\(failures.summary)")
    }

    private func check(_ row: JSONNode, _ ids: [Int32], _ tokenizer: Tokenizer, _ failures: inout Failures) {
        for (name, skips) in [("skip_special_tokens", true), ("keep_special_tokens", false)] {
            let node =
                skips ? row["decoded"]!.present("skip_special_tokens") : row["decoded"]!.present("keep_special_tokens")
            guard let wanted = node?.string else { continue }
            let text = tokenizer.decode(ids, skipSpecialTokens: skips)
            if !same(text, wanted) {
                failures.add("decode \(name) \(ids): \(text.debugDescription) not \(wanted.debugDescription)")
            }
        }
    }

    @Test(arguments: GoldenCases.folders)
    func streams(_ folder: String) throws {
        let tokenizer = try GoldenCases.tokenizer(folder)
        var failures = Failures()
        for row in try GoldenCases.rows("\(folder)/streaming_decode.jsonl") {
            let ids = row["ids"]!.ids
            let skips = row["skip_special_tokens"]!.bool!
            var stream = StreamingDetokenizer(tokenizer, skipSpecialTokens: skips)
            let pieces = ids.map { stream.push($0) }
            let flush = stream.flush()
            if let wanted = row.present("pieces")?.strings {
                if pieces.count != wanted.count || !zip(pieces, wanted).allSatisfy({ same($0, $1) }) {
                    failures.add("\(ids): \(pieces) not \(wanted)")
                } else if row.present("stream_differs_from_decode") != nil {
                    // What the library had shown is no beginning of the whole text: it has no flush to compare with.
                    continue
                } else if let rest = row.present("flush")?.string, !same(flush, rest) {
                    failures.add("flush of \(ids): \(flush.debugDescription) not \(rest.debugDescription)")
                }
            } else if let before = row.present("pieces_before_error")?.strings {
                // The library raises here; ours goes on, and agrees up to there.
                if !zip(pieces, before).allSatisfy({ same($0, $1) }) { failures.add("\(ids): \(pieces) not \(before)") }
                if flush.isEmpty, pieces.joined().isEmpty { failures.add("\(ids): nothing came out") }
            }
        }
        #expect(failures.count == 0, "\(failures.summary)")
    }
}

@Suite struct GoldenRealFileTests {
    /// The GGUF file of SmolLM2 holds the same tokens and merges as its `tokenizer.json`.
    @Test func ggufOfSmolLM2EqualsItsJSON() throws {
        guard GoldenCases.folders.contains("smollm2") else { return }
        let tokenizer = try GoldenCases.tokenizer("smollm2")
        let merges = try GoldenCases.document("smollm2").root["model"]!["merges"]!.elements.map { $0.stringBytes! }
        let ids = 0..<Int32(tokenizer.vocabularyCount)
        let gguf = GGUFVocabulary(
            model: "gpt2", pre: "smollm", tokens: ids.map { Array(tokenizer.token(for: $0)!.utf8) },
            tokenTypes: ids.map { tokenizer.isSpecial($0) ? 3 : 1 }, merges: merges)
        let other = try Tokenizer(gguf: gguf)
        for row in try GoldenCases.rows("smollm2/cases.jsonl") where row.present("pair") == nil {
            #expect(try other.encode(row["text"]!.string!) == row["ids"]!.ids)
        }
    }

    /// Damage to any kind of tokenizer gives an error or a tokenizer, never a trap.
    @Test(arguments: GoldenCases.folders)
    func survivesMutations(_ folder: String) throws {
        let original = try GoldenCases.document(folder).bytes
        guard original.count < 60_000 else { return }
        var random = RandomTexts(seed: UInt64(original.count))
        for _ in 0..<60 {
            var bytes = original
            for _ in 0...random.next(3) {
                // The front holds the components, the rest the vocabulary.
                let position = random.next(random.next(2) == 0 ? min(6000, bytes.count) : bytes.count)
                switch random.next(3) {
                case 0: bytes[position] = UInt8(random.next(128))
                case 1: bytes.removeSubrange(position..<min(bytes.count, position + 1 + random.next(30)))
                default: bytes[position] = UInt8(0x30 + random.next(10))
                }
            }
            guard let tokenizer = try? Tokenizer(jsonData: Data(bytes)) else { continue }
            let text = random.text(length: 60)
            let encoding = try? tokenizer.encoding(text, "b", addSpecialTokens: true)
            _ = tokenizer.decode(encoding?.ids ?? [1, 2, 3], skipSpecialTokens: false)
            var stream = StreamingDetokenizer(tokenizer)
            for id in encoding?.ids.prefix(20) ?? [] { _ = stream.push(id) }
            _ = stream.flush()
        }
    }
}

@Suite struct GoldenComponentTests {
    @Test(arguments: ["normalizer", "pre_tokenizer", "decoder"])
    func components(_ kind: String) throws {
        var failures = Failures()
        var places: [String: Int] = [:]
        for row in try GoldenCases.rows("components.jsonl") where row["component"]!.string == kind {
            let config = row["config"]!
            let text: String
            let wanted: String
            switch kind {
            case "normalizer":
                var input = AlignedText(row["input"]!.stringBytes!, origin: 0, isTracked: false)
                try Normalizer(config, at: "normalizer").normalize(&input)
                text = String(decoding: input.bytes, as: UTF8.self)
                wanted = row["output"]!.string!
            case "decoder":
                let tokens = row["input"]!.elements.map { $0.stringBytes! }
                text = String(decoding: try Decoder(config, at: "decoder").decode(tokens).joined(), as: UTF8.self)
                wanted = row["output"]!.string!
            default:
                text = try pieces(of: row["input"]!.string!, config)
                wanted = row["output"]!.elements.map { node in
                    "\(node.elements[0].string!)|\(node.elements[1].ranges0)"
                }.joined(separator: "\n")
            }
            if !same(text, wanted) {
                let bytes = config.document.bytes
                places[String(decoding: bytes.prefix(220), as: UTF8.self), default: 0] += 1
                failures.add("\(String(decoding: bytes.prefix(500), as: UTF8.self))\n got \(text.debugDescription)")
            }
        }
        #expect(failures.count == 0, "\(failures.summary)\n\(places.values)")
    }

    private func pieces(of text: String, _ config: JSONNode) throws -> String {
        let step = try PreTokenizer(config, at: "pre_tokenizer")
        let input = AlignedText(Array(text.utf8), origin: 0, isTracked: true)
        var pieces = Pieces(input, startsText: true)
        try step.apply(to: &pieces)
        var before: [Int: Int] = [0: 0]
        var bytes = 0
        for (count, scalar) in text.unicodeScalars.enumerated() {
            bytes += UTF8.width(scalar)
            before[bytes] = count + 1
        }
        return pieces.list.map { piece in
            let origin = pieces.text.origin(of: piece.start..<piece.end)
            let spelling = String(decoding: pieces.text.bytes[piece.start..<piece.end], as: UTF8.self)
            return "\(spelling)|\(before[origin.lowerBound] ?? -1)..<\(before[origin.upperBound] ?? -1)"
        }.joined(separator: "\n")
    }

    @Test func unicodeClasses() throws {
        guard let root = Golden.directory("tokenizers") else { return }
        let data = try Data(contentsOf: root.appending(path: "unicode_classes.json"))
        let document = try JSONDocument(Array(data))
        try document.root.forEachMember { key, value in
            let name = JSONNode(document: document, index: key).string!
            let wanted = JSONNode(document: document, index: value).ranges0List
            guard case .set(let set) = try PatternParser.parse(name) else {
                Issue.record("\(name) is no set")
                return
            }
            // The files leave out what no text can hold: surrogates.
            let surrogates = ScalarSet([0xD800...0xDFFF]).inverted
            #expect(set.intersection(surrogates).ranges == ScalarSet(wanted).intersection(surrogates).ranges, "\(name)")
        }
    }
}

extension JSONNode {
    fileprivate var ranges0: Range<Int> { let pair = ints; return pair[0]..<pair[1] }
    fileprivate var ranges0List: [ClosedRange<UInt32>] {
        elements.map {
            let pair = $0.ints; return UInt32(pair[0])...UInt32(pair[1])
        }
    }
}

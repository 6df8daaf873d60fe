internal import Foundation
internal import Tokenizers

/// A `tokenizer.json`: loaded, then texts to ids and back.
public struct TokenizerTarget: FuzzTarget {
    public static let name = "tokenizer"
    public static let fileSuffixes = ["tokenizer.json"]

    public init() {}

    public func seeds() -> [[UInt8]] { TokenizerSeeds.all.map { Array($0.utf8) } }

    public func mutate(_ input: inout [UInt8], splicing other: [UInt8], _ random: inout FuzzRandom) {
        if random.chance(percent: 80) {
            input = JSONMutator(input).mutated(splicing: other, &random)
        } else {
            ByteMutator.mutate(&input, splicing: other, &random)
        }
    }

    public func run(_ input: [UInt8]) throws {
        try TokenizerExercise.run(Tokenizer(jsonData: Data(input)))
    }
}

/// What is done with any tokenizer that loads.
enum TokenizerExercise {
    private static let texts = [
        "", " ", "Hello, world! It's 12345 o'clock.\n\n  def f(x):\treturn x",
        "naïve e\u{301} ﬁ ½ Ａ１ \u{212B} İstanbul",
        "你好世界 こんにちは カタカナ 한국어 สวัสดี", "👩‍👩‍👧🏽 😀\u{0}\u{FFFD}\u{FEFF}\u{2581}Ġ<0x41><s></s>[CLS]",
        "a" + String(repeating: " ", count: 70) + String(repeating: "ab", count: 60),
    ]

    /// - Throws: the first error of encoding, when all has been tried.
    static func run(_ tokenizer: Tokenizer) throws {
        var failure: (any Error)?
        for (number, text) in texts.enumerated() {
            do {
                try use(
                    tokenizer, text, second: number % 2 == 0 ? nil : "second text", addSpecialTokens: number % 3 > 0)
            } catch let error as BrokenProperty {
                throw error
            } catch {
                failure = failure ?? error
            }
        }
        for id in [Int32.min, -1, 0, Int32(tokenizer.vocabularyCount), Int32.max] {
            _ = tokenizer.token(for: id)
            _ = tokenizer.decode([id, 0, id])
        }
        _ = try tokenizer.withoutTruncationAndPadding()
        if let failure { throw failure }
    }

    private static func use(_ tokenizer: Tokenizer, _ text: String, second: String?, addSpecialTokens: Bool) throws {
        let ids = try tokenizer.encode(text, addSpecialTokens: addSpecialTokens)
        let encoding = try tokenizer.encoding(text, second, addSpecialTokens: addSpecialTokens)
        let counts = [
            encoding.tokens.count, encoding.typeIDs.count, encoding.byteOffsets.count, encoding.characterOffsets.count,
            encoding.specialTokensMask.count, encoding.attentionMask.count,
        ]
        try require(
            counts.allSatisfy { $0 == encoding.ids.count }, "the lists of an encoding differ in length: \(counts)")
        let bytes = max(text.utf8.count, second?.utf8.count ?? 0)
        let scalars = max(text.unicodeScalars.count, second?.unicodeScalars.count ?? 0)
        for (byteRange, characterRange) in zip(encoding.byteOffsets, encoding.characterOffsets) {
            try require(
                byteRange.lowerBound >= 0 && byteRange.upperBound <= bytes, "offset \(byteRange) of \(bytes) bytes")
            try require(
                characterRange.lowerBound >= 0 && characterRange.upperBound <= scalars,
                "offset \(characterRange) of \(scalars) characters")
        }
        try require(ids.allSatisfy { $0 >= 0 }, "a negative id")
        for skips in [true, false] {
            _ = tokenizer.decode(ids, skipSpecialTokens: skips)
            var stream = StreamingDetokenizer(tokenizer, skipSpecialTokens: skips)
            for id in ids.prefix(64) { _ = stream.push(id) }
            _ = stream.flush()
        }
    }
}

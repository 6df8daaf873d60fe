/// Turns ids into text one at a time, as a sampler gives them, and never shows half a character.
///
/// The pieces are those of the `DecodeStream` of `tokenizers`: text comes out once it cannot change any more with the
/// next token. A U+FFFD at the end is held back, since the next token may make a character of it.
public struct StreamingDetokenizer: Sendable {
    private let tokenizer: Tokenizer
    private let skipsSpecialTokens: Bool
    /// Byte-level decoders: the bytes not shown yet.
    private var pendingBytes: [UInt8] = []
    /// Others: the ids that later text may hang on, and how much of them is shown.
    private var ids: [Int32] = []
    private var shown: [UInt8] = []
    private var shownCount = 0

    public init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool = true) {
        self.tokenizer = tokenizer
        skipsSpecialTokens = skipSpecialTokens
    }

    private var isByteLevel: Bool {
        if case .byteLevel = tokenizer.decoder { return true }
        return false
    }

    private static let replacement = Array("\u{FFFD}".utf8)

    private static func endsBroken(_ bytes: [UInt8]) -> Bool { bytes.suffix(3).elementsEqual(replacement) }

    /// Takes the next id and returns the text that it lets out, which may be empty.
    public mutating func push(_ id: Int32) -> String {
        if isByteLevel {
            let before = pendingBytes.count
            tokenizer.appendBytes(of: id, skipSpecialTokens: skipsSpecialTokens, to: &pendingBytes)
            guard pendingBytes.count > before, let text = Self.complete(pendingBytes) else { return "" }
            pendingBytes.removeAll(keepingCapacity: true)
            return text
        }
        if shown.isEmpty, !ids.isEmpty {
            let text = decode(ids)
            if !Self.endsBroken(text) { (shown, shownCount) = (text, ids.count) }
        }
        ids.append(id)
        let text = decode(ids)
        guard text.count > shown.count, !Self.endsBroken(text) else { return "" }
        let new: [UInt8]
        if text.starts(with: shown) {
            new = Array(text[shown.count...])
        } else {
            // What was shown has changed since (a run of byte tokens turned out broken): show what is new by itself.
            new = decode(Array(ids[shownCount...]))
        }
        let kept = ids.count - shownCount
        ids.removeFirst(shownCount)
        shown = decode(ids)
        shownCount = kept
        return String(decoding: new, as: UTF8.self)
    }

    /// What is still held back, broken characters as U+FFFD; then the stream begins anew.
    public mutating func flush() -> String {
        defer {
            pendingBytes.removeAll()
            ids.removeAll()
            shown.removeAll()
            shownCount = 0
        }
        if isByteLevel { return String(decoding: pendingBytes, as: UTF8.self) }
        let text = decode(ids)
        if text.starts(with: shown) { return String(decoding: text[shown.count...], as: UTF8.self) }
        return String(decoding: decode(Array(ids[shownCount...])), as: UTF8.self)
    }

    private func decode(_ ids: [Int32]) -> [UInt8] {
        tokenizer.decodedBytes(ids, skipSpecialTokens: skipsSpecialTokens)
    }

    /// The text of the bytes unless it ends in a broken character.
    private static func complete(_ bytes: [UInt8]) -> String? {
        let text = String(decoding: bytes, as: UTF8.self)
        return text.unicodeScalars.last == "\u{FFFD}" ? nil : text
    }
}

internal import Dispatch
internal import Synchronization

/// The tokens of one text as they come out of the model.
private struct TokenSink {
    var ids: [Int32] = []
    /// Where each comes from; only if offsets are asked for.
    var origins: [Range<Int>] = []
    var tokens: [String] = []
}

extension Tokenizer {
    /// The ids of a text.
    ///
    /// - Parameter addSpecialTokens: puts in what the post-processor's template says. Templates of chats hold these
    ///   tokens already: leave it off for rendered chats.
    /// - Throws: `TokenizerError`.
    public func encode(_ text: String, addSpecialTokens: Bool = false) throws -> [Int32] {
        if truncation == nil, padding == nil, !addSpecialTokens || postProcessor == nil {
            if postProcessor?.keepsSingleText ?? true { return try tokens(of: text, tracksOffsets: false).ids }
        }
        let sink = try tokens(of: text, tracksOffsets: false)
        return try finish([Encoding(sink, typeID: 0, characters: nil)], addSpecialTokens: addSpecialTokens).ids
    }

    /// A text, or a pair of them, with offsets, types and masks.
    ///
    /// - Throws: `TokenizerError`.
    public func encoding(_ text: String, _ second: String? = nil, addSpecialTokens: Bool = false) throws -> Encoding {
        var encodings: [Encoding] = []
        for (index, part) in [text, second].compactMap(\.self).enumerated() {
            let sink = try tokens(of: part, tracksOffsets: true)
            encodings.append(Encoding(sink, typeID: Int32(index), characters: CharacterIndex(part)))
        }
        return try finish(encodings, addSpecialTokens: addSpecialTokens)
    }

    /// The ids of many texts, in their order, whichever thread encodes them. Padding to the longest of the batch is applied
    /// if the file asks for it.
    ///
    /// - Parameter threads: how many to use; nil for as many as there are cores.
    /// - Throws: `TokenizerError` of the first text that has no encoding.
    public func encodeBatch(
        _ texts: [String], addSpecialTokens: Bool = false, threads: Int? = nil
    ) throws -> [[Int32]] {
        let workers = min(texts.count, max(1, threads ?? ProcessorCount.active))
        // Several texts at a time, so that short ones do not spend their time on the lock.
        let step = max(1, min(64, texts.count / max(1, workers * 8)))
        let results = Mutex<[Result<[Int32], any Error>?]>(Array(repeating: nil, count: texts.count))
        let next = Atomic<Int>(0)
        DispatchQueue.concurrentPerform(iterations: workers) { _ in
            while true {
                let start = next.wrappingAdd(step, ordering: .relaxed).oldValue
                guard start < texts.count else { return }
                let range = start..<min(start + step, texts.count)
                let part = range.map { index in
                    Result { try self.encode(texts[index], addSpecialTokens: addSpecialTokens) }
                }
                results.withLock { for (index, result) in zip(range, part) { $0[index] = result } }
            }
        }
        var rows = try results.withLock { $0 }.map { try $0!.get() }
        if let padding, padding.fixedLength == nil, let longest = rows.map(\.count).max() {
            for index in rows.indices where rows[index].count < longest {
                let missing = [Int32](repeating: padding.id, count: longest - rows[index].count)
                rows[index] = padding.isLeft ? missing + rows[index] : rows[index] + missing
            }
        }
        return rows
    }

    private func finish(_ encodings: [Encoding], addSpecialTokens: Bool) throws -> Encoding {
        var parts = encodings
        let added = addSpecialTokens ? postProcessor?.addedCount(isPair: parts.count > 1) ?? 0 : 0
        try truncation?.apply(to: &parts, reserved: added)
        if let postProcessor {
            parts = postProcessor.process(parts, addSpecialTokens: addSpecialTokens)
        }
        var whole = [parts.reduce(into: Encoding()) { $0.append($1) }]
        padding?.apply(to: &whole)
        return whole[0]
    }

    // MARK: - Text to tokens

    private func tokens(of text: String, tracksOffsets: Bool) throws -> TokenSink {
        var text = text
        return try text.withUTF8 { bytes in
            guard bytes.count < Int(Int32.max) / 2 else {
                throw TokenizerError(.cannotTruncate, "a text of \(bytes.count) bytes: split it below 1 GiB")
            }
            var sink = TokenSink()
            if !tracksOffsets { sink.ids.reserveCapacity(bytes.count / 4) }
            try withScratch { scratch in
                try rawFinder.forEachStretch(in: bytes) { token, start, end in
                    if let token {
                        sink.ids.append(token.id)
                        if tracksOffsets {
                            sink.origins.append(start..<max(start, end))
                            sink.tokens.append(String(decoding: bytes[start..<max(start, end)], as: UTF8.self))
                        }
                    } else {
                        let part = UnsafeBufferPointer(rebasing: bytes[start..<end])
                        try addTokens(of: part, origin: start, tracksOffsets, scratch, to: &sink)
                    }
                }
            }
            return sink
        }
    }

    /// Normalizes and tokenizes the text between two added tokens.
    private func addTokens(
        of part: UnsafeBufferPointer<UInt8>, origin: Int, _ tracksOffsets: Bool, _ scratch: EncoderScratch,
        to sink: inout TokenSink
    ) throws {
        var text = AlignedText(part, origin: origin, isTracked: tracksOffsets || alwaysTracks)
        try normalizer?.normalize(&text)
        if normalizedFinder.isEmpty {
            return try addTokens(of: text, startsText: origin == 0, tracksOffsets, scratch, to: &sink)
        }
        try text.bytes.withUnsafeBufferPointer { bytes in
            try normalizedFinder.forEachStretch(in: bytes) { token, start, end in
                if let token {
                    sink.ids.append(token.id)
                    if tracksOffsets {
                        sink.origins.append(text.origin(of: start..<max(start, end)))
                        sink.tokens.append(String(decoding: bytes[start..<max(start, end)], as: UTF8.self))
                    }
                } else {
                    let startsText = origin == 0 && start == 0
                    try addTokens(
                        of: text.slice(start..<end), startsText: startsText, tracksOffsets, scratch, to: &sink)
                }
            }
        }
    }

    /// Splits normalized text and tokenizes its pieces.
    private func addTokens(
        of text: AlignedText, startsText: Bool, _ tracksOffsets: Bool, _ scratch: EncoderScratch,
        to sink: inout TokenSink
    ) throws {
        if !text.isTracked, keepsRawBytes, let splitter = preTokenizer?.onlySplitter {
            // One known split and bytes: nothing needs to be kept of the pieces.
            try text.bytes.withUnsafeBufferPointer { bytes in
                var last = 0
                func add(_ start: Int, _ end: Int) throws {
                    guard end > start else { return }
                    scratch.tokens.removeAll(keepingCapacity: true)
                    try model.tokenize(UnsafeBufferPointer(rebasing: bytes[start..<end]), scratch)
                    for token in scratch.tokens { sink.ids.append(token.id) }
                }
                try splitter.forEachMatch(in: bytes) { start, end in
                    try add(last, start)
                    try add(start, end)
                    last = end
                }
                try add(last, bytes.count)
            }
            return
        }
        var pieces = Pieces(text, startsText: startsText)
        let isSpelledOut = tracksOffsets && keepsRawBytes && lacksBytes
        try preTokenizer?.apply(to: &pieces, keepsRawBytes: keepsRawBytes && !isSpelledOut)
        try pieces.text.bytes.withUnsafeBufferPointer { bytes in
            for piece in pieces.list {
                scratch.tokens.removeAll(keepingCapacity: true)
                try model.tokenize(
                    UnsafeBufferPointer(rebasing: bytes[piece.start..<piece.end]), scratch, isSpelledOut: isSpelledOut)
                for token in scratch.tokens { sink.ids.append(token.id) }
                if tracksOffsets { addOrigins(of: scratch.tokens, in: piece, pieces.text, to: &sink) }
            }
        }
    }

    private func addOrigins(of tokens: [ModelToken], in piece: Piece, _ text: AlignedText, to sink: inout TokenSink) {
        var start = 0
        var previousEnd = 0
        var previousMark: Int32 = 0
        for token in tokens {
            // A complemented end marks tokens that share one stretch of text.
            let end = Int(token.end < 0 ? ~token.end : token.end)
            if token.end >= 0 || token.end != previousMark { start = previousEnd }
            previousMark = token.end
            previousEnd = end
            let range = min(piece.start + start, piece.end)..<min(piece.start + max(start, end), piece.end)
            sink.origins.append(text.origin(of: range))
            let isUnknown = model.unknownIsSpelledAsText && token.id == model.unknownID
            let spelling = isUnknown ? text.bytes[range] : model.vocabulary.spelling(token.id) ?? []
            sink.tokens.append(String(decoding: spelling, as: UTF8.self))
        }
    }
}

extension PreTokenizer {
    /// The one split that it comes down to when bytes are kept.
    fileprivate var onlySplitter: PatternSplitter? {
        switch self {
        case .byteLevel(false, let splitter): return splitter
        case .sequence(let steps):
            guard steps.count == 2, case .split(_, .isolated, _, let splitter) = steps[0],
                case .byteLevel(false, nil) = steps[1]
            else { return nil }
            return splitter
        default: return nil
        }
    }
}

extension PostProcessor {
    /// Whether it leaves the ids of a single text as they are when no special tokens are added.
    fileprivate var keepsSingleText: Bool {
        switch self {
        case .sequence(let steps): steps.allSatisfy(\.keepsSingleText)
        case .template(let single, _): single.filter { $0.ids == nil }.map(\.isSecondText) == [false]
        default: true
        }
    }
}

/// How many scalars come before each byte of a text.
private struct CharacterIndex {
    private let counts: [Int32]

    init(_ text: String) {
        var counts: [Int32] = []
        counts.reserveCapacity(text.utf8.count + 1)
        var scalars: Int32 = 0
        for byte in text.utf8 {
            counts.append(scalars)
            // Inside of a scalar the count is that of its end; its first byte has that of its start.
            if byte & 0xC0 != 0x80 { scalars += 1 }
        }
        counts.append(scalars)
        self.counts = counts
    }

    func range(_ bytes: Range<Int>) -> Range<Int> {
        let last = counts.count - 1
        return Int(counts[min(bytes.lowerBound, last)])..<Int(counts[min(bytes.upperBound, last)])
    }
}

extension Encoding {
    fileprivate init(_ sink: TokenSink, typeID: Int32, characters: CharacterIndex?) {
        let count = sink.ids.count
        ids = sink.ids
        tokens = sink.tokens
        typeIDs = [Int32](repeating: typeID, count: count)
        if characters == nil { tokens = [String](repeating: "", count: count) }
        if let characters {
            byteOffsets = sink.origins
            characterOffsets = sink.origins.map(characters.range)
        } else {
            byteOffsets = [Range<Int>](repeating: 0..<0, count: count)
            characterOffsets = byteOffsets
        }
        specialTokensMask = [UInt8](repeating: 0, count: count)
        attentionMask = [UInt8](repeating: 1, count: count)
    }
}

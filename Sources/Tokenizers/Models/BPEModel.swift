/// Byte-pair encoding (Sennrich et al., arXiv:1508.07909) with the variants that `tokenizers` has.
struct BPEModel: Sendable {
    var vocabulary: Vocabulary
    var merges: PairTable
    var unknownID: Int32?
    /// An unknown token that the vocabulary has not: an error once it is needed.
    var missingUnknown: String?
    var fusesUnknown = false
    var hasByteFallback = false
    var ignoresMerges = false
    var subwordPrefix: [UInt8] = []
    var wordSuffix: [UInt8] = []
    /// The ids of `<0x00>` to `<0xFF>`, if all that a character needs are there.
    private var fallbackIDs: [Int32] = []
    /// With raw bytes as symbols: the id of each byte, -1 if it has none.
    private(set) var byteIDs: [Int32] = []
    /// With raw bytes as symbols and `ignoresMerges`: whole pieces.
    private var rawTable: ByteTable?
    /// Blanks are marks, and words merge on their own as they do in the whole text.
    private(set) var splitsAtBlanks = false

    init(vocabulary: Vocabulary, merges: PairTable) {
        self.vocabulary = vocabulary
        self.merges = merges
    }

    /// Looks up what encoding needs once, after all options are set.
    mutating func prepare() {
        fallbackIDs = []
        if hasByteFallback {
            fallbackIDs = (0..<256).map { vocabulary.id(Self.fallbackSpelling(UInt8($0))) ?? -1 }
        }
        let known = vocabulary
        let spellings = (0..<known.idBound).lazy.map { Array(known.spelling(Int32($0)) ?? []) }
        splitsAtBlanks =
            !ignoresMerges && subwordPrefix.isEmpty && wordSuffix.isEmpty
            && BlankSplitter.canSplit(spellings, known)
    }

    static func fallbackSpelling(_ byte: UInt8) -> [UInt8] {
        let digits = Array("0123456789ABCDEF".utf8)
        return Array("<0x".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]] + Array(">".utf8)
    }

    /// Whether pieces may be given as raw bytes instead of in the byte alphabet.
    var canTakeRawBytes: Bool {
        guard subwordPrefix.isEmpty, wordSuffix.isEmpty else { return false }
        if !hasByteFallback, unknownID == nil, missingUnknown == nil { return true }
        return ByteAlphabet.scalars.allSatisfy { vocabulary.id(Array(UTF8Scanner.encode($0))) != nil }
    }

    /// Whether bytes have no token. The reference counts offsets in the byte alphabet less what it dropped: to agree, the
    /// piece must be spelled out.
    var lacksBytes: Bool { byteIDs.contains(-1) }

    mutating func takeRawBytes() {
        splitsAtBlanks = false
        byteIDs = ByteAlphabet.scalars.map { vocabulary.id(Array(UTF8Scanner.encode($0))) ?? -1 }
        guard ignoresMerges else { return }
        var table = ByteTable(capacity: vocabulary.count)
        var raw: [UInt8] = []
        for id in 0..<vocabulary.idBound {
            raw.removeAll(keepingCapacity: true)
            guard vocabulary.withSpelling(id, { ByteAlphabet.appendBytes(of: $0, to: &raw) }), !raw.isEmpty else {
                continue
            }
            // Of ids with one spelling the table's own counts.
            guard vocabulary.withSpelling(id, { vocabulary.table.value(for: $0) }) == Int32(id) else { continue }
            raw.withUnsafeBufferPointer { table.set($0, to: Int32(id)) }
        }
        rawTable = table
    }

    /// Appends the tokens of one piece to `scratch.tokens`.
    ///
    /// - Throws: `TokenizerError` (`unknownToken`) where an unknown token is needed and the vocabulary has none.
    func tokenize(_ piece: UnsafeBufferPointer<UInt8>, _ scratch: EncoderScratch, isSpelledOut: Bool = false) throws {
        let isRaw = !byteIDs.isEmpty && !isSpelledOut
        if ignoresMerges, let id = isRaw ? rawTable?.value(for: piece) : vocabulary.table.value(for: piece) {
            scratch.tokens.append(ModelToken(id: id, end: Int32(piece.count)))
            return
        }
        scratch.merger.reset()
        if isRaw {
            byteIDs.withUnsafeBufferPointer { ids in
                var length: Int32 = 0
                for byte in piece {
                    let id = ids[Int(byte)]
                    // A byte that the vocabulary has not is dropped, and takes no room in the offsets either.
                    guard id >= 0 else { continue }
                    length += 1
                    scratch.merger.append(id, end: length)
                }
            }
        } else {
            try addSymbols(of: piece, scratch)
        }
        scratch.merger.merge(merges)
        for index in scratch.merger.ids.indices {
            scratch.tokens.append(ModelToken(id: scratch.merger.ids[index], end: scratch.merger.ends[index]))
        }
    }

    private func addSymbols(of piece: UnsafeBufferPointer<UInt8>, _ scratch: EncoderScratch) throws {
        var end: Int32 = 0
        var pendingUnknown: Int32?
        func add(_ id: Int32, _ length: Int32) {
            end += length
            scratch.merger.append(id, end: end)
        }
        var position = 0
        let isPlain = subwordPrefix.isEmpty && wordSuffix.isEmpty
        while position < piece.count {
            let length = min(UTF8Scanner.length(of: piece[position]), piece.count - position)
            let isFirst = position == 0
            let isLast = position + length == piece.count
            let symbol = UnsafeBufferPointer(rebasing: piece[position..<position + length])
            position += length
            var found: Int32?
            if isPlain {
                found = vocabulary.table.value(for: symbol)
            } else {
                scratch.bytes.removeAll(keepingCapacity: true)
                if !isFirst { scratch.bytes.append(contentsOf: subwordPrefix) }
                scratch.bytes.append(contentsOf: symbol)
                if isLast { scratch.bytes.append(contentsOf: wordSuffix) }
                found = vocabulary.id(scratch.bytes)
            }
            if let found {
                if let unknown = pendingUnknown, let unknownID {
                    add(unknownID, unknown)
                    pendingUnknown = nil
                }
                add(found, Int32(length))
                continue
            }
            if hasByteFallback {
                let isCovered: Bool
                if isPlain {
                    isCovered = symbol.allSatisfy { fallbackIDs[Int($0)] >= 0 }
                    if isCovered { for byte in symbol { add(fallbackIDs[Int(byte)], 1) } }
                } else {
                    isCovered = scratch.bytes.allSatisfy { fallbackIDs[Int($0)] >= 0 }
                    if isCovered { for byte in scratch.bytes { add(fallbackIDs[Int(byte)], 1) } }
                }
                // An unknown run before stays pending and comes after these bytes, as in the reference.
                if isCovered { continue }
            }
            if let missingUnknown {
                throw TokenizerError(.unknownToken, "the unknown token '\(missingUnknown)' is not in the vocabulary")
            }
            guard let unknownID else { continue }
            if let unknown = pendingUnknown {
                if fusesUnknown {
                    pendingUnknown = unknown + Int32(length)
                } else {
                    add(unknownID, unknown)
                    pendingUnknown = Int32(length)
                }
            } else {
                pendingUnknown = Int32(length)
            }
        }
        if let unknown = pendingUnknown, let unknownID { add(unknownID, unknown) }
    }
}

/// A step that splits text into pieces.
indirect enum PreTokenizer: Sendable {
    case sequence([PreTokenizer])
    case byteLevel(addsPrefixSpace: Bool, splits: PatternSplitter?)
    case split(TextPattern, SplitBehavior, invert: Bool, PatternSplitter?)
    case whitespace
    case whitespaceSplit
    case bert
    case punctuation(SplitBehavior)
    case metaspace(Metaspace)
    case digits(individual: Bool)
    case delimiter(UnicodeScalar)
    case unicodeScripts
    case fixedLength(Int)

    /// - Parameter keepsRawBytes: leaves out the byte alphabet of `ByteLevel`: the model takes bytes.
    func apply(to pieces: inout Pieces, keepsRawBytes: Bool = false) throws {
        switch self {
        case .sequence(let steps):
            let limit = AlignedText.largest(madeFrom: pieces.text.bytes.count)
            for (index, step) in steps.enumerated() {
                try step.apply(to: &pieces, keepsRawBytes: keepsRawBytes && index == steps.count - 1)
                try pieces.text.checkSize(limit)
            }
        case .byteLevel(let addsPrefixSpace, let splitter):
            if addsPrefixSpace { pieces.rewrite { text, _ in if text.bytes.first != 0x20 { text.prepend([0x20]) } } }
            if let splitter { try pieces.split(.isolated) { try splitter.forEachMatch(in: $0, $1) } }
            if !keepsRawBytes { pieces.rewrite { text, _ in ByteAlphabet.encode(&text) } }
        case .split(let pattern, let behavior, let invert, let splitter):
            if let splitter, behavior == .isolated {
                try pieces.split(.isolated) { try splitter.forEachMatch(in: $0, $1) }
            } else {
                try pieces.split(behavior, invert: invert) { try pattern.forEachMatch(in: $0, $1) }
            }
        case .whitespace: try Self.splitWords(&pieces)
        case .whitespaceSplit: try pieces.split(.removed, at: UnicodeProperties.whitespace)
        case .bert:
            try pieces.split(.removed, at: UnicodeProperties.whitespace)
            try pieces.split(.isolated, at: UnicodeProperties.punctuation)
        case .punctuation(let behavior): try pieces.split(behavior, at: UnicodeProperties.punctuation)
        case .metaspace(let metaspace): try metaspace.apply(to: &pieces)
        case .digits(let individual):
            try pieces.split(individual ? .isolated : .contiguous, at: UnicodeProperties.numeric)
        case .delimiter(let scalar): try pieces.split(.removed, at: ScalarSet([scalar.value...scalar.value]))
        case .unicodeScripts: ScriptSplitter.shared.apply(to: &pieces)
        case .fixedLength(let length): try Self.splitEvenly(&pieces, length)
        }
    }

    /// `\w+|[^\w\s]+`, all else dropped.
    private static func splitWords(_ pieces: inout Pieces) throws {
        let word = UnicodeProperties.rustWord
        let space = UnicodeProperties.whitespace
        func kind(_ scalar: UInt32) -> Int { word.contains(scalar) ? 1 : space.contains(scalar) ? 0 : 2 }
        try pieces.split(.removed, invert: true) { part, found in
            var position = 0
            var start = 0
            var current = 0
            while position < part.count {
                let (scalar, length) = UTF8Scanner.scalar(in: part, at: position)
                let next = kind(scalar)
                if next != current {
                    if current != 0 { found(start, position) }
                    start = position
                    current = next
                }
                position += length
            }
            if current != 0 { found(start, position) }
        }
    }

    private static func splitEvenly(_ pieces: inout Pieces, _ length: Int) throws {
        try pieces.split(.isolated) { part, found in
            var position = 0
            var start = 0
            var count = 0
            while position < part.count {
                position = min(part.count, position + UTF8Scanner.length(of: part[position]))
                count += 1
                if count == length {
                    found(start, position)
                    start = position
                    count = 0
                }
            }
            if start < position { found(start, position) }
        }
    }

    /// Whether what it does depends on where the user's text begins, behind other steps.
    var asksForTextStart: Bool {
        switch self {
        case .metaspace(let metaspace): metaspace.scheme == .first
        case .sequence(let steps): steps.contains(where: \.asksForTextStart)
        default: false
        }
    }

    /// Whether the last step is `ByteLevel`.
    var endsInByteLevel: Bool {
        switch self {
        case .byteLevel: true
        case .sequence(let steps): steps.last?.endsInByteLevel ?? false
        default: false
        }
    }
}

/// SentencePiece's way with blanks: each becomes a visible mark, and one may be put before the text.
struct Metaspace: Sendable {
    enum Scheme: String, Sendable { case always, first, never }

    let replacement: [UInt8]
    let scheme: Scheme
    let splits: Bool

    func apply(to pieces: inout Pieces) throws {
        let blank = TextPattern.literal([0x20])
        try pieces.rewrite { text, startsText in
            try text.replace(blank, with: replacement)
            let isPrepended = scheme == .always || scheme == .first && startsText
            if isPrepended, !text.bytes.starts(with: replacement) { text.prepend(replacement) }
        }
        guard splits else { return }
        let pattern = TextPattern.literal(replacement)
        try pieces.split(.mergedWithNext) { try pattern.forEachMatch(in: $0, $1) }
    }
}

/// Splits between scripts; the kana count as Han and blanks as any script.
struct ScriptSplitter: Sendable {
    static let shared = ScriptSplitter()
    private let ranges: [(bounds: ClosedRange<UInt32>, script: Int)]

    private init() {
        let lists = NumberList.ranges(
            ofRuns: UnicodeScriptData.preTokenizerRuns, values: UnicodeScriptData.names.count)
        ranges = lists.enumerated().dropFirst().flatMap { script, list in list.map { ($0, script) } }
            .sorted { $0.0.lowerBound < $1.0.lowerBound }
    }

    private func script(of scalar: UInt32) -> Int {
        var low = 0
        var high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].bounds.upperBound < scalar { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].bounds.contains(scalar) ? ranges[low].script : 0
    }

    func apply(to pieces: inout Pieces) {
        var result: [Piece] = []
        for piece in pieces.list {
            // What comes before the first scalar of a script is dropped, as in the reference.
            var starts: [Int] = []
            var last = -1
            pieces.text.slice(piece.start..<piece.end).forEachScalar { scalar, position, _ in
                let script = script(of: scalar)
                guard script != 0 else { return }
                if script != last { starts.append(position) }
                last = script
            }
            for (index, start) in starts.enumerated() {
                let end = index + 1 < starts.count ? starts[index + 1] : piece.end - piece.start
                result.append(
                    Piece(
                        start: piece.start + start, end: piece.start + end, startsText: piece.startsText && start == 0))
            }
        }
        pieces.replaceList(result)
    }
}

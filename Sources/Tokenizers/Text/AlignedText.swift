/// Where a byte of the text under way comes from: bytes `start..<end` of the text that the user gave.
struct Span: Hashable, Sendable {
    var start: Int32
    var end: Int32
}

/// A scalar that a normalizer puts out: 0 takes the place of the next input scalar, 1 is added after the one before,
/// -n takes the place of the next one and swallows n more.
struct ScalarChange {
    var scalar: UInt32
    var change: Int
}

/// UTF-8 text on its way through normalizers and pre-tokenizers, with the origin of every byte if that is asked for.
///
/// The rules by which origins pass through a change are those of the `NormalizedString` of `tokenizers`, so that offsets
/// agree with it.
struct AlignedText {
    private(set) var bytes: [UInt8]
    /// One span for each byte; empty unless `isTracked`.
    private(set) var spans: [Span]
    let isTracked: Bool

    /// - Parameter origin: the offset of `bytes` in the user's text.
    init(_ bytes: some Collection<UInt8>, origin: Int, isTracked: Bool) {
        self.bytes = Array(bytes)
        self.isTracked = isTracked
        spans = []
        guard isTracked else { return }
        spans.reserveCapacity(self.bytes.count)
        var position = 0
        while position < self.bytes.count {
            let length = min(UTF8Scanner.length(of: self.bytes[position]), self.bytes.count - position)
            let span = Span(start: Int32(origin + position), end: Int32(origin + position + length))
            for _ in 0..<length { spans.append(span) }
            position += length
        }
    }

    init(bytes: [UInt8], spans: [Span], isTracked: Bool) {
        self.bytes = bytes
        self.spans = spans
        self.isTracked = isTracked
    }

    var isASCII: Bool { bytes.withUnsafeBufferPointer { text in text.allSatisfy { $0 < 0x80 } } }

    /// Part of it, as a text of its own.
    func slice(_ range: Range<Int>) -> AlignedText {
        AlignedText(bytes: Array(bytes[range]), spans: isTracked ? Array(spans[range]) : [], isTracked: isTracked)
    }

    /// The user's bytes that the bytes of `range` come from.
    func origin(of range: Range<Int>) -> Range<Int> {
        guard !spans.isEmpty else { return 0..<0 }
        guard !range.isEmpty else {
            let at = Int(range.lowerBound < spans.count ? spans[range.lowerBound].start : spans[spans.count - 1].end)
            return at..<at
        }
        let start = Int(spans[range.lowerBound].start)
        return start..<max(start, Int(spans[range.upperBound - 1].end))
    }

    func forEachScalar(_ body: (_ scalar: UInt32, _ position: Int, _ length: Int) -> Void) {
        bytes.withUnsafeBufferPointer { text in
            var position = 0
            while position < text.count {
                let (scalar, length) = UTF8Scanner.scalar(in: text, at: position)
                body(scalar, position, length)
                position += length
            }
        }
    }

    /// Appends `range` of another text, origins included.
    mutating func append(_ other: AlignedText, _ range: Range<Int>) {
        bytes.append(contentsOf: other.bytes[range])
        if isTracked { spans.append(contentsOf: other.spans[range]) }
    }

    /// Appends bytes that all come from one place.
    mutating func append(_ added: some Sequence<UInt8>, from span: Span) {
        let before = bytes.count
        bytes.append(contentsOf: added)
        if isTracked { spans.append(contentsOf: repeatElement(span, count: bytes.count - before)) }
    }

    static func empty(like other: AlignedText) -> AlignedText {
        AlignedText(bytes: [], spans: [], isTracked: other.isTracked)
    }

    func span(at position: Int) -> Span { isTracked ? spans[position] : Span(start: 0, end: 0) }

    /// From where the first byte of `range` comes to where the last does.
    func span(over range: Range<Int>) -> Span {
        Span(start: spans[range.lowerBound].start, end: spans[range.upperBound - 1].end)
    }

    /// Keeps the scalars that pass.
    mutating func filter(_ isKept: (UInt32) -> Bool) {
        var result = AlignedText.empty(like: self)
        var hasDropped = false
        forEachScalar { scalar, position, length in
            if isKept(scalar) { result.append(self, position..<position + length) } else { hasDropped = true }
        }
        if hasDropped { self = result }
    }

    /// Puts other scalars in the place of each; the first takes its place and the rest are added to it.
    mutating func map(_ replacement: (UInt32) -> [UInt32]?) {
        var result = AlignedText.empty(like: self)
        var hasChanged = false
        forEachScalar { scalar, position, length in
            guard let scalars = replacement(scalar) else {
                result.append(self, position..<position + length)
                return
            }
            hasChanged = true
            for scalar in scalars { result.append(UTF8Scanner.encode(scalar), from: span(at: position)) }
        }
        if hasChanged { self = result }
    }

    /// How large steps may make a text of `count` bytes: a file's replacements that double it, one after the other, must
    /// not fill the memory. The widest step that real files have makes 33 bytes of 3.
    static func largest(madeFrom count: Int) -> Int { 4096 + 32 * count }

    func checkSize(_ limit: Int) throws {
        guard bytes.count <= limit else {
            throw TokenizerError(
                .cannotTruncate,
                "the tokenizer's own replacements make a text of over \(limit) bytes out of a short one")
        }
    }

    /// Puts `prefix` before the text, unless the text is empty. All of it comes from where the first scalar does.
    mutating func prepend(_ prefix: [UInt8]) {
        guard !bytes.isEmpty else { return }
        var result = AlignedText.empty(like: self)
        result.append(prefix, from: span(at: 0))
        result.append(self, 0..<bytes.count)
        self = result
    }

    /// Puts `content` in the place of each match; it comes from where the match's last scalar does.
    ///
    /// - Throws: `TokenizerError` (`cannotTruncate`) once the result would have more than `limit` bytes.
    mutating func replace(_ pattern: TextPattern, with content: [UInt8], limit: Int = .max) throws {
        var result = AlignedText.empty(like: self)
        var lastEnd = 0
        try bytes.withUnsafeBufferPointer { text in
            try pattern.forEachMatch(in: text) { start, end in
                result.append(self, lastEnd..<start)
                try result.checkSize(limit - min(content.count, limit))
                if end > 0 || !isTracked {
                    result.append(content, from: isTracked ? spans[end - 1] : Span(start: 0, end: 0))
                } else {
                    result.append(content, from: Span(start: 0, end: 0))
                }
                lastEnd = end
            }
        }
        if lastEnd == 0, result.bytes.isEmpty { return }
        result.append(self, lastEnd..<bytes.count)
        self = result
    }

    /// Rewrites the whole text as `changes` says.
    mutating func transform(_ changes: [ScalarChange]) {
        var result = AlignedText.empty(like: self)
        result.bytes.reserveCapacity(bytes.count)
        var position = 0
        func skipScalar() {
            if position < bytes.count {
                position = min(bytes.count, position + UTF8Scanner.length(of: bytes[position]))
            }
        }
        for change in changes {
            var span = Span(start: 0, end: 0)
            if isTracked, !spans.isEmpty {
                if change.change > 0 {
                    if position > 0 { span = spans[position - 1] }
                } else {
                    span = spans[min(position, spans.count - 1)]
                }
            }
            result.append(UTF8Scanner.encode(change.scalar), from: span)
            if change.change <= 0 {
                for _ in 0...(-change.change) { skipScalar() }
            }
        }
        self = result
    }
}

extension UTF8Scanner {
    static func encode(_ value: UInt32) -> UTF8.CodeUnits {
        UTF8.CodeUnits(value)
    }
}

extension UTF8 {
    /// The UTF-8 of one scalar.
    struct CodeUnits: Sequence, IteratorProtocol {
        private var value: UInt32
        private var left: Int

        init(_ scalar: UInt32) {
            switch scalar {
            case 0..<0x80: (value, left) = (scalar, 1)
            case 0x80..<0x800: (value, left) = (0xC080 | (scalar >> 6) << 8 | scalar & 0x3F, 2)
            case 0x800..<0x10000:
                (value, left) = (0xE08080 | (scalar >> 12) << 16 | (scalar >> 6 & 0x3F) << 8 | scalar & 0x3F, 3)
            default:
                value = 0xF080_8080 | (scalar >> 18) << 24 | (scalar >> 12 & 0x3F) << 16
                value |= (scalar >> 6 & 0x3F) << 8 | scalar & 0x3F
                left = 4
            }
        }

        mutating func next() -> UInt8? {
            guard left > 0 else { return nil }
            left -= 1
            return UInt8(truncatingIfNeeded: value >> UInt32(left * 8))
        }
    }
}

/// Text that comes in pieces, cut at marks, however the pieces cut them.
struct MarkedText {
    private var bytes: [UInt8] = []
    /// Where what is not yet taken begins: taking from the front does not move the rest each time.
    private var start = 0
    /// Bytes behind ``start`` in which the mark last looked for was not found.
    private var searched = 0

    var count: Int { bytes.count - start }
    var text: String { String(decoding: bytes[start...], as: UTF8.self) }

    mutating func append(_ text: String) {
        if start > 4096, start > bytes.count / 2 {
            bytes.removeFirst(start)
            start = 0
        }
        bytes += text.utf8
    }

    /// All that is left.
    mutating func takeAll() -> String {
        let rest = text
        bytes = []
        (start, searched) = (0, 0)
        return rest
    }

    mutating func drop(_ count: Int) {
        start += count
        searched = 0
    }

    /// What stands before the first `mark`, which goes too; nil when it is not there yet.
    mutating func take(upTo mark: String) -> String? {
        let mark = Array(mark.utf8)
        // A mark that began in an earlier piece may end in this one.
        let from = start + max(0, searched - mark.count + 1)
        guard let place = bytes[from...].firstPlace(of: mark) else {
            searched = count
            return nil
        }
        let text = String(decoding: bytes[start..<place], as: UTF8.self)
        drop(place + mark.count - start)
        return text
    }

    /// What cannot be part of `mark`, nor of a character that is not whole yet.
    mutating func takeSafe(before mark: String) -> String {
        let mark = Array(mark.utf8)
        var end = bytes.count
        for length in stride(from: min(mark.count - 1, count), to: 0, by: -1)
        where bytes[(bytes.count - length)...].elementsEqual(mark.prefix(length)) {
            end = bytes.count - length
            break
        }
        let text = String(decoding: bytes[start..<end], as: UTF8.self)
        drop(end - start)
        return text
    }

    /// Whether the rest begins with `prefix`; nil when it is too short to tell.
    func begins(with prefix: String) -> Bool? {
        let prefix = Array(prefix.utf8), rest = bytes[start...].prefix(prefix.count)
        guard prefix.starts(with: rest) else { return false }
        return rest.count == prefix.count ? true : nil
    }

    /// Leading blanks and line breaks.
    var leadingSpace: Int { bytes[start...].prefix(while: Self.isSpace).count }

    static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 }
}

extension String {
    var trimmingSpace: String {
        var bytes = utf8[...]
        while let first = bytes.first, MarkedText.isSpace(first) { bytes.removeFirst() }
        while let last = bytes.last, MarkedText.isSpace(last) { bytes.removeLast() }
        return String(Substring(bytes))
    }
}

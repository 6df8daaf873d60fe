/// The elements of a JSON list, without a look into them: what brackets and quotes say.
struct JSONArraySplitter: RecordSplitter {
    private enum Place {
        case beforeList
        /// After `[`, where `]` may follow too.
        case atFirst
        case beforeElement
        case inContainer
        case inString
        /// In a number or a word.
        case inWord
        case afterElement
        case afterList
    }

    var start = 0
    var position = 0
    private(set) var line = 1
    private var place = Place.beforeList
    private var depth = 0
    private var isEscaped = false
    private var elementLine = 1

    mutating func next(
        in bytes: UnsafeBufferPointer<UInt8>, isEnd: Bool
    ) throws(SplitFailure) -> (range: Range<Int>, line: Int)? {
        while position < bytes.count {
            let byte = bytes[position]
            if place == .inString {
                stepInString(byte)
                if place == .afterElement { return taken(upTo: position) }
                continue
            }
            if place == .inWord, byte == UInt8(ascii: ",") || byte == UInt8(ascii: "]") || isSpace(byte) {
                place = .afterElement
                return taken(upTo: position)
            }
            position += 1
            if byte == UInt8(ascii: "\n") { line += 1 }
            if isSpace(byte) { continue }
            if try stepOutside(byte, bytes) { return taken(upTo: position) }
        }
        if place != .inContainer && place != .inString && place != .inWord { start = position }
        if isEnd, place != .afterList {
            throw SplitFailure(message: "the file ends inside its list: is it whole?", line: line)
        }
        return nil
    }

    private mutating func taken(upTo end: Int) -> (range: Range<Int>, line: Int) {
        defer { start = end }
        return (start..<end, elementLine)
    }

    private func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 }

    private mutating func stepInString(_ byte: UInt8) {
        position += 1
        if isEscaped {
            isEscaped = false
        } else if byte == UInt8(ascii: "\\") {
            isEscaped = true
        } else if byte == UInt8(ascii: "\"") {
            place = depth == 0 ? .afterElement : .inContainer
        } else if byte == UInt8(ascii: "\n") {
            // Not allowed, which the parser will say; the count stays right.
            line += 1
        }
    }

    /// Whether the byte, which is behind `position` already, ends an element.
    private mutating func stepOutside(
        _ byte: UInt8, _ bytes: UnsafeBufferPointer<UInt8>
    ) throws(SplitFailure) -> Bool {
        switch place {
        case .beforeList:
            if byte == UInt8(ascii: "[") {
                place = .atFirst
            } else if !(byteOrderMark.contains(byte) && line == 1 && position <= byteOrderMark.count) {
                throw SplitFailure(
                    message: "a .json file holds a list of objects, or an object on each line; this is neither",
                    line: line)
            }
        case .atFirst where byte == UInt8(ascii: "]"): place = .afterList
        case .beforeElement where byte == UInt8(ascii: "]"):
            throw SplitFailure(message: "a row is missing between ',' and ']'", line: line)
        case .atFirst, .beforeElement:
            start = position - 1
            elementLine = line
            begin(byte)
        case .inContainer:
            switch byte {
            case UInt8(ascii: "\""): place = .inString
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                depth -= 1
                if depth == 0 {
                    place = .afterElement
                    return true
                }
            default: break
            }
        case .afterElement:
            switch byte {
            case UInt8(ascii: ","): place = .beforeElement
            case UInt8(ascii: "]"): place = .afterList
            default: throw SplitFailure(message: "',' or ']' is missing between the list's rows", line: line)
            }
        case .afterList: throw SplitFailure(message: "text after the end of the list", line: line)
        case .inString, .inWord: break
        }
        return false
    }

    private mutating func begin(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            depth = 1
            place = .inContainer
        case UInt8(ascii: "\""): place = .inString
        default: place = .inWord
        }
    }
}

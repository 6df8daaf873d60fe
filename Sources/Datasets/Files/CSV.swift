/// Records of CSV (RFC 4180): lines, but for line ends inside quotes. Blank lines are none.
struct CSVSplitter: RecordSplitter {
    private enum Place { case fieldStart, plain, quoted, quoteInQuoted }

    let delimiter: UInt8
    var start = 0
    var position = 0
    private(set) var line = 1
    private var place = Place.fieldStart
    private var recordLine = 1
    private var isFirst = true

    init(delimiter: UInt8) { self.delimiter = delimiter }

    mutating func next(
        in bytes: UnsafeBufferPointer<UInt8>, isEnd: Bool
    ) throws(SplitFailure) -> (range: Range<Int>, line: Int)? {
        if isFirst, bytes.count >= byteOrderMark.count || isEnd {
            if bytes.starts(with: byteOrderMark) { (start, position) = (byteOrderMark.count, byteOrderMark.count) }
            isFirst = false
        }
        if isFirst { return nil }
        while position < bytes.count {
            let byte = bytes[position]
            position += 1
            if byte == UInt8(ascii: "\n") { line += 1 }
            switch place {
            case .quoted: if byte == UInt8(ascii: "\"") { place = .quoteInQuoted }
            case _ where byte == UInt8(ascii: "\n"):
                place = .fieldStart
                if let found = taken(bytes, upTo: position - 1) { return found }
            case .fieldStart where byte == UInt8(ascii: "\""): place = .quoted
            case .quoteInQuoted where byte == UInt8(ascii: "\""): place = .quoted
            case _ where byte == delimiter: place = .fieldStart
            case .quoteInQuoted where byte != 0x0D:
                throw SplitFailure(
                    message: "text after a closing quote; a quote inside a quoted field is written twice", line: line)
            case .plain where byte == UInt8(ascii: "\""):
                throw SplitFailure(
                    message: "a quote inside a field without quotes; put the field in quotes and write the quote twice",
                    line: line)
            case .quoteInQuoted: break
            case .fieldStart, .plain: place = .plain
            }
        }
        guard isEnd else { return nil }
        if place == .quoted {
            throw SplitFailure(message: "a quoted field that begins in this row is never closed", line: recordLine)
        }
        return start < bytes.count ? taken(bytes, upTo: bytes.count) : nil
    }

    private mutating func taken(
        _ bytes: UnsafeBufferPointer<UInt8>, upTo end: Int
    ) -> (range: Range<Int>, line: Int)? {
        let number = recordLine
        recordLine = line
        var range = start..<end
        start = position
        if let last = range.last, bytes[last] == 0x0D { range = range.lowerBound..<last }
        return range.isEmpty ? nil : (range, number)
    }
}

/// What the first record of a CSV file says, and how it makes objects of the others.
struct CSVHeader: Hashable, Sendable {
    let names: [String]
    let delimiter: UInt8
    /// The dotted parts of each name: `extra_info.index` is the member `index` of `extra_info`.
    private let paths: [[String]]

    init(_ record: UnsafeBufferPointer<UInt8>, delimiter: UInt8, path: String) throws {
        let origin = RowOrigin(source: path, line: 1)
        names = try Self.fields(record, delimiter: delimiter, origin: origin).map { field in
            guard let field, !field.isEmpty else {
                throw DatasetError(.malformedRow, "the header has a column without a name", origin: origin)
            }
            return field
        }
        self.delimiter = delimiter
        paths = names.map { $0.split(separator: ".", omittingEmptySubsequences: false).map(String.init) }
        var seen: Set<[String]> = []
        for (name, path) in zip(names, paths) {
            let isFree =
                seen.insert(path).inserted && !paths.contains { $0.count > path.count && $0.starts(with: path) }
            guard isFree, path.allSatisfy({ !$0.isEmpty }) else {
                throw DatasetError(
                    .malformedRow, "the header names '\(name)' twice, or as a value and as an object", origin: origin)
            }
        }
    }

    /// A record as an object of strings. A field that is empty and not in quotes is null; one that is the JSON of a list of
    /// messages, which a prompt is and plain text hardly is by chance, is that list.
    func object(_ record: UnsafeBufferPointer<UInt8>, origin: RowOrigin) throws -> JSONObject {
        let fields = try Self.fields(record, delimiter: delimiter, origin: origin)
        guard fields.count == names.count else {
            throw DatasetError(
                .malformedRow, "\(fields.count) fields, and the header has \(names.count)", origin: origin)
        }
        var object = JSONObject()
        for (path, field) in zip(paths, fields) {
            object.set(path[...], to: field.map(Self.value) ?? .null)
        }
        return object
    }

    private static func value(_ field: String) -> JSONValue {
        guard field.utf8.first == UInt8(ascii: "["), let value = try? JSONParser.parse(field),
            case .array(let turns) = value, !turns.isEmpty,
            turns.allSatisfy({ if case .object(let turn) = $0 { turn["role"] != nil } else { false } })
        else { return .string(field) }
        return value
    }

    private static func fields(
        _ record: UnsafeBufferPointer<UInt8>, delimiter: UInt8, origin: RowOrigin
    ) throws -> [String?] {
        func text(_ bytes: some Sequence<UInt8>) throws -> String {
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw DatasetError(.malformedRow, "invalid UTF-8", origin: origin)
            }
            return text
        }
        let quote = UInt8(ascii: "\"")
        var fields: [String?] = []
        var position = 0
        while true {
            if position < record.count, record[position] == quote {
                var bytes: [UInt8] = []
                position += 1
                while let end = record.firstIndex(of: quote, from: position) {
                    bytes += record[position..<end]
                    position = end + 1
                    guard position < record.count, record[position] == quote else { break }
                    bytes.append(quote)
                    position += 1
                }
                fields.append(try text(bytes))
            } else {
                let end = record.firstIndex(of: delimiter, from: position) ?? record.count
                fields.append(end == position ? nil : try text(record[position..<end]))
                position = end
            }
            if position >= record.count { return fields }
            position += 1
        }
    }
}

extension JSONObject {
    /// Sets a member of a member; null is left out inside of objects, so that an object of nothing is none.
    mutating func set(_ path: ArraySlice<String>, to value: JSONValue) {
        guard let name = path.first else { return }
        if path.count == 1 {
            members.append(.init(name: name, value: value))
            return
        }
        if value == .null { return }
        let place = members.firstIndex { $0.name.utf8.elementsEqual(name.utf8) }
        var inner = JSONObject()
        if let place, case .object(let object) = members[place].value { inner = object }
        inner.set(path.dropFirst(), to: value)
        let member = Member(name: name, value: .object(inner))
        if let place { members[place] = member } else { members.append(member) }
    }
}

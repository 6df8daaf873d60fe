internal import CArrow

/// What a column of a Parquet file holds, of the types that have a form in JSON.
indirect enum ArrowType {
    case null
    case bool
    case int(bytes: Int)
    case unsigned(bytes: Int)
    case half
    case float
    case double
    case decimal(scale: Int)
    /// Days since 1970.
    case date
    /// Milliseconds since 1970, at midnight.
    case dateInMilliseconds
    /// Ticks since 1970.
    case timestamp(ticksPerSecond: Int64, isUTC: Bool)
    /// Offsets are 64-bit where they are wide.
    case string(isWide: Bool)
    case list(ArrowType, isWide: Bool)
    case fixedList(ArrowType, size: Int)
    case object([Field])
    /// A map with string keys, which is an object too.
    case map(Field)
    case dictionary(index: ArrowType, values: ArrowType)

    struct Field {
        let name: String
        let type: ArrowType
    }

    /// Reads one level of the C Data Interface's format strings.
    /// - Throws: `DatasetError.badColumn` that names the column and its type.
    init(_ schema: ArrowSchema, path: String, column: String, depth: Int = 0) throws {
        let format = try ArrowSchema.text(schema.format, path: path)
        func refuse(_ kind: String) -> DatasetError {
            DatasetError(
                .badColumn, "'\(path)' has \(kind) there, which has no form in JSON; leave the column out",
                column: column)
        }
        guard depth < JSONParser.maximumDepth else { throw refuse("more than \(depth) levels of nesting") }
        func field(_ index: Int, _ name: String? = nil) throws -> Field {
            guard index < schema.n_children, let child = schema.child(index) else {
                throw DatasetError(.unreadable, "'\(path)': column '\(column)' lacks a part of its type")
            }
            let own = try ArrowSchema.text(child.name, path: path)
            let place = name ?? (column.isEmpty ? own : "\(column).\(own)")
            return Field(name: own, type: try ArrowType(child, path: path, column: place, depth: depth + 1))
        }
        if let dictionary = schema.dictionary {
            var plain = schema
            plain.dictionary = nil
            self = .dictionary(
                index: try ArrowType(plain, path: path, column: column, depth: depth + 1),
                values: try ArrowType(dictionary.pointee, path: path, column: column, depth: depth + 1))
            return
        }
        let parts = format.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        switch parts[0] {
        case "n": self = .null
        case "b": self = .bool
        case "c": self = .int(bytes: 1)
        case "s": self = .int(bytes: 2)
        case "i": self = .int(bytes: 4)
        case "l": self = .int(bytes: 8)
        case "C": self = .unsigned(bytes: 1)
        case "S": self = .unsigned(bytes: 2)
        case "I": self = .unsigned(bytes: 4)
        case "L": self = .unsigned(bytes: 8)
        case "e": self = .half
        case "f": self = .float
        case "g": self = .double
        case "u": self = .string(isWide: false)
        case "U": self = .string(isWide: true)
        case "tdD": self = .date
        case "tdm": self = .dateInMilliseconds
        case "tss", "tsm", "tsu", "tsn":
            let ticks: [String: Int64] = ["tss": 1, "tsm": 1_000, "tsu": 1_000_000, "tsn": 1_000_000_000]
            self = .timestamp(ticksPerSecond: ticks[parts[0]] ?? 1, isUTC: parts.count > 1 && !parts[1].isEmpty)
        case "d":
            // precision, scale, and the width where it is not 128.
            let numbers = (parts.count > 1 ? parts[1] : "").split(separator: ",").map { Int($0) }
            guard numbers.count == 2 || numbers.count == 3 && numbers[2] == 128, let scale = numbers[1], scale >= 0,
                scale <= 38
            else { throw refuse("decimals of a width or scale that is not supported (\(format))") }
            self = .decimal(scale: scale)
        case "+l", "+L": self = .list(try field(0, column + "[]").type, isWide: parts[0] == "+L")
        case "+w":
            guard let size = Int(parts.last ?? ""), size >= 0 else { throw refuse("a list type (\(format))") }
            self = .fixedList(try field(0, column + "[]").type, size: size)
        case "+s": self = .object(try (0..<Int(schema.n_children)).map { try field($0) })
        case "+m":
            guard case .object(let entry) = try field(0, column).type, entry.count == 2, case .string = entry[0].type
            else { throw refuse("a map whose keys are not text") }
            self = .map(entry[1])
        case "z", "Z", "w", "vz": throw refuse("binary data")
        case "ttm", "tts", "ttu", "ttn": throw refuse("times of day")
        case "tDs", "tDm", "tDu", "tDn", "tiM", "tiD", "tin": throw refuse("durations")
        default: throw refuse("a type that is not supported (\(format))")
        }
    }
}

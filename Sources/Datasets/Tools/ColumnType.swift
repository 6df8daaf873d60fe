/// The narrowest type that all values of a column have, for formats with types.
indirect enum ColumnType: Equatable {
    /// Only null so far.
    case unknown
    case bool
    case integer
    case number
    case string
    case list(ColumnType)
    case object([Member])

    struct Member: Equatable {
        let name: String
        var type: ColumnType
    }

    /// Takes in one more value.
    /// - Throws: `DatasetError.badColumn` for a value of another type than those before.
    mutating func widen(to value: JSONValue, column: String, origin: RowOrigin) throws {
        switch (self, value) {
        case (_, .null), (.bool, .bool), (.string, .string), (.number, .number): break
        case (.unknown, .bool): self = .bool
        case (.unknown, .string): self = .string
        case (.unknown, .number(let digits)), (.integer, .number(let digits)):
            self = Int64(digits) == nil ? .number : .integer
        case (.unknown, .array): try take(into: .list(.unknown), value, column: column, origin: origin)
        case (.unknown, .object): try take(into: .object([]), value, column: column, origin: origin)
        case (.list, .array), (.object, .object): try take(into: self, value, column: column, origin: origin)
        default:
            throw DatasetError(
                .badColumn, "is \(value.kind) here and \(kind) in rows before; Parquet needs one type", origin: origin,
                column: column)
        }
    }

    private mutating func take(into type: ColumnType, _ value: JSONValue, column: String, origin: RowOrigin) throws {
        switch (type, value) {
        case (.list(var element), .array(let elements)):
            for value in elements { try element.widen(to: value, column: column + "[]", origin: origin) }
            self = .list(element)
        case (.object(var members), .object(let object)):
            // Members mostly come in the order of the rows before.
            var next = 0
            for member in object.members {
                let isNext = next < members.count && members[next].name.utf8.elementsEqual(member.name.utf8)
                let place =
                    isNext
                    ? next : members.firstIndex { $0.name.utf8.elementsEqual(member.name.utf8) } ?? members.count
                if place == members.count { members.append(Member(name: member.name, type: .unknown)) }
                let name = column.isEmpty ? member.name : "\(column).\(member.name)"
                try members[place].type.widen(to: member.value, column: name, origin: origin)
                next = place + 1
            }
            self = .object(members)
        default: break
        }
    }

    private var kind: String {
        switch self {
        case .unknown: "null"
        case .bool: "a boolean"
        case .integer, .number: "a number"
        case .string: "a string"
        case .list: "a list"
        case .object: "an object"
        }
    }

    /// As the bridge's `write_json` reads it. A struct without members, which Parquet has no form for, is null.
    var text: String {
        switch self {
        case .unknown: "n"
        case .bool: "b"
        case .integer: "i"
        case .number: "d"
        case .string: "s"
        case .list(let element): "[" + element.text
        case .object(let members) where members.isEmpty: "n"
        case .object(let members):
            "{\(members.count) " + members.map { "\($0.name.utf8.count):\($0.name)\($0.type.text)" }.joined()
        }
    }
}

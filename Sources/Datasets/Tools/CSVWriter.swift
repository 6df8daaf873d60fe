/// Writes rows as CSV. Members of objects become columns of their own with a dotted name; lists are written as JSON; null is
/// an empty field, an empty text is `""`. Reads the rows twice: which columns there are shows only at the end.
struct CSVWriter {
    let delimiter: UInt8

    private struct Columns {
        var names: [String] = []
        var places: [String: Int] = [:]
        /// Columns that have a value other than null.
        var filled: Set<String> = []
        /// What stands before the dots.
        var objects: Set<String> = []
    }

    func write(_ input: RowStream, to path: String) throws -> Int {
        let columns = try columns(of: input)
        var file = try OutputFile(path: path)
        try file.append(line(columns.names.map(quotedWhereNeeded)))
        let count = try input.forEach { object, origin in
            var fields = Array(repeating: "", count: columns.names.count)
            try Self.forEachLeaf(object, origin: origin) { name, value in
                if let place = columns.places[name] { fields[place] = field(value) }
            }
            try file.append(line(fields))
        }
        try file.close()
        return count
    }

    private func columns(of input: RowStream) throws -> Columns {
        var columns = Columns()
        try input.forEach { object, origin in
            try Self.forEachLeaf(object, origin: origin) { name, value in
                if value != .null { columns.filled.insert(name) }
                guard columns.places[name] == nil else { return }
                columns.places[name] = columns.names.count
                columns.names.append(name)
                var parent = name[...]
                while let dot = parent.lastIndex(of: ".") {
                    parent = parent[..<dot]
                    columns.objects.insert(String(parent))
                }
            }
        }
        if let both = columns.names.first(where: { columns.objects.contains($0) && columns.filled.contains($0) }) {
            throw DatasetError(
                .badColumn, "holds objects in some rows and other values in others, which CSV has no form for",
                column: both)
        }
        // Where an object is null, its members' fields are empty.
        columns.names.removeAll(where: columns.objects.contains)
        columns.places = Dictionary(uniqueKeysWithValues: columns.names.enumerated().map { ($1, $0) })
        guard !columns.names.isEmpty else { throw DatasetError(.empty, "there are no columns to write") }
        return columns
    }

    /// Visits what is no object, with its dotted name. An object without members counts as null.
    private static func forEachLeaf(
        _ object: JSONObject, prefix: String = "", origin: RowOrigin, _ body: (String, JSONValue) throws -> Void
    ) throws {
        for member in object.members {
            guard !member.name.isEmpty, !member.name.utf8.contains(UInt8(ascii: ".")) else {
                throw DatasetError(
                    .badColumn, "CSV has no form for a name that is empty or has a dot", origin: origin,
                    column: prefix + member.name)
            }
            let name = prefix + member.name
            switch member.value {
            case .object(let inner) where inner.members.isEmpty: try body(name, .null)
            case .object(let inner): try forEachLeaf(inner, prefix: name + ".", origin: origin, body)
            default: try body(name, member.value)
            }
        }
    }

    private func field(_ value: JSONValue) -> String {
        switch value {
        case .null: ""
        case .string(""): "\"\""
        case .string(let text): quotedWhereNeeded(text)
        default: quotedWhereNeeded(value.text)
        }
    }

    private func quotedWhereNeeded(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 == delimiter || $0 == 0x22 || $0 == 0x0A || $0 == 0x0D }) else {
            return text
        }
        return "\"" + text.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
    }

    private func line(_ fields: [String]) -> String {
        fields.joined(separator: String(Unicode.Scalar(delimiter))) + "\n"
    }
}

import Datasets

/// What `fledge data` prints.
struct DataReport {
    let files: [String]
    let statistics: RecordStatistics
    let promptKey: String
    let sourceKey: String

    /// The longest text of one value in `head`, in characters.
    private static let shownLength = 400

    static func show(_ row: JSONObject, origin: RowOrigin, json: Bool) {
        if json { return Console.say(JSONValue.object(row).text) }
        Console.say("\(origin)")
        for member in row.members { show(member.name, member.value, indent: "  ") }
    }

    /// Objects and messages by their members, so that texts keep their lines.
    private static func show(_ name: String, _ value: JSONValue, indent: String) {
        switch value {
        case .object(let object) where !object.members.isEmpty:
            Console.say("\(indent)\(name):")
            for member in object.members { show(member.name, member.value, indent: indent + "  ") }
        case .array(let elements) where elements.contains(where: { if case .object = $0 { true } else { false } }):
            Console.say("\(indent)\(name):")
            for (index, element) in elements.enumerated() { show("[\(index)]", element, indent: indent + "  ") }
        case .string(let text):
            let lines = shortened(text).split(separator: "\n", omittingEmptySubsequences: false)
            Console.say("\(indent)\(name): \(lines.joined(separator: "\n\(indent)  "))")
        default: Console.say("\(indent)\(name): \(shortened(value.text))")
        }
    }

    private static func shortened(_ text: String) -> String {
        let shown = text.prefix(shownLength)
        return shown.endIndex == text.endIndex ? text : "\(shown)… (\(text.count) characters)"
    }

    var text: String {
        var lines = ["\(statistics.rows) rows in \(files.count == 1 ? files[0] : "\(files.count) files")", "columns:"]
        for column in statistics.columns {
            var notes = Self.kinds(column).map { "\($0.kind) \($0.count)" }.joined(separator: ", ")
            if column.count < statistics.rows { notes += ", missing \(statistics.rows - column.count)" }
            lines.append("  \(column.name): \(notes)")
        }
        lines.append(
            "prompts ('\(promptKey)'): \(statistics.emptyPrompts) empty, \(statistics.duplicatePrompts) duplicates")
        if let characters = statistics.characters { lines.append("  characters: \(Self.line(characters))") }
        if let tokens = statistics.tokens { lines.append("  tokens:     \(Self.line(tokens))") }
        if !statistics.sources.isEmpty {
            lines.append("rows by '\(sourceKey)':")
            for source in statistics.sources.prefix(20) { lines.append("  \(source.name): \(source.rows)") }
            if statistics.sources.count > 20 { lines.append("  … and \(statistics.sources.count - 20) more") }
        }
        return lines.joined(separator: "\n")
    }

    private static func kinds(_ column: RecordStatistics.Column) -> [(kind: String, count: Int)] {
        column.kinds.sorted { $0.value != $1.value ? $0.value > $1.value : $0.key < $1.key }
            .map { (kind: $0.key, count: $0.value) }
    }

    private static func line(_ lengths: RecordStatistics.Distribution) -> String {
        let mean = (lengths.mean * 10).rounded() / 10
        return "min \(lengths.minimum), median \(lengths.median), p90 \(lengths.p90), p99 \(lengths.p99), "
            + "max \(lengths.maximum), mean \(mean)"
    }

    var json: String {
        func number(_ value: some Numeric) -> JSONValue { .number("\(value)") }
        func object(_ members: [(String, JSONValue)]) -> JSONValue {
            .object(JSONObject(members.map { .init(name: $0.0, value: $0.1) }))
        }
        func distribution(_ lengths: RecordStatistics.Distribution?) -> JSONValue {
            guard let lengths else { return .null }
            return object([
                ("min", number(lengths.minimum)), ("median", number(lengths.median)), ("p90", number(lengths.p90)),
                ("p99", number(lengths.p99)), ("max", number(lengths.maximum)), ("mean", number(lengths.mean)),
            ])
        }
        let columns = statistics.columns.map { column in
            object([
                ("name", .string(column.name)), ("count", number(column.count)),
                ("types", object(Self.kinds(column).map { ($0.kind, number($0.count)) })),
            ])
        }
        return object([
            ("files", .array(files.map(JSONValue.string))), ("rows", number(statistics.rows)),
            ("columns", .array(columns)), ("empty_prompts", number(statistics.emptyPrompts)),
            ("duplicate_prompts", number(statistics.duplicatePrompts)),
            ("characters", distribution(statistics.characters)), ("tokens", distribution(statistics.tokens)),
            ("sources", object(statistics.sources.map { ($0.name, number($0.rows)) })),
        ]).text
    }
}

/// What a look at every row of some files says of them. Memory: a digest of each prompt, 8 bytes a row and more for lengths.
public struct RecordStatistics: Sendable {
    /// The values of one column.
    public struct Column: Hashable, Sendable {
        public let name: String
        /// How many values there are of each kind (`string`, `list`, …), `null` among them; absent ones are not counted.
        public var kinds: [String: Int] = [:]
        /// Rows that have the column, null or not.
        public var count = 0
    }

    /// Of some lengths, by the nearest rank.
    public struct Distribution: Hashable, Sendable {
        public let minimum: Int
        public let median: Int
        public let p90: Int
        public let p99: Int
        public let maximum: Int
        public let mean: Double

        init?(_ lengths: [Int]) {
            let sorted = lengths.sorted()
            guard let first = sorted.first, let last = sorted.last else { return nil }
            func rank(_ part: Double) -> Int { sorted[max(0, Int((part * Double(sorted.count)).rounded(.up)) - 1)] }
            (minimum, median, p90, p99, maximum) = (first, rank(0.5), rank(0.9), rank(0.99), last)
            mean = Double(sorted.reduce(0, +)) / Double(sorted.count)
        }
    }

    public private(set) var rows = 0
    public private(set) var columns: [Column] = []
    /// Rows whose prompt is missing, null, or without any text.
    public private(set) var emptyPrompts = 0
    /// Rows whose prompt an earlier row has.
    public private(set) var duplicatePrompts = 0
    /// Rows of each value of the column that names the source; empty without such a column.
    public private(set) var sources: [(name: String, rows: Int)] = []
    /// Of the prompts' text, in characters as Unicode scalars.
    public private(set) var characters: Distribution?
    /// Of the prompts, as rendered and encoded; nil without a tokenizer.
    public private(set) var tokens: Distribution?

    private let names: PromptColumns
    private var places: [String: Int] = [:]
    private var sourcePlaces: [String: Int] = [:]
    private var seen: Set<UInt64> = []
    private var characterCounts: [Int] = []
    private var tokenCounts: [Int] = []

    private static let blockSize = 2048

    /// Reads the files, each once.
    /// - Parameter tokenCount: tokens of a prompt; called on all cores.
    /// - Throws: `DatasetError`, and what `tokenCount` throws.
    public init(
        paths: [String], columns names: PromptColumns = PromptColumns(),
        tokenCount: (@Sendable (Prompt, RowOrigin) throws -> Int)? = nil
    ) throws {
        self.names = names
        var block: [(prompt: Prompt, origin: RowOrigin)] = []
        func count(_ block: [(prompt: Prompt, origin: RowOrigin)]) throws -> [Int] {
            guard let tokenCount else { return [] }
            return try Parallel.map(block.count, grain: 16) { try tokenCount(block[$0].prompt, block[$0].origin) }
        }
        for path in paths {
            let reader = try RecordReader(path: path)
            try reader.forEach { object, origin in
                add(object)
                let prompt = try names.prompt(object, origin: origin)
                addPrompt(prompt)
                if let prompt, tokenCount != nil {
                    block.append((prompt, origin))
                    if block.count == Self.blockSize {
                        tokenCounts += try count(block)
                        block.removeAll()
                    }
                }
                return true
            }
        }
        tokenCounts += try count(block)
        characters = Distribution(characterCounts)
        tokens = Distribution(tokenCounts)
        sources.sort { $0.rows != $1.rows ? $0.rows > $1.rows : $0.name < $1.name }
    }

    private mutating func add(_ object: JSONObject) {
        rows += 1
        for member in object.members {
            let place: Int
            if let known = places[member.name] {
                place = known
            } else {
                place = columns.count
                places[member.name] = place
                columns.append(Column(name: member.name))
            }
            columns[place].count += 1
            columns[place].kinds[member.value.typeName, default: 0] += 1
        }
        guard let value = object[names.dataSource], value != .null else { return }
        let name = if case .string(let text) = value { text } else { value.text }
        if let place = sourcePlaces[name] {
            sources[place].rows += 1
        } else {
            sourcePlaces[name] = sources.count
            sources.append((name, 1))
        }
    }

    private mutating func addPrompt(_ prompt: Prompt?) {
        let texts: [String] =
            switch prompt {
            case nil: []
            case .text(let text): [text]
            case .messages(let messages): messages.map(\.content)
            }
        let length = texts.reduce(0) { $0 + $1.unicodeScalars.count }
        characterCounts.append(length)
        if length == 0 {
            emptyPrompts += 1
            return
        }
        var digest: UInt64 = 0
        for var text in texts {
            digest = ByteDigest.fold(digest ^ text.withUTF8 { ByteDigest.of($0) })
        }
        if !seen.insert(digest).inserted { duplicatePrompts += 1 }
    }
}

extension JSONValue {
    /// The name of the type, for tables.
    var typeName: String {
        switch self {
        case .null: "null"
        case .bool: "boolean"
        case .number(let digits): digits.utf8.allSatisfy { !".eE".utf8.contains($0) } ? "integer" : "number"
        case .string: "string"
        case .array: "list"
        case .object: "object"
        }
    }
}

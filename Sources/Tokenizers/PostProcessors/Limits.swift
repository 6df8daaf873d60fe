/// `truncation` of a `tokenizer.json`: how long an encoding may be, and what is cut off.
struct Truncation: Sendable {
    enum Strategy: String, Sendable {
        case longestFirst = "LongestFirst", onlyFirst = "OnlyFirst", onlySecond = "OnlySecond"
    }

    var maximumLength: Int
    var strategy: Strategy
    var cutsLeft: Bool

    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        maximumLength = try fields.count("max_length")
        guard let strategy = Strategy(rawValue: try fields.optionalString("strategy") ?? "LongestFirst") else {
            throw fields.failure("strategy", "LongestFirst, OnlyFirst or OnlySecond")
        }
        self.strategy = strategy
        let stride = try fields.count("stride", default: 0)
        guard stride == 0 || stride < maximumLength else { throw fields.failure("stride", "less than max_length") }
        cutsLeft = try fields.isLeft("direction")
    }

    /// Cuts one or two encodings so that they hold at most `maximumLength - reserved` tokens together.
    func apply(to encodings: inout [Encoding], reserved: Int) throws {
        guard maximumLength >= reserved else {
            throw TokenizerError(
                .cannotTruncate, "truncation.max_length is \(maximumLength), but \(reserved) special tokens are added")
        }
        let limit = maximumLength - reserved
        let total = encodings.reduce(0) { $0 + $1.count }
        guard total > limit else { return }
        if limit == 0 {
            for index in encodings.indices { encodings[index].keep(0..<0) }
            return
        }
        switch strategy {
        case .longestFirst:
            let lengths = encodings.count == 1 ? [limit] : Self.share(limit, encodings[0].count, encodings[1].count)
            for index in encodings.indices { cut(&encodings[index], to: lengths[index]) }
        case .onlyFirst, .onlySecond:
            let index = strategy == .onlyFirst ? 0 : 1
            guard index < encodings.count else {
                throw TokenizerError(.cannotTruncate, "truncation is OnlySecond, but there is no second text")
            }
            let length = encodings[index].count - (total - limit)
            guard length > 0 else {
                throw TokenizerError(
                    .cannotTruncate,
                    "\(total) tokens cannot be cut to \(limit) in one text of \(encodings[index].count)")
            }
            cut(&encodings[index], to: length)
        }
    }

    /// The lengths of two texts of which the longer gives way first.
    private static func share(_ limit: Int, _ first: Int, _ second: Int) -> [Int] {
        var (short, long) = (min(first, second), max(first, second))
        long = short > limit ? short : max(short, limit - short)
        if short + long > limit {
            short = limit / 2
            long = short + limit % 2
        }
        return first > second ? [long, short] : [short, long]
    }

    private func cut(_ encoding: inout Encoding, to length: Int) {
        guard length < encoding.count else { return }
        encoding.keep(cutsLeft ? encoding.count - length..<encoding.count : 0..<length)
    }
}

/// `padding` of a `tokenizer.json`.
struct Padding: Sendable {
    /// Nil for as long as the longest of the batch.
    var fixedLength: Int?
    var multiple: Int
    var id: Int32
    var token: String
    var typeID: Int32
    var isLeft: Bool

    /// More padding than this is taken for corruption.
    static let maximumLength = 1 << 20

    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        if let fixed = node["strategy"]?["Fixed"]?.int {
            guard (0...Self.maximumLength).contains(fixed) else { throw fields.failure("strategy", "a sane length") }
            fixedLength = fixed
        } else {
            guard node["strategy"]?.string == "BatchLongest" else {
                throw fields.failure("strategy", "\"BatchLongest\" or {\"Fixed\": length}")
            }
        }
        multiple = try fields.count("pad_to_multiple_of", default: 0)
        guard multiple <= Self.maximumLength, let id = Int32(exactly: try fields.count("pad_id", default: 0)),
            let typeID = Int32(exactly: try fields.count("pad_type_id", default: 0))
        else { throw fields.failure("pad_id", "a sane number") }
        self.id = id
        token = try fields.optionalString("pad_token") ?? "[PAD]"
        self.typeID = typeID
        isLeft = try fields.isLeft("direction")
    }

    func apply(to encodings: inout [Encoding]) {
        var length = fixedLength ?? encodings.map(\.count).max() ?? 0
        if multiple > 0, length % multiple > 0 { length += multiple - length % multiple }
        for index in encodings.indices {
            let missing = length - encodings[index].count
            guard missing > 0 else { continue }
            var padding = Encoding()
            padding.ids = [Int32](repeating: id, count: missing)
            padding.tokens = [String](repeating: token, count: missing)
            padding.typeIDs = [Int32](repeating: typeID, count: missing)
            padding.byteOffsets = [Range<Int>](repeating: 0..<0, count: missing)
            padding.characterOffsets = padding.byteOffsets
            padding.specialTokensMask = [UInt8](repeating: 1, count: missing)
            padding.attentionMask = [UInt8](repeating: 0, count: missing)
            if isLeft {
                padding.append(encodings[index])
                encodings[index] = padding
            } else {
                encodings[index].append(padding)
            }
        }
    }
}

extension FieldReader {
    /// Which side of a text is meant; the right one where the file does not say.
    fileprivate func isLeft(_ name: StaticString) throws -> Bool {
        switch try optionalString(name) {
        case "Left": true
        case nil, "Right": false
        default: throw failure(name, "Left or Right")
        }
    }
}

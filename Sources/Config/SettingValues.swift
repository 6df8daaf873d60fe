/// A setting's value that is written as one word.
protocol SettingWord {
    init?(word: String)
    var word: String { get }
}

extension SettingWord where Self: RawRepresentable, RawValue == String {
    init?(word: String) { self.init(rawValue: word) }
    var word: String { rawValue }
}

/// Which numbers a setting takes. Infinities and NaN are in no range.
struct NumberRange: Sendable {
    var lower = -Double.greatestFiniteMagnitude
    var upper = Double.greatestFiniteMagnitude
    var isLowerOpen = false
    var isUpperOpen = false

    static let any = NumberRange()
    static let positive = above(0)
    static let nonNegative = from(0)
    /// 0 … 1, both in.
    static let unit = NumberRange(lower: 0, upper: 1)
    /// 0 out, 1 in.
    static let fraction = NumberRange(lower: 0, upper: 1, isLowerOpen: true)

    static func above(_ lower: Double) -> NumberRange { NumberRange(lower: lower, isLowerOpen: true) }
    static func from(_ lower: Double) -> NumberRange { NumberRange(lower: lower) }

    func contains(_ value: Double) -> Bool {
        (isLowerOpen ? value > lower : value >= lower) && (isUpperOpen ? value < upper : value <= upper)
    }

    var description: String {
        var parts: [String] = []
        if lower > -.greatestFiniteMagnitude { parts.append((isLowerOpen ? "more than " : "at least ") + short(lower)) }
        if upper < .greatestFiniteMagnitude { parts.append((isUpperOpen ? "less than " : "at most ") + short(upper)) }
        return parts.isEmpty ? "a number" : "a number of " + parts.joined(separator: " and ")
    }

    private func short(_ value: Double) -> String { Int(exactly: value).map(String.init) ?? "\(value)" }
}

func integers(_ range: ClosedRange<Int>) -> String {
    switch (range.lowerBound, range.upperBound) {
    case (.min, .max): "an integer"
    case (let lower, .max): "an integer of at least \(lower)"
    case (let lower, let upper): "an integer from \(lower) to \(upper)"
    }
}

// MARK: What a node must be

extension ConfigNode {
    func integer(in range: ClosedRange<Int>) throws(Misfit) -> Int {
        guard case .scalar(let scalar) = content else { throw .type("an integer", self) }
        switch scalar.value {
        case .integer(let value):
            guard range.contains(value) else { throw .range(self) }
            return value
        case .oversizeInteger: throw .range(self)
        default: throw .type("an integer", self)
        }
    }

    func number(in range: NumberRange) throws(Misfit) -> Double {
        guard case .scalar(let scalar) = content else { throw .type("a number", self) }
        let value: Double
        switch scalar.value {
        case .integer(let integer): value = Double(integer)
        case .oversizeInteger: value = Double(scalar.text) ?? .infinity
        case .number(let number): value = number
        default: throw .type("a number", self)
        }
        guard value.isFinite, range.contains(value) else { throw .range(self) }
        return value
    }

    func bool() throws(Misfit) -> Bool {
        guard case .scalar(let scalar) = content, case .bool(let value) = scalar.value else {
            throw .type("true or false", self, remedy: "write true or false")
        }
        return value
    }

    /// A shell eats quotes: on the command line, `experiment_name=7` is the text 7.
    func string() throws(Misfit) -> String {
        guard case .scalar(let scalar) = content else {
            throw .type("text", self, remedy: "quote it if it is text")
        }
        if scalar.value == .string || place.isOverride && scalar.value != .null { return scalar.text }
        throw .type("text", self, remedy: scalar.value == .null ? nil : "quote it if it is text")
    }

    /// A list, or a single item in place of a list of one.
    func items<Item>(_ read: (ConfigNode) throws(Misfit) -> Item) throws(Misfit) -> [Item] {
        guard case .sequence(let nodes) = content else { return [try read(self)] }
        var items: [Item] = []
        for node in nodes { items.append(try read(node)) }
        return items
    }

    func word<Word: SettingWord>(_ type: Word.Type, accepts: String, knownElsewhere: String?) throws(Misfit) -> Word {
        guard case .scalar(let scalar) = content, scalar.value != .null else { throw .type(accepts, self) }
        if let value = Word(word: scalar.text) { return value }
        throw .word(self, accepts: accepts, knownElsewhere: knownElsewhere)
    }
}

extension Misfit {
    static func word(_ node: ConfigNode, accepts: String, knownElsewhere: String?) -> Misfit {
        if let knownElsewhere {
            return Misfit(code: .notSupported, message: knownElsewhere, remedy: "give \(accepts)", place: node.place)
        }
        return Misfit(
            code: .outOfRange, message: "\(node.summary) is not a choice", remedy: "give \(accepts)", place: node.place)
    }
}

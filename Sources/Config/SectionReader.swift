import OrderedCollections

/// Reads one section. Each call declares one setting: its name, type, default, range and documentation; and gives its
/// value. The same calls make the commented example and the resolved configuration.
///
/// A call never fails: what is wrong is noted, and the default stands in, so that all problems are found in one reading.
struct SectionReader {
    let path: [String]
    let ledger: Ledger
    /// Where to report what is missing.
    private let place: Place
    private let entries: OrderedDictionary<String, ConfigNode.Entry>
    private var claimed: Set<String> = []

    var names: KnownNames { ledger.names }

    init(_ node: ConfigNode, path: [String] = [], ledger: Ledger) {
        self.path = path
        self.ledger = ledger
        place = node.place
        switch node.content {
        case .mapping(let entries): self.entries = entries
        default:
            entries = [:]
            if !node.isNull {
                let name = path.joined(separator: ".")
                let remedy = path.isEmpty ? "write key: value lines" : "write its settings below it, indented"
                ledger.refuse(
                    .wrongType, at: node.place, name, "expected a section of settings, got \(node.summary)",
                    remedy: remedy)
            }
        }
    }

    /// A section within this one.
    mutating func section<Value>(_ key: String, doc: String, _ read: (inout SectionReader) -> Value) -> Value {
        let entry = claim(key)
        ledger.declare(Declaration(path: path + [key], doc: doc, role: .section, place: entry?.node.place))
        let empty = ConfigNode(content: .mapping([:]), place: place)
        var reader = SectionReader(entry?.node ?? empty, path: path + [key], ledger: ledger)
        defer { reader.finish() }
        return read(&reader)
    }

    /// Notes the keys that no call asked for.
    func finish() {
        for (key, entry) in entries where !claimed.contains(key) {
            ledger.unknown.append((path + [key], entry))
        }
    }

    /// Whether a key was written, for settings that take one another's place.
    func holds(_ key: String) -> Bool { entries[key] != nil }

    func keyPath(_ key: String) -> String { (path + [key]).joined(separator: ".") }

    /// What a setting is when nobody sets it.
    enum Fallback<Value> {
        case value(Value)
        /// It must be set; the value goes on in its place after that was noted, and is the example.
        case required(Value)

        var value: Value {
            switch self {
            case .value(let value), .required(let value): value
            }
        }

        var isRequired: Bool { if case .required = self { true } else { false } }
    }

    /// The ground of all the typed calls.
    /// - Parameters:
    ///   - accepts: what may be written, for "expected …".
    ///   - example: the example's value; nil for the default.
    ///   - allowsNull: whether `null` is a value, which `parse` gets to see.
    mutating func setting<Value>(
        _ key: String, _ fallback: Fallback<Value>, accepts: String, example: Value? = nil, allowsNull: Bool = false,
        doc: String, text: (Value) -> String, parse: (ConfigNode) throws(Misfit) -> Value
    ) -> Value {
        let entry = claim(key)
        var value = fallback.value
        var origin: Place?
        if let node = entry?.node, !(node.isNull && node.place.isOverride && !allowsNull) {
            origin = node.place
            do throws(Misfit) {
                value = try parse(node)
            } catch {
                let remedy = error.remedy ?? "give \(accepts)"
                ledger.refuse(error.code, at: error.place ?? node.place, keyPath(key), error.message, remedy: remedy)
            }
        } else if fallback.isRequired {
            let remedy = "set it to \(accepts), as in \(text(fallback.value))"
            ledger.refuse(
                .missing, at: entry?.node.place ?? place, keyPath(key), "required and not set", remedy: remedy)
        }
        let role = Declaration.Role.setting(
            accepts: accepts, value: text(value), fallback: text(fallback.value),
            example: text(example ?? fallback.value),
            isRequired: fallback.isRequired)
        ledger.declare(Declaration(path: path + [key], doc: doc, role: role, place: origin))
        return value
    }

    private mutating func claim(_ key: String) -> ConfigNode.Entry? {
        claimed.insert(key)
        return entries[key]
    }
}

/// Why a value does not fit its setting.
struct Misfit: Error {
    var code: ConfigError.Code
    var message: String
    /// nil for "give" what the setting accepts.
    var remedy: String?
    /// nil for the place of the whole value.
    var place: Place?

    static func type(_ expected: String, _ node: ConfigNode, remedy: String? = nil) -> Misfit {
        Misfit(
            code: .wrongType, message: "expected \(expected), got \(node.summary)", remedy: remedy, place: node.place)
    }

    static func range(_ node: ConfigNode, remedy: String? = nil) -> Misfit {
        Misfit(code: .outOfRange, message: "\(node.summary) is out of range", remedy: remedy, place: node.place)
    }
}

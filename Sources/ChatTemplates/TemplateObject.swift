import OrderedCollections

/// An object with its keys in order, as templates see a JSON object.
///
/// Keys are told apart by their bytes: Swift's `String` would take composed and decomposed forms for one key.
public struct TemplateObject: Sendable, Hashable, ExpressibleByDictionaryLiteral {
    var entries: OrderedDictionary<ByteString, TemplateValue>

    public init() { entries = [:] }

    public init(dictionaryLiteral elements: (String, TemplateValue)...) { self.init(elements) }

    /// A later pair with the same key replaces the value and keeps the first one's place, as in Python.
    public init(_ pairs: some Sequence<(String, TemplateValue)>) {
        entries = [:]
        for (key, value) in pairs { entries[ByteString(key)] = value }
    }

    public subscript(key: String) -> TemplateValue? {
        get { entries[ByteString(key)] }
        set { entries[ByteString(key)] = newValue }
    }

    public var count: Int { entries.count }
    public var isEmpty: Bool { entries.isEmpty }
    public var keys: [String] { entries.keys.map(\.text) }
    public var pairs: [(key: String, value: TemplateValue)] { entries.map { ($0.key.text, $0.value) } }
}

/// A string that is equal, hashed and ordered by its UTF-8 bytes.
struct ByteString: Hashable, Sendable {
    let text: String
    init(_ text: String) { self.text = text }

    static func == (left: ByteString, right: ByteString) -> Bool { left.text.hasSameBytes(as: right.text) }

    func hash(into hasher: inout Hasher) { text.hashBytes(into: &hasher) }
}

extension String {
    func hasSameBytes(as other: String) -> Bool {
        guard utf8.count == other.utf8.count else { return false }
        let fast = utf8.withContiguousStorageIfAvailable { left in
            other.utf8.withContiguousStorageIfAvailable { right in left.elementsEqual(right) }
        }
        if let fast, let fast { return fast }
        return utf8.elementsEqual(other.utf8)
    }

    func hashBytes(into hasher: inout Hasher) {
        if utf8.withContiguousStorageIfAvailable({ hasher.combine(bytes: UnsafeRawBufferPointer($0)) }) == nil {
            for byte in utf8 { hasher.combine(byte) }
        }
    }
}

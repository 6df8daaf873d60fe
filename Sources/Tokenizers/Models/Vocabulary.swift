/// The spellings of a model's tokens, both ways.
struct Vocabulary: Sendable {
    private(set) var table: ByteTable
    private var storage: [UInt8] = []
    /// Where the spelling of each id begins and ends in `storage`; (0, 0) and absent from `isPresent` for a hole.
    private var ranges: [(start: UInt32, end: UInt32)] = []
    private var isPresent: [Bool] = []
    /// How many different spellings there are.
    var count: Int { table.count }

    /// Ids above this are taken for corruption.
    static let maximumID = 1 << 22

    init(capacity: Int) {
        table = ByteTable(capacity: capacity)
        ranges.reserveCapacity(capacity)
        isPresent.reserveCapacity(capacity)
        storage.reserveCapacity(capacity * 8)
    }

    /// One more than the largest id.
    var idBound: Int { ranges.count }

    mutating func add(_ spelling: UnsafeBufferPointer<UInt8>, id: Int, at place: @autoclosure () -> String) throws {
        guard id >= 0, id <= Self.maximumID else {
            throw TokenizerError(.invalidField, "\(place()): the id \(id) is not between 0 and \(Self.maximumID)")
        }
        while ranges.count <= id {
            ranges.append((0, 0))
            isPresent.append(false)
        }
        guard !isPresent[id] || self.spelling(Int32(id))?.elementsEqual(spelling) == true else {
            let other = String(decoding: self.spelling(Int32(id)) ?? [], as: UTF8.self)
            let new = String(decoding: spelling, as: UTF8.self)
            throw TokenizerError(.invalidField, "\(place()): '\(other)' and '\(new)' have the same id \(id)")
        }
        let start = UInt32(storage.count)
        storage.append(contentsOf: spelling)
        ranges[id] = (start, UInt32(storage.count))
        isPresent[id] = true
        table.set(spelling, to: Int32(id))
    }

    func id(_ spelling: some Collection<UInt8>) -> Int32? { table.value(for: spelling) }

    func spelling(_ id: Int32) -> ArraySlice<UInt8>? {
        guard id >= 0, Int(id) < ranges.count, isPresent[Int(id)] else { return nil }
        let range = ranges[Int(id)]
        return storage[Int(range.start)..<Int(range.end)]
    }

    func withSpelling<Result>(_ id: Int, _ body: (UnsafeBufferPointer<UInt8>) throws -> Result) rethrows -> Result {
        let range = id < ranges.count ? ranges[id] : (0, 0)
        return try storage.withUnsafeBufferPointer {
            try body(UnsafeBufferPointer(rebasing: $0[Int(range.0)..<Int(range.1)]))
        }
    }

    /// Reads a JSON object of spellings and ids.
    init(object node: JSONNode?, at place: String) throws {
        guard let node, node.isObject else { throw TokenizerError(.invalidField, "\(place): expected an object") }
        self.init(capacity: node.count)
        let document = node.document
        var unescaped: [UInt8] = []
        try document.bytes.withUnsafeBufferPointer { text in
            try node.forEachMember { key, value in
                guard let id = JSONNode(document: document, index: value).int else {
                    throw TokenizerError(.invalidField, "\(place): an id that is no whole number")
                }
                let entry = document.entries[key]
                if entry.kind == .string {
                    let range = Int(entry.start)..<Int(entry.end)
                    try add(UnsafeBufferPointer(rebasing: text[range]), id: id, at: place)
                } else {
                    unescaped.removeAll(keepingCapacity: true)
                    try document.appendString(at: key, to: &unescaped)
                    try unescaped.withUnsafeBufferPointer { try add($0, id: id, at: place) }
                }
            }
        }
    }
}

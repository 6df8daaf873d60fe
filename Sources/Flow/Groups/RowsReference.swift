/// Rows that stay with the worker that made them. The controller passes the reference on; who needs the rows pulls them from the
/// owner, and checks each by its digest.
public struct RowsReference: Sendable, Hashable, Codable {
    public struct Row: Sendable, Hashable, Codable {
        /// Its place among the rows that the owner keeps under the reference's id.
        public var index: Int
        public var byteCount: Int
        public var digest: UInt64

        public init(index: Int, byteCount: Int, digest: UInt64) {
            self.index = index
            self.byteCount = byteCount
            self.digest = digest
        }
    }

    /// The owner's name, for people.
    public var owner: String
    /// Where the owner is reached, `host:port`.
    public var address: String
    public var id: UInt64
    public var rows: [Row]

    public init(owner: String, address: String, id: UInt64, rows: [Row]) {
        self.owner = owner
        self.address = address
        self.id = id
        self.rows = rows
    }

    public var byteCount: Int { rows.reduce(0) { $0 + $1.byteCount } }

    /// Some of the rows, in the order given.
    public func selecting(_ places: [Int]) -> RowsReference {
        var reference = self
        reference.rows = places.map { rows[$0] }
        return reference
    }

    /// A digest of bytes (FNV-1a of 64 bits over words of eight, the rest bytewise): it finds damage, not malice.
    public static func digest(_ bytes: some Collection<UInt8>) -> UInt64 {
        bytes.withContiguousStorageIfAvailable { digest(UnsafeRawBufferPointer($0)) }
            ?? Array(bytes).withUnsafeBytes(digest)
    }

    static func digest(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var state: UInt64 = 0xCBF2_9CE4_8422_2325 ^ UInt64(bytes.count)
        var place = 0
        while place + 8 <= bytes.count {
            state =
                (state ^ UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self)))
                &* 0x0000_0100_0000_01B3
            state ^= state >> 29
            place += 8
        }
        while place < bytes.count {
            state = (state ^ UInt64(bytes[place])) &* 0x0000_0100_0000_01B3
            place += 1
        }
        return state ^ (state >> 32)
    }
}

/// Gets rows from where they are.
public protocol RowsSource: Sendable {
    /// The rows' bytes, in the reference's order.
    /// - Throws: ``WorkerCallError`` with code `missingRows` where the owner has them no more or they are damaged.
    func pull(_ reference: RowsReference) async throws -> [[UInt8]]
}

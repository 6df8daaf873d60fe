/// Writes files into a ZIP archive, uncompressed. The same files give the same bytes.
public struct ZipArchive: Sendable {
    private var body: [UInt8] = []
    private var directory: [UInt8] = []
    private var count = 0

    /// More makes another format of archive.
    static let mostBytes = 1 << 31
    static let mostFiles = 65_535

    public init() {}

    public var byteCount: Int { body.count + directory.count + 22 }

    /// - Parameter path: relative, with slashes.
    /// - Throws: ``ClusterError`` with code `badPackage` where it does not fit.
    public mutating func add(_ path: String, _ content: [UInt8], isExecutable: Bool = false) throws(ClusterError) {
        let name = Array(path.utf8)
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard !parts.contains(""), !parts.contains(".."), !parts.contains("."), name.count < 4096 else {
            throw ClusterError(.badPackage, "'\(path)' is no path within a package")
        }
        guard byteCount + content.count + 2 * name.count + 128 < Self.mostBytes, count < Self.mostFiles else {
            throw ClusterError(.badPackage, "the package would be too large with '\(path)'")
        }
        // From "version needed" to "extra length", the same in both places; 1 January 1980, UTF-8 names, stored.
        let facts =
            Self.bytes16(20) + Self.bytes16(1 << 11) + Self.bytes16(0) + Self.bytes16(0) + Self.bytes16(0x21)
            + Self.bytes32(Self.crc(content)) + Self.bytes32(UInt32(content.count))
            + Self.bytes32(UInt32(content.count))
            + Self.bytes16(UInt16(name.count)) + Self.bytes16(0)
        let offset = UInt32(body.count)
        body += Self.bytes32(0x0403_4B50) + facts + name + content
        // Made by Unix: the mode is in the upper half of the attributes.
        let mode: UInt32 = 0o100000 | (isExecutable ? 0o755 : 0o644)
        directory +=
            Self.bytes32(0x0201_4B50) + Self.bytes16(3 << 8 | 20) + facts + Self.bytes16(0) + Self.bytes16(0)
            + Self.bytes16(0) + Self.bytes32(mode << 16) + Self.bytes32(offset) + name
        count += 1
    }

    public var bytes: [UInt8] {
        body + directory + Self.bytes32(0x0605_4B50) + Self.bytes16(0) + Self.bytes16(0) + Self.bytes16(UInt16(count))
            + Self.bytes16(UInt16(count)) + Self.bytes32(UInt32(directory.count)) + Self.bytes32(UInt32(body.count))
            + Self.bytes16(0)
    }

    private static func bytes16(_ value: UInt16) -> [UInt8] { [UInt8(value & 255), UInt8(value >> 8)] }
    private static func bytes32(_ value: UInt32) -> [UInt8] {
        [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: value >> $0) }
    }

    private static let crcTable: [UInt32] = (0..<256).map { index in
        (0..<8).reduce(UInt32(index)) { value, _ in value & 1 == 1 ? 0xEDB8_8320 ^ (value >> 1) : value >> 1 }
    }

    private static func crc(_ bytes: [UInt8]) -> UInt32 {
        crcTable.withUnsafeBufferPointer { table in
            ~bytes.reduce(~UInt32(0)) { table[Int(UInt8(truncatingIfNeeded: $0) ^ $1)] ^ ($0 >> 8) }
        }
    }
}

extension ClusterError.Code {
    /// Files that cannot be sent along with a job.
    public static let badPackage = ClusterError.Code("badPackage")
}

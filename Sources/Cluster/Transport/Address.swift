#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Where a process is reached.
public struct Address: Sendable, Hashable, Codable, CustomStringConvertible {
    /// An IPv4 address.
    public var host: String
    public var port: Int

    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// `host:port`. A name is looked up.
    /// - Throws: ``ClusterError`` with code `badEnvironment`.
    public init(_ text: String) throws(ClusterError) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let port = Int(parts[1]), (1..<65_536).contains(port) else {
            throw ClusterError(.badEnvironment, "'\(text)' is no address: write host:port")
        }
        host = try Self.resolve(String(parts[0]))
        self.port = port
    }

    public var description: String { "\(host):\(port)" }

    /// The IPv4 address of a host.
    /// - Throws: ``ClusterError`` with code `badEnvironment`.
    public static func resolve(_ name: String) throws(ClusterError) -> String {
        var hints = addrinfo()
        hints.ai_family = AF_INET
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(name, nil, &hints, &found)
        defer { if found != nil { freeaddrinfo(found) } }
        guard status == 0, let address = found?.pointee.ai_addr else {
            throw ClusterError(
                .badEnvironment, "the host '\(name)' has no IPv4 address: \(String(cString: gai_strerror(status)))")
        }
        return text(of: address)
    }

    /// The address that this host has in the eyes of `peer`. Sends nothing.
    /// - Throws: ``ClusterError`` with code `system`.
    public static func own(towards peer: Address) throws(ClusterError) -> String {
        let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(truncatingIfNeeded: peer.port).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isKnown =
            descriptor >= 0 && inet_pton(AF_INET, peer.host, &address.sin_addr) == 1
            && withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
                }
            }
        guard isKnown else {
            throw ClusterError(.system, "no way to \(peer) from this host: \(String(cString: strerror(errno)))")
        }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1, Self.text)
        }
    }

    private static func text(of address: UnsafePointer<sockaddr>) -> String {
        var buffer = [CChar](repeating: 0, count: Int(INET_ADDRSTRLEN))
        address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { pointer in
            var number = pointer.pointee.sin_addr
            _ = inet_ntop(AF_INET, &number, &buffer, socklen_t(buffer.count))
        }
        return buffer.withUnsafeBufferPointer { String(decoding: $0.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self) }
    }
}

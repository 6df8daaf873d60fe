import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What tells this host from others, and how they reach it.
public enum ThisHost {
    /// Set by who starts ranks on several hosts: the address of this one.
    public static let addressVariable = "FLEDGE_NODE_ADDRESS"

    /// Where this process is.
    /// - Parameters:
    ///   - variables: the environment's.
    ///   - interface: a network interface's name, whose address is taken; nil: that from which `peer` is reached.
    ///   - peer: a host that all ranks reach.
    ///   - memory: the folder of files that processes of one host map.
    /// - Throws: ``ClusterError`` with code `badEnvironment` where the interface has no address.
    public static func place(
        _ variables: [String: String], interface: String? = nil, peer: String, memory: String
    ) throws(ClusterError) -> HostMap.Place {
        let given = variables[addressVariable].flatMap { $0.isEmpty ? nil : $0 }
        var address = given ?? localAddress(towards: peer) ?? "127.0.0.1"
        if given == nil, let interface { address = try NetworkInterface.address(of: interface) }
        return HostMap.Place(identity: identity(given, memory: memory), address: address)
    }

    /// Containers may share a kernel and a name, but then neither processes nor memory.
    private static func identity(_ given: String?, memory: String) -> String {
        var name = [CChar](repeating: 0, count: 256)
        gethostname(&name, name.count - 1)
        let host = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let processes = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/pid")) ?? ""
        let facts = (try? FileManager.default.attributesOfItem(atPath: memory)) ?? [:]
        let device = [facts[.systemNumber], facts[.systemFileNumber]].map { ($0 as? Int).map(String.init) ?? "" }
            .joined(separator: ":")
        return [given ?? "", host, boot, processes, device].joined(separator: "|")
    }

    /// The kernel's boot, which is the same for all containers of a machine.
    public static var boot: String {
        ((try? String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)) ?? "").filter {
            !$0.isWhitespace
        }
    }

    /// The address that this host shows to `peer`; nothing is sent.
    static func localAddress(towards peer: String) -> String? {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
        hints.ai_family = AF_INET
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(peer, "9", &hints, &found) == 0, let address = found?.pointee else { return nil }
        defer { freeaddrinfo(found) }
        let descriptor = socket(address.ai_family, address.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var own = sockaddr_in(), length = socklen_t(MemoryLayout<sockaddr_in>.size)
        guard Glibc.connect(descriptor, address.ai_addr, address.ai_addrlen) == 0,
            withUnsafeMutablePointer(
                to: &own,
                {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
                }) == 0
        else { return nil }
        return NetworkInterface.text(of: own)
    }
}

/// A network interface of this host with an IPv4 address.
public struct NetworkInterface: Sendable, Hashable, Codable {
    public var name: String
    public var address: String
    public var isUp: Bool
    public var isLoopback: Bool

    /// All of this host's.
    public static func all() -> [NetworkInterface] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var found: [NetworkInterface] = []
        var next = first
        while let entry = next?.pointee {
            next = entry.ifa_next
            guard let address = entry.ifa_addr, address.pointee.sa_family == sa_family_t(AF_INET) else { continue }
            let own = address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee }
            let flags = Int32(bitPattern: entry.ifa_flags)
            found.append(
                NetworkInterface(
                    name: String(cString: entry.ifa_name), address: text(of: own), isUp: flags & Int32(IFF_UP) != 0,
                    isLoopback: flags & Int32(IFF_LOOPBACK) != 0))
        }
        return found
    }

    static func address(of name: String) throws(ClusterError) -> String {
        let all = all()
        guard let found = all.first(where: { $0.name == name }) else {
            throw ClusterError(
                .badEnvironment,
                "cluster.interface is '\(name)', and this host has no such interface with an IPv4 address; it has "
                    + all.map { "\($0.name) (\($0.address))" }.joined(separator: ", "))
        }
        return found.address
    }

    static func text(of address: sockaddr_in) -> String {
        var address = address.sin_addr
        var text = [CChar](repeating: 0, count: Int(INET_ADDRSTRLEN))
        inet_ntop(AF_INET, &address, &text, socklen_t(text.count))
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

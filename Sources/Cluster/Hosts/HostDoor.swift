/// A port that listens at this host's address for a moment, to see whether another host reaches it.
public struct HostDoor: ~Copyable {
    private let socket: ListeningSocket

    /// - Throws: ``ClusterError`` with code `system` where the address is not this host's.
    public init(address: String) throws { socket = try ListeningSocket(host: address) }

    public var port: Int { socket.port }

    public func close() { socket.close() }

    /// Why another host's door cannot be reached; nil: it can.
    public static func knock(_ host: String, _ port: Int, from own: String) -> String? {
        var why = ""
        switch LinkConnection.connect(host, port, within: 10_000, longest: 0) {
        case .made: return nil
        case .refused: why = "the connection is refused"
        case .failed: why = "there is no answer"
        }
        return
            "host \(host) cannot be reached from \(own): \(why); open the hosts' ports to one another, or set cluster.interface to a "
            + "network that joins them"
    }
}

/// On which host each rank of a run is.
public struct HostMap: Sendable, Hashable, Codable {
    public struct Host: Sendable, Hashable, Codable {
        /// As the others reach it.
        public var address: String
        /// Ascending.
        public var ranks: [Int]
    }
    /// In the order of their first ranks: rank 0's comes first.
    public let hosts: [Host]

    /// What a rank says of where it is.
    public struct Place: Sendable, Hashable, Codable {
        /// The same for ranks that can map the same memory and see one another's processes, and for no others.
        public var identity: String
        public var address: String

        public init(identity: String, address: String) {
            self.identity = identity
            self.address = address
        }
    }

    /// - Parameter places: rank by rank.
    public init(_ places: [Place]) {
        var indices: [String: Int] = [:]
        var hosts: [Host] = []
        for (rank, place) in places.enumerated() {
            if let index = indices[place.identity] {
                hosts[index].ranks.append(rank)
            } else {
                indices[place.identity] = hosts.count
                hosts.append(Host(address: place.address, ranks: [rank]))
            }
        }
        self.hosts = hosts
    }

    public var ranks: Int { hosts.reduce(0) { $0 + $1.ranks.count } }

    /// The index of a rank's host.
    public func host(of rank: Int) -> Int {
        guard let index = hosts.firstIndex(where: { $0.ranks.contains(rank) }) else {
            preconditionFailure("rank \(rank) of \(ranks) has no host")
        }
        return index
    }
}

/// What the ranks of a host show one another, with a place for the ranks of other hosts too, which is filled with what those hosts
/// report. May be called from any thread; a call takes microseconds.
public protocol SharedBoard: Sendable {
    /// What other hosts must know of a rank of this one.
    func report(_ rank: Int) -> [UInt8]
    /// - Throws: where `report` is none.
    func take(_ report: [UInt8], of rank: Int) throws
    /// A rank of another host is gone without a last word.
    func lose(_ rank: Int)
    /// Nothing can be heard of a rank of another host, through no fault of its own.
    func keep(_ rank: Int)
    /// Whether a rank works and has shown life within the time, or has not started yet.
    func isAlive(_ rank: Int, within time: Duration) -> Bool
    /// Whether a rank has said that it ends.
    func hasEnded(_ rank: Int) -> Bool
}

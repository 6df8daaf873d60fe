import Cluster
import Foundation
import TensorCore

/// The first rank of each host says what its host is like, and rank 0 what is wrong with all of them.
struct HostCheck {
    let store: RendezvousStore
    let map: HostMap
    let rank: Int
    let versions: [String: String]
    let folder: String?

    /// - Returns: warnings, for rank 0 to say.
    /// - Throws: ``ClusterError`` with code `badEnvironment` on every rank, where the hosts cannot work together.
    func run() throws -> [String] {
        guard map.hosts.count > 1 else { return [] }
        if let host = map.hosts.firstIndex(where: { $0.ranks[0] == rank }) { try tell(of: host) }
        guard rank == 0 else {
            let verdict = String(decoding: try store.get("check"), as: UTF8.self)
            _ = try store.add("check/heard", 1)
            // Rank 0 says what is wrong.
            if !verdict.isEmpty { throw ClusterError(.badEnvironment, "rank 0 found the hosts' settings wrong") }
            return []
        }
        let facts = try map.hosts.indices.map {
            try JSONDecoder().decode(HostFacts.self, from: Data(store.get("check/\($0)")))
        }
        let findings = ClusterCheck.findings(facts)
        let fatal = findings.filter(\.isFatal).map(\.message)
        try store.set("check", Array(fatal.joined(separator: "\n").utf8))
        if !fatal.isEmpty {
            try waitUntilHeard()
            throw ClusterError(.badEnvironment, fatal.joined(separator: "\n"))
        }
        return findings.map(\.message)
    }

    /// The store ends with rank 0: the others would see a broken connection, not what is wrong.
    private func waitUntilHeard() throws {
        let limit = ContinuousClock.now + .seconds(10)
        while try store.add("check/heard", 0) < map.ranks - 1, ContinuousClock.now < limit {
            Thread.sleep(forTimeInterval: 0.02)
        }
    }

    private func tell(of host: Int) throws {
        let variables = ProcessInfo.processInfo.environment
        let address = map.hosts[host].address
        var facts = HostFacts.here(address: address, versions: versions, variables: variables)
        // Each host calls the next one.
        let door = try HostDoor(address: address)
        try store.set("door/\(host)", Array("\(door.port)".utf8))
        let next = (host + 1) % map.hosts.count
        if let port = Int(String(decoding: try store.get("door/\(next)"), as: UTF8.self)) {
            facts.unreachable = HostDoor.knock(map.hosts[next].address, port, from: address)
        }
        try store.set("knocked/\(host)", [1])
        facts.seesRunFolder = try seesFolder()
        // The caller of this one may not have called yet.
        _ = try store.get("knocked/\((host + map.hosts.count - 1) % map.hosts.count)")
        door.close()
        try store.set("check/\(host)", Array(JSONEncoder().encode(facts)))
    }

    private func seesFolder() throws -> Bool? {
        guard let folder else { return nil }
        let files = FileManager.default
        if rank == 0 {
            let name = ".hosts-\(UUID().uuidString)"
            try files.createDirectory(atPath: folder, withIntermediateDirectories: true)
            let path = folder + "/" + name
            try Data().write(to: URL(fileURLWithPath: path))
            defer { try? files.removeItem(atPath: path) }
            try store.set("folder", Array(name.utf8))
            for host in map.hosts.indices.dropFirst() { _ = try store.get("folder/\(host)") }
            return true
        }
        let name = String(decoding: try store.get("folder"), as: UTF8.self)
        // Network folders may show a new file a moment later.
        var isThere = false
        for _ in 0..<50 where !isThere {
            isThere = files.fileExists(atPath: folder + "/" + name)
            if !isThere { Thread.sleep(forTimeInterval: 0.1) }
        }
        try store.set("folder/\(map.host(of: rank))", [1])
        return isThere
    }
}

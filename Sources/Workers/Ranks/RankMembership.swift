public import Cluster
public import Collectives
import Flow
import Foundation
public import TensorCore

/// This process among the ranks of a run: where they meet, how they watch over one another, and their groups.
public final class RankMembership: Sendable {
    public let rank: Int
    public let size: Int
    public let progress: RankProgress
    let store: RendezvousStore
    var watch: RankWatch { progress.watch }

    /// Where the ranks of the gang are, by their places in it.
    private let map: HostMap
    private let place: RankEnvironment
    /// This host's, as the other ranks reach it.
    public var address: String { map.hosts[map.host(of: place.placeInGang)].address }
    /// How many ranks share this host.
    public var ranksOfHost: Int {
        // Gangs are of one host.
        place.gang == nil ? map.hosts[map.host(of: rank)].ranks.count : size
    }
    /// Whether there are ranks that may be lost while this one goes on.
    public var hasOtherGangs: Bool { place.gang != nil }
    /// What is likely wrong with the hosts' settings; rank 0's.
    public let warnings: [String]
    /// Where there are several hosts.
    private let link: HostLink?

    private init(
        _ place: RankEnvironment, store: RendezvousStore, map: HostMap, watch: RankWatch, link: HostLink?,
        warnings: [String], rehearsal: FailureRehearsal?
    ) {
        self.place = place
        rank = place.rank
        size = place.size
        self.store = store
        self.map = map
        self.link = link
        self.warnings = warnings
        progress = RankProgress(watch, rehearsal: rehearsal)
    }

    /// How long a process with a lost peer may take to end by itself.
    private static let exitTime = Duration.seconds(8)

    /// Meets the other ranks, on this host and on others.
    /// - Parameters:
    ///   - deadline: how long an operation waits for a rank that does nothing.
    ///   - interface: the network interface that the other hosts' ranks reach this one by; nil: that from which it reaches rank 0.
    ///   - versions: of what must be the same on all hosts.
    ///   - folder: that all hosts must share.
    /// - Throws: ``TorchError``; ``WorkerError``, ``ClusterError`` where the hosts cannot work together.
    public static func join(
        _ place: RankEnvironment, deadline: Duration, interface: String? = nil, versions: [String: String] = [:],
        folder: String? = nil
    ) throws -> RankMembership {
        // A rank that is lost while it is written to is an error here: Gloo's sockets would end this process without a word.
        _ = signal(SIGPIPE, SIG_IGN)
        let variables = ProcessInfo.processInfo.environment
        let rehearsal = try variables[FailureRehearsal.variable].flatMap { $0.isEmpty ? nil : $0 }.map { text in
            guard let rehearsal = FailureRehearsal(text) else {
                throw WorkerError(.badSetting, "\(FailureRehearsal.variable)='\(text)' is not as kill:1:3:update")
            }
            return rehearsal
        }
        let listens = place.placeInGang == 0 && !place.hasForeignStore
        let store = try RendezvousStore.tcp(
            host: place.host, port: place.port, listens: listens, socket: listens ? place.storeSocket : nil,
            prefix: place.storePrefix, timeout: max(deadline, .seconds(60)))
        let map = try meet(store, place, variables, interface)
        let board = try board(store, place, map)
        let warnings = try HostCheck(
            store: store, map: map, rank: place.placeInGang, versions: versions, folder: folder
        ).run()
        let link = try link(store, place, map, board, deadline)
        let watch = try RankWatch(
            board, rank: place.rank, deadline: deadline, exitsAfter: exitTime, exitCode: RankExit.lostOther)
        return RankMembership(
            place, store: store, map: map, watch: watch, link: link, warnings: warnings, rehearsal: rehearsal)
    }

    /// Where memory that processes share is best kept.
    private static var memory: String {
        FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
    }

    /// Says where this rank is, and hears where the others are.
    private static func meet(
        _ store: RendezvousStore, _ place: RankEnvironment, _ variables: [String: String], _ interface: String?
    ) throws -> HostMap {
        let own = try ThisHost.place(variables, interface: interface, peer: place.host, memory: memory)
        guard place.placeInGang == 0 else {
            try store.set("place/\(place.placeInGang)", Array(JSONEncoder().encode(own)))
            return try JSONDecoder().decode(HostMap.self, from: Data(store.get("hosts")))
        }
        let others = try (1..<place.gangSize).map {
            try JSONDecoder().decode(HostMap.Place.self, from: Data(store.get("place/\($0)")))
        }
        let map = HostMap([own] + others)
        try store.set("hosts", Array(JSONEncoder().encode(map)))
        return map
    }

    /// Memory that all ranks of a host map, by way of a file that is gone when all have it.
    private static func board(_ store: RendezvousStore, _ place: RankEnvironment, _ map: HostMap) throws -> RankBoard {
        let own = place.placeInGang, host = map.host(of: own), ranks = map.hosts[host].ranks
        if own == ranks[0] {
            let path = memory + "/fledge-\(UUID().uuidString)"
            let board = try RankBoard.create(at: path, ranks: place.size)
            defer { unlink(path) }
            if map.hosts.count > 1 {
                for (index, other) in map.hosts.enumerated() {
                    for rank in other.ranks { try board.place(rank, node: other.address, elsewhere: index != host) }
                }
            }
            try store.set("board/host/\(host)", Array(path.utf8))
            for rank in ranks.dropFirst() {
                guard try store.get("board/\(rank)") == [1] else {
                    throw WorkerError(
                        .badSetting,
                        "rank \(rank) cannot map the memory of rank \(place.rank), though both say they are on one host; set "
                            + "\(ThisHost.addressVariable) to the address of each one's own")
                }
            }
            return board
        }
        let path = String(decoding: try store.get("board/host/\(host)"), as: UTF8.self)
        do {
            let board = try RankBoard.open(path, ranks: place.size)
            try store.set("board/\(own)", [1])
            return board
        } catch {
            try store.set("board/\(own)", [0])
            throw error
        }
    }

    /// What tells the hosts how the ranks of the others do; nil where there is but one.
    private static func link(
        _ store: RendezvousStore, _ place: RankEnvironment, _ map: HostMap, _ board: RankBoard, _ deadline: Duration
    ) throws -> HostLink? {
        guard map.hosts.count > 1 else { return nil }
        let shared = LinkedBoard(board: board)
        if place.rank == 0 {
            let hub = try HostLink.Hub(address: map.hosts[0].address)
            try store.set("link", Array(JSONEncoder().encode(hub.meeting)))
            return try HostLink(map, rank: 0, board: shared, meeting: hub.meeting, hub: hub, deadline: deadline)
        }
        let meeting = try JSONDecoder().decode(HostLink.Meeting.self, from: Data(store.get("link")))
        return try HostLink(map, rank: place.rank, board: shared, meeting: meeting, deadline: deadline)
    }

    /// A mesh of all ranks, or of those that are named. To be made and used on one thread, by all its ranks at the same point.
    /// - Parameters:
    ///   - name: what tells its groups from those of another mesh of the same ranks.
    ///   - members: the mesh's ranks, of which this is one; nil: all.
    func mesh(_ shape: MeshShape, device: Device, name: String = "", members: [Int]? = nil) -> DeviceMesh {
        DeviceMesh(
            shape, rank: members?.firstIndex(of: rank) ?? rank, store: store, device: device, host: address,
            timeout: max(watch.deadline, .seconds(60)), watch: watch, members: members, name: name)
    }

    /// A group of ranks of several gangs, which no watch looks after: what a lost one leaves behind is for the controller to end.
    /// - Parameters:
    ///   - members: of all ranks, of which this is one.
    ///   - name: another one each time.
    func groupAcrossGangs(_ members: [Int], device: Device, name: String) throws -> ProcessGroup {
        guard let port = place.linkPort, let own = members.firstIndex(of: rank) else {
            preconditionFailure("rank \(rank) has no other gangs, or is none of \(members)")
        }
        let timeout = max(watch.deadline, .seconds(60))
        let store = try RendezvousStore.tcp(
            host: place.host, port: port, listens: false, prefix: "gangs/", timeout: timeout)
        if device == .cpu {
            return try .gloo(store, name: name, rank: own, size: members.count, host: address, timeout: timeout)
        }
        return try .nccl(store, name: name, rank: own, size: members.count, device: device)
    }

    /// Rank 0 of ranks that somebody else started: tells the others where the controller is.
    public func tell(_ controller: Address, _ token: RunToken) throws {
        try store.set("controller", Array("\(controller) \(token.text)".utf8))
    }

    /// The others: their places as workers of rank 0's controller. Waits until it has told.
    /// - Throws: ``TorchError`` when it does not, ``ClusterError``.
    public func workerPlace() throws -> WorkerPlace {
        let told = String(decoding: try store.get("controller"), as: UTF8.self).split(separator: " ")
        guard told.count == 2, let token = RunToken(String(told[1])) else {
            throw ClusterError(.badEnvironment, "rank 0 tells of a controller at '\(told.first ?? "")', which is none")
        }
        return WorkerPlace(
            name: Self.name(rank), controller: try Address(String(told[0])),
            settings: try .ofRanks(deadline: watch.deadline, token: token))
    }

    public static func name(_ rank: Int) -> String { "rank \(rank)" }

    /// Throws when another rank is found to be lost; else returns when it is cancelled.
    public func watchOver() async throws {
        while !Task.isCancelled {
            try watch.verify()
            guard (try? await Task.sleep(for: .milliseconds(50))) != nil else { return }
        }
    }

    /// What to say of an error: where another rank was lost, that is the cause of what broke here.
    public func cause(of error: any Error) async -> any Error {
        // Whatever a rank makes of what a broken operation left behind, the lost rank is why.
        do { try watch.verify() } catch { return error }
        let isBroken = (error as? TorchError)?.code == .operation || (error as? WorkerCallError)?.code == .connection
        guard isBroken else { return error }
        // A connection breaks a moment before its other end is seen to be gone; another host's takes longer.
        for _ in 0..<(link == nil ? 100 : 400) {
            do { try watch.verify() } catch { return error }
            guard (try? await Task.sleep(for: .milliseconds(10))) != nil else { break }
        }
        return error
    }

    /// Says that this rank ends, so that the others need not guess.
    public func leave(failure: (any Error)? = nil) {
        watch.leave(failure: failure.map { "\($0)" })
        link?.stop()
    }
}

/// The board as the link between hosts sees it. A rank's number is always one of the board's.
private struct LinkedBoard: SharedBoard {
    let board: RankBoard

    func report(_ rank: Int) -> [UInt8] { sure { try board.report(rank) } }
    func take(_ report: [UInt8], of rank: Int) throws { try board.take(report, of: rank) }
    func lose(_ rank: Int) { sure { try board.lose(rank) } }
    func keep(_ rank: Int) { sure { try board.keep(rank) } }
    func isAlive(_ rank: Int, within time: Duration) -> Bool { sure { try board.facts(rank, within: time).isAlive } }
    func hasEnded(_ rank: Int) -> Bool { sure { try board.facts(rank, within: .zero).hasEnded } }

    private func sure<Result>(_ body: () throws -> Result) -> Result {
        do { return try body() } catch { preconditionFailure("the ranks' board: \(error)") }
    }
}

extension TransportSettings {
    /// For ranks that watch over one another with `deadline`: they find out first, and know more.
    public static func ofRanks(deadline: Duration, token: RunToken = .random()) throws(ClusterError)
        -> TransportSettings
    {
        var settings = TransportSettings(token: token, tls: try .given(ProcessInfo.processInfo.environment))
        settings.lostAfter = max(.seconds(30), deadline + .seconds(15))
        return settings
    }
}

public import Cluster
public import Collectives
import Foundation
public import TensorCore

/// This process among the ranks of a run: where they meet, how they watch over one another, and their groups.
public final class RankMembership: Sendable {
    public let rank: Int
    public let size: Int
    public let progress: RankProgress
    let store: RendezvousStore
    var watch: RankWatch { progress.watch }

    private init(rank: Int, size: Int, store: RendezvousStore, watch: RankWatch, rehearsal: FailureRehearsal?) {
        self.rank = rank
        self.size = size
        self.store = store
        progress = RankProgress(watch, rehearsal: rehearsal)
    }

    /// How long a process with a lost peer may take to end by itself.
    private static let exitTime = Duration.seconds(8)

    /// Meets the other ranks.
    /// - Parameter deadline: how long an operation waits for a rank that does nothing.
    /// - Throws: ``TorchError``; ``WorkerError`` where the ranks are not all on this host.
    public static func join(_ place: RankEnvironment, deadline: Duration) throws -> RankMembership {
        let variables = ProcessInfo.processInfo.environment
        let rehearsal = try variables[FailureRehearsal.variable].map { text in
            guard let rehearsal = FailureRehearsal(text) else {
                throw WorkerError(.badSetting, "\(FailureRehearsal.variable)='\(text)' is not as kill:1:3:update")
            }
            return rehearsal
        }
        let listens = place.rank == 0 && !place.hasForeignStore
        let store = try RendezvousStore.tcp(
            host: place.host, port: place.port, listens: listens, socket: listens ? place.storeSocket : nil,
            prefix: place.storePrefix, timeout: max(deadline, .seconds(60)))
        let board = try board(store, place)
        let watch = try RankWatch(
            board, rank: place.rank, deadline: deadline, exitsAfter: exitTime, exitCode: RankExit.lostOther)
        return RankMembership(
            rank: place.rank, size: place.size, store: store, watch: watch, rehearsal: rehearsal)
    }

    /// Memory that all ranks map, by way of a file that is gone when all have it.
    private static func board(_ store: RendezvousStore, _ place: RankEnvironment) throws -> RankBoard {
        if place.rank == 0 {
            let folder = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
            let path = folder + "/fledge-\(UUID().uuidString)"
            let board = try RankBoard.create(at: path, ranks: place.size)
            defer { unlink(path) }
            try store.set("board", Array(path.utf8))
            for rank in 1..<place.size {
                guard try store.get("board/\(rank)") == [1] else {
                    throw WorkerError(
                        .badSetting, "rank \(rank) is on another host than rank 0; trainer.nnodes is 1: one host only")
                }
            }
            return board
        }
        let path = String(decoding: try store.get("board"), as: UTF8.self)
        do {
            let board = try RankBoard.open(path, ranks: place.size)
            try store.set("board/\(place.rank)", [1])
            return board
        } catch {
            try store.set("board/\(place.rank)", [0])
            throw error
        }
    }

    /// A mesh of all ranks, or of those that are named. To be made and used on one thread, by all its ranks at the same point.
    /// - Parameters:
    ///   - name: what tells its groups from those of another mesh of the same ranks.
    ///   - members: the mesh's ranks, of which this is one; nil: all.
    func mesh(_ shape: MeshShape, device: Device, name: String = "", members: [Int]? = nil) -> DeviceMesh {
        DeviceMesh(
            shape, rank: members?.firstIndex(of: rank) ?? rank, store: store, device: device,
            timeout: max(watch.deadline, .seconds(60)), watch: watch, members: members, name: name)
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
        guard let broken = error as? TorchError, broken.code == .operation else { return error }
        // A connection breaks a moment before its other end is seen to be gone.
        for _ in 0..<100 {
            do { try watch.verify() } catch { return error }
            guard (try? await Task.sleep(for: .milliseconds(10))) != nil else { break }
        }
        return error
    }

    /// Says that this rank ends, so that the others need not guess.
    public func leave(failure: (any Error)? = nil) { watch.leave(failure: failure.map { "\($0)" }) }
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

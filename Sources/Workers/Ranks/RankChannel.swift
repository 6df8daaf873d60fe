import Collectives
import Foundation
import TensorCore

/// What rank 0 tells the others to do, and what they answer: JSON behind its length, over groups in host memory.
actor RankChannel {
    private let executor = TensorExecutor()
    private let members: RankMembership
    /// Waiting for a command is idleness, waiting for an answer is not.
    private let commands: ProcessGroup
    private let answers: ProcessGroup

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ members: RankMembership) throws {
        self.members = members
        func group(_ name: String, isPatient: Bool) throws -> ProcessGroup {
            // Some load longer than others; those that die are noticed.
            try .gloo(
                members.store, name: name, rank: members.rank, size: members.size, timeout: .seconds(24 * 3600),
                watch: GroupWatch(members.watch, isPatient: isPatient))
        }
        commands = try group("commands", isPatient: true)
        answers = try group("answers", isPatient: false)
    }

    private struct Envelope: Codable {
        var place: RankProgress.Place
        var command: RankCommand
    }

    /// Rank 0: gives all others a command.
    func send(_ command: RankCommand) throws {
        let envelope = Envelope(place: members.progress.current, command: command)
        let bytes = try [UInt8](JSONEncoder().encode(envelope))
        try commands.broadcast([Tensor([Int64(bytes.count)])], root: 0)
        try commands.broadcast([Tensor(bytes)], root: 0)
    }

    /// Another rank: the next command.
    func receive() throws -> RankCommand {
        let count = try Tensor([Int64(0)])
        try commands.broadcast([count], root: 0)
        let bytes = try Tensor([UInt8](repeating: 0, count: try count.values(Int64.self).map(Int.init)[0]))
        try commands.broadcast([bytes], root: 0)
        let envelope = try JSONDecoder().decode(Envelope.self, from: Data(bytes.values(UInt8.self)))
        members.progress.enter(envelope.place)
        return envelope.command
    }

    /// Another rank: answers a command.
    func answer(_ answer: RankAnswer) throws {
        let bytes = try [UInt8](JSONEncoder().encode(answer))
        try answers.exchange(sends: [.init(Tensor([Int64(bytes.count)]), peer: 0)], receives: [])
        try answers.exchange(sends: [.init(Tensor(bytes), peer: 0)], receives: [])
    }

    /// Rank 0: the others' answers, rank by rank from 1.
    func collect() throws -> [RankAnswer] {
        let peers = 1..<members.size
        let counts = try peers.map { _ in try Tensor([Int64(0)]) }
        try answers.exchange(sends: [], receives: zip(counts, peers).map { .init($0, peer: $1) })
        let bodies = try counts.map { try Tensor([UInt8](repeating: 0, count: Int($0.values(Int64.self)[0]))) }
        try answers.exchange(sends: [], receives: zip(bodies, peers).map { .init($0, peer: $1) })
        return try bodies.map { try JSONDecoder().decode(RankAnswer.self, from: Data($0.values(UInt8.self))) }
    }
}

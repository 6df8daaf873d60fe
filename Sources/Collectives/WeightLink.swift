public import TensorCore

/// Weights on their way from the ranks that train to ranks elsewhere that sample, bucket by bucket, each part from a rank that holds it.
/// Every run says which version comes and, of each part, the digest of what was sent; who receives compares it with what lies in its
/// memory then. Made once for a pair of layouts, by all ranks of both sides.
public final class WeightLink {
    private let resharder: Resharder
    private let group: ProcessGroup
    private let device: Device
    /// What this rank is called where something is wrong.
    private let names: [String]

    /// What came of a run.
    public struct Report: Sendable, Hashable {
        public var version: Int
        public var traffic: ReshardReport
    }

    /// - Parameters:
    ///   - held: what this rank gives; empty for one that samples.
    ///   - wanted: what it gets; empty for one that trains.
    ///   - group: the ranks of both sides.
    ///   - names: of the group's ranks, for people.
    public init(
        held: [ShardSpec], wanted: [ShardSpec], group: ProcessGroup, device: Device, names: [String],
        options: ReshardPlan.Options = .init()
    ) throws {
        precondition(names.count == group.size, "\(names) for a group of \(group.size)")
        resharder = try Resharder(held: held, wanted: wanted, group: group, device: device, options: options)
        self.group = group
        self.device = device
        self.names = names
    }

    /// Sends and receives. Every rank of both sides calls it.
    /// - Parameters:
    ///   - version: of what this rank gives; nil for one that gives nothing.
    ///   - arrived: what is done between arrival and the comparison: acts out damage.
    /// - Returns: the version that came.
    /// - Throws: ``ReshardError`` `mismatch` where givers differ in the version, or a part is not what was sent.
    public func run(
        from sources: [LocalShard], into targets: [LocalShard], version: Int?, arrived: () throws -> Void = {}
    ) throws -> Report {
        let versions = try group.exchange(version, device: device)
        let given = versions.enumerated().filter { $1 != nil }
        guard let first = given.first, let version = first.element else {
            throw ReshardError(.mismatch, "no rank of \(names.joined(separator: ", ")) gives weights")
        }
        if let other = given.first(where: { $0.element != version }) {
            throw ReshardError(
                .mismatch,
                "\(names[first.offset]) gives weights of version \(version) and \(names[other.offset]) of version "
                    + "\(other.element ?? -1): their updates differ")
        }
        let traffic = try resharder.run(from: sources, into: targets)
        try arrived()
        try verify(sources, targets, version)
        return Report(version: version, traffic: traffic)
    }

    /// Digests of what was sent, from the ranks that did, against those of what is here.
    private func verify(_ sources: [LocalShard], _ targets: [LocalShard], _ version: Int) throws {
        let moves = resharder.plan.buckets.flatMap(\.moves).filter { !$0.isLocal }, rank = resharder.rank
        let sent = try moves.filter { $0.from == rank }.map { move in
            try Self.digest(sources[move.held].view(of: move.box), move.dtype)
        }
        let all = try group.exchange(bytes: sent.withUnsafeBytes { [UInt8]($0) }, device: device).map { bytes in
            bytes.withUnsafeBytes { bytes in
                (0..<bytes.count / 8).map { bytes.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self) }
            }
        }
        var places = names.map { _ in 0 }
        var wrong: [ReshardPlan.Move] = []
        for move in moves {
            defer { places[move.from] += 1 }
            guard move.to == rank else { continue }
            guard places[move.from] < all[move.from].count,
                try Self.digest(targets[move.wanted].view(of: move.box), move.dtype)
                    == all[move.from][places[move.from]]
            else {
                wrong.append(move)
                continue
            }
        }
        // All ranks end together, whoever found it.
        let verdicts = try group.exchange(wrong.first?.box.summary, device: device)
        guard let place = verdicts.firstIndex(where: { $0 != nil }), let what = verdicts[place] else { return }
        let senders = Set(wrong.map { names[$0.from] }).sorted().joined(separator: ", ")
        throw ReshardError(
            .mismatch,
            "weights of version \(version) arrived at \(names[place]) otherwise than they were sent"
                + (wrong.isEmpty ? "" : " by \(senders)") + ": \(what)",
            remedy: "this is a fault of Fledge or of the machine; the run's checkpoints are whole")
    }

    private static func digest(_ view: Tensor, _ type: DType) throws -> UInt64 {
        try withNoGrad { try view.to(dtype: type).contiguous().digest() }
    }
}

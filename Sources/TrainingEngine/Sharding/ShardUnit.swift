import Collectives
import Models
import TensorCore

/// Parameters that are brought together, freed and reduced at once.
///
/// Nothing here waits for the device: on CUDA a wait for a group's operation makes the stream wait. Memory that a group's operation
/// reads or writes is kept until the stream has been told to wait for it, so what is freed then is free for what is launched later.
final class ShardUnit {
    let members: [ShardedParameter]
    let trains: Bool
    private let shards: ProcessGroup?
    private let replicas: [ObjectIdentifier?: ProcessGroup]
    private let replicaOf: [ObjectIdentifier?]
    private let reduceDType: DType
    private var weights = Weights.apart
    private var scattering: Scattering?
    private var summing: [(members: [ShardedParameter], sums: [Tensor], operation: PendingOperation)] = []

    private enum Weights {
        case apart
        case underWay(PendingOperation)
        case together
    }

    private struct Scattering {
        var operation: PendingOperation
        var outputs: [(member: ShardedParameter, share: Tensor)]
        var isLast: Bool
    }

    /// - Parameters:
    ///   - shards: among whose ranks the members are shared out; nil: they are not.
    ///   - replicas: for each member, the further ranks that have parts of its gradient.
    init(_ members: [ShardedParameter], shards: ProcessGroup?, replicas: [ProcessGroup?], reduceDType: DType) {
        self.members = members
        self.shards = shards
        self.reduceDType = reduceDType
        trains = members.contains(where: \.trains)
        replicaOf = replicas.map { $0.map { ObjectIdentifier($0) } }
        var groups: [ObjectIdentifier?: ProcessGroup] = [:]
        for group in replicas { if let group { groups[ObjectIdentifier(group)] = group } }
        self.replicas = groups
    }

    // MARK: - Weights

    /// Begins to bring the weights together, if nobody has.
    func startGather() throws(TorchError) {
        guard let shards, case .apart = weights, !members.isEmpty else { return }
        var whole: [Tensor] = []
        for member in members { whole.append(try member.parameter.tensor.allocateStorage(member.paddedShape)) }
        weights = .underWay(try shards.startAllGather(members.map(\.chunk), into: whole))
    }

    /// Brings the weights together.
    func gather() throws(TorchError) {
        try startGather()
        guard case .underWay(let operation) = weights else { return }
        try operation.wait()
        weights = .together
    }

    /// Frees the whole weights.
    func release() throws(TorchError) {
        guard shards != nil, !members.isEmpty else { return }
        if case .underWay(let operation) = weights { try operation.wait() }
        if case .apart = weights { return }
        weights = .apart
        for member in members { try member.parameter.tensor.releaseStorage() }
    }

    // MARK: - Gradients

    /// Takes what backward has left in the parameters and begins to reduce it; the memory of whole gradients is freed.
    ///
    /// - Parameter isLast: whether this completes the mini-batch's sums, which ranks with copies then add up.
    func startReduce(isLast: Bool) throws(TorchError) {
        try finishReduce()
        let trained = members.filter(\.trains)
        guard !trained.isEmpty else { return }
        guard let shards else {
            for member in trained {
                let grad = try member.takeGradient()
                if let grad {
                    try member.add(grad)
                } else if !replicas.isEmpty, member.gradSum == nil {
                    // Others may have one, and count on this rank.
                    try member.add(member.padded(nil, member.sumDType))
                }
            }
            if isLast { try startSum() }
            return
        }
        var inputs: [Tensor] = [], outputs: [(ShardedParameter, Tensor)] = []
        for member in trained {
            inputs.append(try member.padded(member.takeGradient(), reduceDType))
            let chunk = member.chunk
            outputs.append((member, try Tensor.empty(chunk.shape, dtype: reduceDType, device: chunk.device)))
        }
        let operation = try shards.startReduceScatter(inputs, into: outputs.map(\.1))
        scattering = Scattering(operation: operation, outputs: outputs, isLast: isLast)
    }

    /// Adds what ``startReduce(isLast:)`` has begun to the sums.
    func finishReduce() throws(TorchError) {
        guard let scattering else { return }
        self.scattering = nil
        try scattering.operation.wait()
        for (member, share) in scattering.outputs { try member.add(share) }
        if scattering.isLast { try startSum() }
    }

    /// Begins to add up the sums of ranks that hold the same rows.
    private func startSum() throws(TorchError) {
        var seen: [ObjectIdentifier] = []
        for key in replicaOf { if let key, !seen.contains(key) { seen.append(key) } }
        for key in seen {
            guard let group = replicas[key] else { continue }
            let summed = zip(members, replicaOf).filter { $0.trains && $1 == key }.map(\.0)
            var sums: [Tensor] = []
            for member in summed {
                guard let sum = member.gradSum else { preconditionFailure("'\(member.parameter.name)' has no sum") }
                sums.append(try sum.to(dtype: reduceDType))
            }
            if sums.isEmpty { continue }
            summing.append((summed, sums, try group.startAllReduce(sums)))
        }
    }

    /// Waits for all that is under way.
    func finish() throws(TorchError) {
        try finishReduce()
        for (members, sums, operation) in summing {
            try operation.wait()
            for (member, sum) in zip(members, sums) { member.gradSum = try sum.to(dtype: member.sumDType) }
        }
        summing = []
    }
}

public import Collectives
public import Models
public import TensorCore

/// The ranks of a mesh that divide batches among them, and this rank's part of the model. Every rank makes the same calls in the same
/// order; ranks that differ along other axes than ``MeshAxis/data`` have the same sequences.
public final class DataParallel {
    public let parameters: ShardedParameters
    /// Where this rank is among those with other sequences, and how many there are.
    public let rank, count: Int
    public let work: SequenceWork
    private let model: any SequenceModel
    private let group: ProcessGroup?
    /// The stages of a pipeline, of which the last one knows results.
    private let stages: ProcessGroup?

    /// Shares out the parameters of `model`: see ``ShardedParameters``.
    public init(
        _ model: any SequenceModel, trained: [Parameter], mesh: DeviceMesh, sharding: ShardingOptions = .init(),
        axes: (Parameter) -> GradientAxes = { _ in .replicated }
    ) throws {
        self.model = model
        work = SequenceWork(model)
        group = try mesh.group(MeshAxis.data)
        stages = try mesh.group(.pipeline)
        rank = group?.rank ?? 0
        count = group?.size ?? 1
        parameters = try ShardedParameters(model, trained: trained, mesh: mesh, settings: sharding, axes: axes)
    }

    // MARK: - What ranks must know of one another

    /// All ranks' values, rank by rank.
    public func gathered(_ values: [Int]) throws(TorchError) -> [[Int]] {
        guard let group else { return [values] }
        let flat = try group.gathered(values.map(Int64.init), device: parameters.mesh.device).map(Int.init)
        return (0..<count).map { Array(flat[$0 * values.count..<($0 + 1) * values.count]) }
    }

    /// All ranks' bytes, of any lengths.
    public func gathered(_ bytes: [UInt8]) throws(TorchError) -> [[UInt8]] {
        try group?.exchange(bytes: bytes, device: parameters.mesh.device) ?? [bytes]
    }

    /// What the last stage of this rank's pipeline gives; where there is none, `bytes`.
    private func ofLastStage(_ bytes: [UInt8]) throws -> [UInt8] {
        guard let stages else { return bytes }
        return try stages.exchange(bytes: bytes, device: parameters.mesh.device)[stages.size - 1]
    }

    public func greatest(_ value: Int) throws(TorchError) -> Int { try gathered([value]).map { $0[0] }.max() ?? value }
    public func sum(_ value: Int) throws(TorchError) -> Int { try gathered([value]).reduce(0) { $0 + $1[0] } }

    /// The counts of the whole mini-batch, from this rank's part of it.
    public func whole(_ part: BatchTotals) throws(TorchError) -> BatchTotals {
        let all = try gathered([part.sequences, part.tokens, part.width])
        return BatchTotals(
            sequences: all.reduce(0) { $0 + $1[0] }, tokens: all.reduce(0) { $0 + $1[1] },
            width: all.map { $0[2] }.max() ?? 0)
    }

    /// The metrics of all ranks' micro-batches.
    public func whole(_ part: MetricSums) throws -> MetricSums {
        var sums = MetricSums()
        for bytes in try gathered(ofLastStage(part.encoded())) { sums.merge(try MetricSums(decoding: bytes)) }
        return sums
    }

    // MARK: - Sharing out sequences

    /// The indices of this rank's sequences of a batch that all ranks have: see ``BatchAssignment``.
    public func share(of sequences: [TrainingSequence], sharesPrefixes: Bool = true) -> [Int] {
        BatchAssignment.assign(sequences, ranks: count, work: work, sharesPrefixes: sharesPrefixes)[rank]
    }

    /// Puts together what each rank has found of its share of `total` sequences, a row of numbers for each.
    public func joined(_ rows: [[Float]], of share: [Int], total: Int) throws -> [[Float]] {
        var words: [UInt32] = []
        for (index, row) in zip(share, rows) { words += [UInt32(index), UInt32(row.count)] + row.map(\.bitPattern) }
        var all = [[Float]](repeating: [], count: total)
        for bytes in try gathered(ofLastStage(words.withUnsafeBytes { [UInt8]($0) })) {
            let words = bytes.withUnsafeBytes { bytes in
                (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) }
            }
            var next = 0
            while next < words.count {
                let index = Int(words[next]), start = next + 2
                next = start + Int(words[next + 1])
                all[index] = words[start..<next].map { Float(bitPattern: $0) }
            }
        }
        return all
    }

    // MARK: - Passes

    /// Runs `body` on each of this rank's micro-batches, between the parameters' ``ShardedParameters/begin()`` and
    /// ``ShardedParameters/end()``, and with nil for each that another rank has more.
    public func forEach<Micro>(_ micros: [Micro], _ body: (_ micro: Micro?, _ isLast: Bool) throws -> Void) throws {
        let count = try greatest(micros.count)
        try parameters.begin()
        for index in 0..<count { try body(index < micros.count ? micros[index] : nil, index + 1 == count) }
        try parameters.end()
    }

    /// A pass that computes nothing to keep, for a rank that has no micro-batch left: the others' collectives need it. Its result is
    /// zero, and its gradients are.
    public func idle() throws -> Tensor {
        let batch = try idleBatch()
        let hidden_TC = try model.hiddenStates(
            ids: batch.ids, positions: batch.positions, attention: batch.attention)
        return try hidden_TC.multiplied(by: 0).sum()
    }

    /// What ``idle()`` runs.
    func idleBatch() throws(TorchError) -> PipelineSchedule.MicroBatch {
        // As many tokens as ranks may divide one sequence among.
        let mesh = parameters.mesh, tokens = mesh.size(.sequence) * mesh.size(.tensor), device = model.device
        return PipelineSchedule.MicroBatch(
            ids: try Tensor([Int64](repeating: 0, count: tokens), device: device),
            positions: try Tensor((0..<tokens).map(Int64.init), device: device),
            attention: PackedAttention(segments: [PackedSegment(start: 0, length: tokens)]))
    }
}

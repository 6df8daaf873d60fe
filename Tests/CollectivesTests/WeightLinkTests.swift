import Collectives
import Synchronization
import TensorCore
import TestSupport
import Testing

/// Weights from two ranks that train to two that sample.
@Suite struct WeightLinkTests {
    private static let names = ["rank 0", "rank 1", "rank 2", "rank 3"]

    /// Runs one delivery from the first layout to the second, of two ranks each.
    /// - Returns: the error of each rank, where it has one.
    private func deliver(
        _ from: String, _ to: String, _ type: DType = .float32, versions: [Int?] = [5, 5, nil, nil],
        arrived: @escaping @Sendable (Int, [LocalShard]) throws -> Void = { _, _ in }
    ) throws -> [String?] {
        let rules = ReshardTests.dense
        let giving = ShardLayout(rules.parameters, mesh: try MeshShape(parsing: from), dtype: .float32)
        let getting = ShardLayout(rules.parameters, mesh: try MeshShape(parsing: to), dtype: type)
        let store = try RendezvousStore.local(), errors = Errors()
        try onRanks(4) { rank in
            Torch.threadCount = 1
            let group = try ProcessGroup.gloo(store, name: "weights", rank: rank, size: 4, timeout: .seconds(60))
            let held = rank < 2 ? try giving.ranks[rank].map(ReshardTests.shard) : []
            let wanted = rank < 2 ? [] : getting.ranks[rank - 2]
            let targets = try wanted.map { spec in
                LocalShard(box: spec.box, tensor: try Tensor.zeros(spec.box.sizes, dtype: spec.dtype, device: .cpu))
            }
            let link = try WeightLink(
                held: held.map(\.spec), wanted: wanted, group: group, device: .cpu, names: Self.names)
            for _ in 0..<2 {
                do {
                    let report = try link.run(from: held, into: targets, version: versions[rank]) {
                        try arrived(rank, targets)
                    }
                    #expect(report.version == 5)
                    #expect((report.traffic.receivedBytes > 0) == (rank >= 2))
                    for target in targets {
                        let right = try ReshardTests.shard(ShardSpec(box: target.box, dtype: .float32)).tensor
                        #expect(try target.tensor.equals(right.to(dtype: type)), "\(target.box)")
                    }
                } catch let error as ReshardError {
                    errors.note(rank, "\(error)")
                }
            }
        }
        return errors.all
    }

    private final class Errors: Sendable {
        private let texts = Mutex([String?](repeating: nil, count: 4))
        var all: [String?] { texts.withLock { $0 } }
        func note(_ rank: Int, _ text: String) { texts.withLock { $0[rank] = text } }
    }

    @Test(arguments: [
        ("fsdp2", "dp2", DType.float32), ("tp2", "dp2", .float32), ("fsdp2", "tp2", .bfloat16),
        ("pp2", "tp2", .float32),
        ("dp2", "dp2", .bfloat16),
    ])
    func weightsArriveBitForBit(from: String, to: String, type: DType) throws {
        #expect(try deliver(from, to, type) == [nil, nil, nil, nil])
    }

    /// Every rank ends, and says at whom and what.
    @Test func oneOtherElementIsFoundAndNamed() throws {
        let found = try deliver("fsdp2", "dp2") { rank, targets in
            guard rank == 3, let last = targets.last else { return }
            let flat = try last.tensor.narrowed(0, 0..<1)
            try withNoGrad { try flat.copy(from: flat.multiplied(by: 1.0001)) }
        }
        for text in found {
            #expect(text?.contains("weights of version 5 arrived at rank 3 otherwise than they were sent") == true)
        }
        #expect(found[3]?.contains("sent by rank") == true, "\(found)")
    }

    @Test func ranksThatGiveOtherVersionsAreRefused() throws {
        for text in try deliver("dp2", "dp2", versions: [5, 6, nil, nil]) {
            #expect(text?.contains("rank 0 gives weights of version 5 and rank 1 of version 6") == true)
        }
        for text in try deliver("dp2", "dp2", versions: [nil, nil, nil, nil]) {
            #expect(text?.contains("gives weights") == true)
        }
    }
}

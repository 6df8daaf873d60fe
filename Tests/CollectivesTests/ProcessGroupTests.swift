import Collectives
import TensorCore
import TestSupport
import Testing

@Suite struct ProcessGroupTests {
    @Test(arguments: [2, 3, 4], [DType.float32, .bfloat16, .int64])
    func collectivesGiveWhatTheyPromise(size: Int, dtype: DType) throws {
        let store = try RendezvousStore.local()
        try onRanks(size) { rank in
            let group = try ProcessGroup.gloo(store, name: "all", rank: rank, size: size, timeout: .seconds(30))
            func values(_ tensor: Tensor) throws -> [Int] {
                try tensor.to(dtype: .float32).values(Float.self).map(Int.init)
            }
            func tensor(_ values: [Int]) throws -> Tensor { try Tensor(values.map(Float.init)).to(dtype: dtype) }

            let sum = try tensor([rank, 10 * rank])
            try group.allReduce([sum])
            let total = size * (size - 1) / 2
            #expect(try values(sum) == [total, 10 * total])

            let most = try tensor([rank])
            try group.allReduce([most], .max)
            #expect(try values(most) == [size - 1])

            let gathered = try tensor(Array(repeating: 0, count: 2 * size))
            try group.allGather([tensor([rank, -rank])], into: [gathered])
            #expect(try values(gathered) == (0..<size).flatMap { [$0, -$0] })

            let piece = try tensor([0])
            try group.reduceScatter([tensor((0..<size).map { $0 + rank })], into: [piece])
            #expect(try values(piece) == [size * rank + total])

            let told = try tensor([rank])
            try group.broadcast([told], root: size - 1)
            #expect(try values(told) == [size - 1])

            // Rank r sends p + 1 rows to rank p.
            let rows = (0..<size).map { $0 + 1 }
            let input = try tensor((0..<size).flatMap { Array(repeating: 10 * rank + $0, count: $0 + 1) })
            let output = try tensor(Array(repeating: 0, count: size * (rank + 1)))
            try group.allToAll(
                input, into: output, inputRows: rows, outputRows: Array(repeating: rank + 1, count: size))
            #expect(try values(output) == (0..<size).flatMap { Array(repeating: 10 * $0 + rank, count: rank + 1) })

            let next = (rank + 1) % size, last = (rank + size - 1) % size
            let received = try (tensor([0]), tensor([0]))
            try group.exchange(
                sends: [.init(tensor([rank]), peer: next), .init(tensor([rank + 100]), peer: next)],
                receives: [.init(received.0, peer: last), .init(received.1, peer: last)])
            #expect(try values(received.0) == [last])
            #expect(try values(received.1) == [last + 100])
            try group.barrier()
        }
    }

    @Test func aRankThatStaysAwayIsAnErrorAfterTheTimeout() throws {
        let store = try RendezvousStore.local()
        let error = #expect(throws: TorchError.self) {
            try onRanks(2) { rank in
                let group = try ProcessGroup.gloo(store, name: "late", rank: rank, size: 2, timeout: .milliseconds(300))
                if rank == 0 { try group.allReduce([Tensor([1])]) }
            }
        }
        #expect(error?.description.contains("all-reduce in late (rank 0 of 2)") == true)
    }
}

@Suite struct DeviceMeshTests {
    @Test func neighboursAlongTheLastAxisAreNextToEachOther() {
        let shape = MeshShape([.tensor: 2, .shard: 3, .pipeline: 2])
        #expect(shape.rankCount == 12)
        #expect(shape.description == "pp2×fsdp3×tp2")
        #expect(shape.group(of: 5, along: [.tensor]) == [4, 5])
        #expect(shape.group(of: 5, along: [.shard]) == [1, 3, 5])
        #expect(shape.group(of: 5, along: [.pipeline]) == [5, 11])
        #expect(shape.group(of: 5, along: [.shard, .tensor]) == [0, 1, 2, 3, 4, 5])
        #expect(shape.index(of: 5, along: [.shard]) == 2)
        #expect((0..<12).map { shape.coordinate(.shard, of: $0) } == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2])
    }

    @Test func groupsConnectTheRanksAlongTheirAxes() throws {
        let store = try RendezvousStore.local(), shape = MeshShape([.shard: 2, .tensor: 2])
        try onRanks(4) { rank in
            let mesh = DeviceMesh(shape, rank: rank, store: store)
            #expect(try mesh.group(.pipeline) == nil)
            for axes in [[MeshAxis.tensor], [.shard], [.shard, .tensor]] {
                let group = try #require(try mesh.group(axes))
                let sum = try Tensor([Float(rank)])
                try group.allReduce([sum])
                #expect(try sum.item() == Double(shape.group(of: rank, along: axes).reduce(0, +)))
            }
        }
    }
}

@Suite struct ShardBoxTests {
    @Test func boxesIntersect() {
        let box = ShardBox(name: "w", shape: [8, 6], ranges: [2..<6, 0..<6])
        #expect(box.rows(1..<3).ranges == [3..<5, 0..<6])
        let column = ShardBox(name: "w", shape: [8, 6], ranges: [0..<8, 3..<6])
        #expect(box.intersection(column)?.ranges == [2..<6, 3..<6])
        #expect(box.intersection(ShardBox(name: "w", shape: [8, 6], ranges: [6..<8, 0..<6])) == nil)
        #expect(box.intersection(ShardBox(whole: "v", shape: [8, 6])) == nil)
    }

    @Test func aViewIsThePartOfTheBox() throws {
        let box = ShardBox(name: "w", shape: [4, 3], ranges: [2..<4, 0..<3])
        let shard = LocalShard(box: box, tensor: try Tensor((0..<6).map(Float.init), shape: [2, 3]))
        let part = ShardBox(name: "w", shape: [4, 3], ranges: [3..<4, 1..<3])
        #expect(try shard.view(of: part).values(Float.self) == [4, 5])
    }
}

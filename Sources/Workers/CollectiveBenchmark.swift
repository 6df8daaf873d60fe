import Collectives
public import TensorCore

/// Measures the operations between ranks, each first checked for what it gives.
public struct CollectiveBenchmark: Sendable {
    public enum Operation: String, CaseIterable, Sendable {
        case allReduce = "all_reduce"
        case allGather = "all_gather"
        case reduceScatter = "reduce_scatter"
        case allToAll = "all_to_all"

        /// Bytes that must cross each rank's link for each of the operation's, by which rates of different operations and numbers of
        /// ranks compare (the "bus bandwidth" of NVIDIA's nccl-tests).
        func busFactor(_ ranks: Int) -> Double {
            let share = Double(ranks - 1) / Double(ranks)
            return self == .allReduce ? 2 * share : share
        }
    }

    public struct Result: Sendable {
        public var operation: Operation
        public var dtype: DType
        /// Of the whole tensor: a rank's for all-reduce and all-to-all, all ranks' for the others.
        public var bytes: Int
        /// The fastest run.
        public var seconds: Double
        public var ranks: Int
        public var busBandwidth: Double { Double(bytes) / seconds * operation.busFactor(ranks) }
    }

    public let device: Device
    public let sizes: [Int]
    public let repeats: Int

    public init(device: Device, sizes: [Int], repeats: Int) {
        self.device = device
        self.sizes = sizes
        self.repeats = repeats
    }

    /// - Throws: ``WorkerError`` with code `ranks` when an operation gives wrong numbers.
    public func run(_ members: RankMembership) throws -> [Result] {
        let mesh = members.mesh(MeshShape([.replicate: members.size]), device: device)
        guard let group = try mesh.group(.replicate) else { return [] }
        try device.makeCurrent()
        members.progress.enter(.init(step: 0, phase: "check"))
        for dtype in [DType.float32, .bfloat16, .int64, .uint8] {
            for operation in Operation.allCases { try check(operation, dtype, group) }
        }
        var results: [Result] = []
        for bytes in sizes {
            for operation in Operation.allCases {
                members.progress.enter(.init(step: 0, phase: "\(operation.rawValue) of \(bytes) bytes"))
                results.append(try measure(operation, bytes, group))
            }
        }
        return results
    }

    /// Small whole numbers, exact in every type.
    private func check(_ operation: Operation, _ dtype: DType, _ group: ProcessGroup) throws {
        let size = group.size, rank = group.rank
        func tensor(_ values: [Int]) throws -> Tensor {
            try Tensor(values.map(Float.init)).to(dtype: dtype).to(device)
        }
        func values(_ tensor: Tensor) throws -> [Int] {
            try tensor.to(.cpu).to(dtype: .float32).values(Float.self).map { Int($0) }
        }
        let total = size * (size - 1) / 2
        let found: [Int], wanted: [Int]
        switch operation {
        case .allReduce:
            let sum = try tensor([rank, 1, rank + 2])
            try group.allReduce([sum])
            (found, wanted) = (try values(sum), [total, size, total + 2 * size])
        case .allGather:
            let all = try tensor([Int](repeating: 0, count: 2 * size))
            try group.allGather([tensor([rank, rank + 1])], into: [all])
            (found, wanted) = (try values(all), (0..<size).flatMap { [$0, $0 + 1] })
        case .reduceScatter:
            let piece = try tensor([0, 0])
            try group.reduceScatter([tensor((0..<2 * size).map { $0 + rank })], into: [piece])
            (found, wanted) = (try values(piece), [2 * rank * size + total, (2 * rank + 1) * size + total])
        case .allToAll:
            let got = try tensor([Int](repeating: 0, count: size * (rank + 1)))
            let sent = try tensor((0..<size).flatMap { Array(repeating: 8 * rank + $0, count: $0 + 1) })
            try group.allToAll(
                sent, into: got, inputRows: (0..<size).map { $0 + 1 },
                outputRows: Array(repeating: rank + 1, count: size))
            (found, wanted) = (try values(got), (0..<size).flatMap { Array(repeating: 8 * $0 + rank, count: rank + 1) })
        }
        guard found == wanted else {
            throw WorkerError(
                .ranks, "\(operation.rawValue) of \(dtype) on rank \(rank) of \(size) gives \(found), not \(wanted)")
        }
    }

    private func measure(_ operation: Operation, _ bytes: Int, _ group: ProcessGroup) throws -> Result {
        let size = group.size, dtype = DType.bfloat16
        let part = max(1, bytes / 2 / size), count = part * size
        let whole = try Tensor.zeros([count], dtype: dtype, device: device)
        let piece = try Tensor.zeros([part], dtype: dtype, device: device)
        let other = operation == .allToAll ? try Tensor.zeros([count], dtype: dtype, device: device) : whole
        let rows = [Int](repeating: part, count: size)
        func once() throws {
            switch operation {
            case .allReduce: try group.allReduce([whole])
            case .allGather: try group.allGather([piece], into: [whole])
            case .reduceScatter: try group.reduceScatter([whole], into: [piece])
            case .allToAll: try group.allToAll(whole, into: other, inputRows: rows, outputRows: rows)
            }
        }
        for _ in 0..<2 { try once() }
        // Several in a row, so that a launch does not count.
        let batch = max(1, min(20, (64 << 20) / bytes))
        let clock = ContinuousClock()
        var best = Double.infinity
        for _ in 0..<repeats {
            try group.barrier()
            try device.synchronize()
            let start = clock.now
            for _ in 0..<batch { try once() }
            try device.synchronize()
            best = min(best, (clock.now - start) / .seconds(1) / Double(batch))
        }
        return Result(operation: operation, dtype: dtype, bytes: count * 2, seconds: best, ranks: size)
    }
}

import Checkpoints
import Collectives
import Foundation
import OrderedCollections
import TensorCore
import Testing

/// Parts of a checkpoint's tensors, read without the rest.
@Suite struct PartialLoadTests {
    private static let config = #"{"architectures": ["LlamaForCausalLM"]}"#

    private func source(_ folder: TemporaryFolder, _ tensors: [(name: String, tensor: Tensor)]) throws -> ModelSource {
        try HuggingFaceExporter.write(
            tensors: tensors, config: ModelConfig([:]), to: folder.path + "/model", maxShardBytes: 1 << 30)
        try Self.config.write(toFile: folder.path + "/model/config.json", atomically: true, encoding: .utf8)
        return try ModelSource.open(folder.path + "/model")
    }

    private func slice(_ whole: Tensor, _ box: ShardBox) throws -> Tensor {
        var part = try whole.reshaped(box.shape)
        for (dim, range) in box.ranges.enumerated() { part = try part.narrowed(dim, range) }
        return try part.contiguous()
    }

    @Test(arguments: [DType.float32, .bfloat16, .float16], [nil, .cached, .direct] as [ReadMode?])
    func anyBoxIsThatSliceOfTheWhole(wanted: DType, mode: ReadMode?) throws {
        let folder = try TemporaryFolder()
        let shapes = [[11], [7, 9], [6, 4, 5], [3, 4, 5, 6]]
        var tensors: [(name: String, tensor: Tensor)] = []
        for (index, shape) in shapes.enumerated() {
            for type in [DType.float32, .bfloat16] {
                let values = try Tensor.randomNormal(shape, generator: RandomGenerator(seed: UInt64(index)))
                tensors.append(("\(index).\(type)", try values.to(dtype: type)))
            }
        }
        let source = try source(folder, tensors)
        var random = SplitMix(state: 11)
        var destinations: [TensorDestination] = []
        for (name, tensor) in tensors {
            for _ in 0..<12 {
                let ranges = tensor.shape.map { size in
                    let a = Int(random.next() % UInt64(size)), b = Int(random.next() % UInt64(size))
                    return random.next() % 3 == 0 ? 0..<size : min(a, b)..<max(a, b) + 1
                }
                let box = ShardBox(name: name, shape: tensor.shape, ranges: ranges)
                destinations.append(TensorDestination(box, tensor: try Tensor.full(box.sizes, 7, dtype: wanted)))
            }
        }
        // As rows of another shape, and nothing at all.
        let rows = ShardBox(name: "2.float32", shape: [24, 5], ranges: [3..<17, 1..<4])
        destinations.append(TensorDestination(rows, tensor: try Tensor.full(rows.sizes, 7, dtype: wanted)))
        let none = ShardBox(name: "1.float32", shape: [7, 9], ranges: [2..<2, 0..<9])
        destinations.append(TensorDestination(none, tensor: try Tensor.full(none.sizes, 7, dtype: wanted)))
        try source.load(destinations, mode: mode)
        for destination in destinations {
            let box = try #require(destination.box)
            let expected = try slice(source.tensor(named: box.name, dtype: wanted), box)
            #expect(try destination.tensor.digest() == expected.digest(), "\(box)")
        }
    }

    /// Rows too far apart to be read over, runs longer than a read, and many reads of narrow columns.
    @Test func largeTensorsInReadsOfTheirOwn() throws {
        let folder = try TemporaryFolder()
        let whole = try Tensor.randomNormal([24, 300_000], generator: RandomGenerator(seed: 3))
        let source = try source(folder, [("large", whole)])
        let boxes =
            [
                [1..<23, 5..<70_000], [0..<24, 299_990..<300_000], [2..<3, 0..<300_000], [0..<24, 100..<299_000],
            ].map { ShardBox(name: "large", shape: [24, 300_000], ranges: $0) } + [
                ShardBox(name: "large", shape: [72_000, 100], ranges: [10..<71_000, 25..<75])
            ]
        let destinations = try boxes.map { TensorDestination($0, tensor: try Tensor.zeros($0.sizes)) }
        let statistics = try source.load(destinations)
        #expect(statistics.bytes == boxes.reduce(0) { $0 + 4 * $1.count })
        for destination in destinations {
            let box = try #require(destination.box)
            #expect(try destination.tensor.digest() == slice(whole, box).digest(), "\(box)")
        }
    }

    @Test func aBoxOfAnotherTensorOrADestinationOfAnotherShapeIsRefused() throws {
        let folder = try TemporaryFolder()
        let source = try source(folder, [("a", Tensor.ones([4, 6]))])
        let box = ShardBox(name: "a", shape: [5, 6], ranges: [0..<2, 0..<6])
        #expect(throws: CheckpointError.self) {
            try source.load([TensorDestination(box, tensor: Tensor.zeros([2, 6]))])
        }
        let good = ShardBox(name: "a", shape: [4, 6], ranges: [0..<2, 0..<6])
        #expect(throws: CheckpointError.self) {
            try source.load([TensorDestination(good, tensor: Tensor.zeros([3, 6]))])
        }
    }
}

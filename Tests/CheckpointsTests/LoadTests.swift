import Checkpoints
import Foundation
import OrderedCollections
import TensorCore
import Testing

@Suite struct LoadTests {
    static let types: [DType] = [.float32, .bfloat16, .float16, .float64, .float8e4m3, .float8e5m2]

    /// Numbers of many sizes, with the values that conversions get wrong.
    static func values(_ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(state: seed)
        let special: [Float] = [
            0, -0.0, 1, .infinity, -.infinity, .greatestFiniteMagnitude, .leastNonzeroMagnitude, 1.00390625, 65519,
            65520,
        ]
        return (0..<count).map { index in
            index < special.count
                ? special[index] : Float(bitPattern: UInt32(truncatingIfNeeded: random.next()) % 0x7F00_0000)
        }
    }

    /// A sharded folder: every type, sizes from nothing to more than a read, and an index.
    private func folder() throws -> (TemporaryFolder, SafetensorsModel) {
        let folder = try TemporaryFolder()
        var tensors: [(name: String, tensor: Tensor)] = []
        for (index, type) in Self.types.enumerated() {
            let plain = try Tensor(Self.values(35, seed: UInt64(index)), shape: [5, 7])
            tensors.append(("small.\(type)", try plain.to(dtype: type)))
        }
        tensors.append(("empty", try Tensor.zeros([0, 3])))
        // Two reads, of 8 MiB and a bit.
        let large = try Tensor.randomNormal([4_400_001], generator: RandomGenerator(seed: 9))
        tensors.append(("large", try large.to(dtype: .bfloat16)))
        tensors.append(("last", try Tensor(Self.values(6, seed: 10), shape: [1, 2, 3])))
        try HuggingFaceExporter.write(
            tensors: tensors, config: ModelConfig([:]), to: folder.path + "/model", maxShardBytes: 1 << 20)
        return (folder, try SafetensorsModel(folder: folder.path + "/model"))
    }

    private func source(_ folder: TemporaryFolder) throws -> ModelSource {
        let config = #"{"architectures": ["LlamaForCausalLM"]}"#
        try config.write(toFile: folder.path + "/model/config.json", atomically: true, encoding: .utf8)
        return try ModelSource.open(folder.path + "/model")
    }

    @Test(arguments: [nil, .cached, .cachedOnce, .direct] as [ReadMode?], [.float32, .bfloat16, .float16] as [DType])
    func fillsTensorsOfAnyType(_ mode: ReadMode?, _ wanted: DType) throws {
        let (folder, model) = try folder()
        let source = try source(folder)
        #expect(model.files.count > 1)
        let destinations = try model.tensorNames.reversed().map { name in
            TensorDestination(name: name, tensor: try Tensor.full(source.shape(of: name), 7, dtype: wanted))
        }
        let statistics = try source.load(destinations, mode: mode)
        #expect(statistics.bytes == model.files.reduce(0) { $0 + $1.tensorNames.reduce(0) { $0 + size(model, $1) } })
        for destination in destinations {
            let expected = try model.tensor(named: destination.name).to(dtype: wanted)
            // Bytes: NaN is not equal to itself.
            #expect(try destination.tensor.digest() == expected.digest(), "\(destination.name) as \(wanted)")
        }
    }

    private func size(_ model: SafetensorsModel, _ name: String) -> Int {
        (try? model.entry(named: name).range.count) ?? 0
    }

    @Test func fillsRowsOfALargerTensorAndNothingElse() throws {
        let (folder, _) = try folder()
        let source = try source(folder)
        let whole = try Tensor.full([12, 7], 3)
        let view = try whole.narrowed(0, 2..<7)
        try source.load([TensorDestination(name: "small.bfloat16", tensor: view)])
        let expected = try source.tensor(named: "small.bfloat16", dtype: .float32)
        #expect(try whole.narrowed(0, 2..<7).digest() == expected.digest())
        #expect(try whole.narrowed(0, 0..<2).values(Float.self).allSatisfy { $0 == 3 })
        #expect(try whole.narrowed(0, 7..<12).values(Float.self).allSatisfy { $0 == 3 })
    }

    @Test(arguments: [.cached, .direct] as [ReadMode])
    func readsDataThatIsNotAligned(_ mode: ReadMode) throws {
        let folder = try TemporaryFolder()
        try FileManager.default.createDirectory(atPath: folder.path + "/model", withIntermediateDirectories: true)
        let header = #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]} }"#
        var content = SafetensorsTests.file(
            header + String(repeating: " ", count: (9 - header.utf8.count % 8) % 8), data: 8)
        content[content.count - 1] = 0x40
        try folder.write(content, "model/model.safetensors")
        let source = try source(folder)
        for type in [DType.float32, .bfloat16] {
            let tensor = try Tensor.full([2], 9, dtype: type)
            try source.load([TensorDestination(name: "a", tensor: tensor)], mode: mode)
            #expect(try tensor.values(Float.self) == [0, 2])
        }
    }

    @Test(arguments: [.cached, .cachedOnce, .direct] as [ReadMode])
    func aFileCutShortAfterOpeningIsAnError(_ mode: ReadMode) throws {
        let (folder, model) = try folder()
        let source = try source(folder)
        let entry = try model.entry(named: "large")
        let file = try #require(model.files.first { $0.contains("large") })
        let handle = try #require(FileHandle(forWritingAtPath: file.path))
        try handle.truncate(atOffset: UInt64(entry.range.lowerBound + 8_500_001))
        for type in [DType.float32, .bfloat16] {
            let tensor = try Tensor.zeros([4_400_001], dtype: type)
            let error = #expect(throws: CheckpointError.self) {
                try source.load([TensorDestination(name: "large", tensor: tensor)], mode: mode)
            }
            #expect(error?.code == .truncated && error?.place == file.path)
        }
    }

    @Test func refusesWhatDoesNotFit() throws {
        let (folder, _) = try folder()
        let source = try source(folder)
        func code(_ name: String, _ tensor: Tensor) -> CheckpointError.Code? {
            let error = #expect(throws: CheckpointError.self) {
                try source.load([TensorDestination(name: name, tensor: tensor)])
            }
            return error?.code
        }
        #expect(try code("absent", Tensor.zeros([1])) == .missingTensor)
        #expect(try code("small.float32", Tensor.zeros([7, 5])) == .malformed)
        #expect(try code("small.float32", Tensor.zeros([7, 5]).transposed()) == .malformed)
    }

    @Test func expandsGGUFInPlace() throws {
        let folder = try TemporaryFolder()
        let source = try ModelSource.open(folder.write(GGUFBuilder.llama().build(), "model.gguf"))
        for type in [DType.float32, .bfloat16, .float16] {
            let whole = try source.tensorNames.map { name in
                let shape = try source.shape(of: name)
                return (name, try Tensor.full([shape[0] + 2] + shape.dropFirst(), 5, dtype: type))
            }
            try source.load(
                whole.map { name, tensor in
                    TensorDestination(name: name, tensor: try tensor.narrowed(0, 1..<tensor.size(0) - 1))
                })
            for (name, tensor) in whole {
                let rows = try tensor.narrowed(0, 1..<tensor.size(0) - 1)
                #expect(try rows.equals(source.tensor(named: name, dtype: type)), "\(name)")
                #expect(try tensor.narrowed(0, 0..<1).values(Float.self).allSatisfy { $0 == 5 })
                #expect(
                    try tensor.narrowed(0, tensor.size(0) - 1..<tensor.size(0)).values(Float.self).allSatisfy {
                        $0 == 5
                    })
            }
        }
    }
}

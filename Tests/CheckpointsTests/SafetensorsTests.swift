import Checkpoints
import TensorCore
import TestSupport
import Testing

@Suite struct SafetensorsTests {
    /// A file of a header and `data` zero bytes.
    static func file(_ header: String, data: Int = 0) -> [UInt8] {
        let header = Array(header.utf8)
        let length = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) }
        return length + header + [UInt8](repeating: 0, count: data)
    }

    static func sample() throws -> [(name: String, tensor: Tensor)] {
        [
            ("odd", try Tensor([1, 2, 3] as [UInt8])),
            ("model.weight", try Tensor((0..<12).map(Float.init), shape: [3, 4])),
            ("half", try Tensor([0.5, -2] as [Float]).to(dtype: .bfloat16)),
            ("half16", try Tensor([0.5, -2] as [Float]).to(dtype: .float16)),
            ("scalar", try Tensor([7] as [Int64], shape: [])),
            ("empty", try Tensor.zeros([0, 4])),
            ("mask", try Tensor([true, false])),
            ("eight", try Tensor([1.5, -2] as [Float]).to(dtype: .float8e4m3)),
            ("view", try Tensor((0..<6).map(Float.init), shape: [2, 3]).transposed()),
        ]
    }

    @Test func readsWhatItWrites() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/model.safetensors"
        let tensors = try Self.sample()
        try SafetensorsWriter.write(tensors, metadata: ["step": "3"], to: path)
        let file = try SafetensorsFile(path: path)
        #expect(file.metadata == ["format": "pt", "step": "3"])
        #expect(Set(file.tensorNames) == Set(tensors.map(\.name)))
        for (name, tensor) in tensors {
            let read = try file.tensor(named: name)
            #expect(read.shape == tensor.shape)
            #expect(read.dtype == tensor.dtype)
            if tensor.dtype != .float8e4m3 { #expect(try read.equals(tensor)) }
            #expect(try file.entry(named: name).range.lowerBound % tensor.dtype.size == 0)
        }
        let again = folder.path + "/again.safetensors"
        try SafetensorsWriter.write(tensors, metadata: ["step": "3"], to: again)
        #expect(try bytes(of: path) == bytes(of: again))
    }

    @Test func writingToATensorLeavesTheFileAlone() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/model.safetensors"
        try SafetensorsWriter.write([("a", Tensor([1, 2] as [Float]))], to: path)
        let before = try bytes(of: path)
        // The file object goes first: the tensor keeps the map alive.
        let tensor = try SafetensorsFile(path: path).tensor(named: "a")
        try tensor.withUnsafeMutableBytes { $0.storeBytes(of: Float(9), as: Float.self) }
        #expect(try tensor.values(Float.self) == [9, 2])
        #expect(try bytes(of: path) == before)
    }

    @Test func copiesDataThatIsNotAligned() throws {
        let folder = try TemporaryFolder()
        let header = #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]} }"#
        var content = Self.file(header + String(repeating: " ", count: (9 - header.utf8.count % 8) % 8), data: 8)
        content[content.count - 1] = 0x40
        let path = try folder.write(content, "a.safetensors")
        #expect(try SafetensorsFile(path: path).tensor(named: "a").values(Float.self) == [0, 2])
    }

    @Test(arguments: [
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4, CheckpointError.Code.malformed),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4, .truncated),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 5, .malformed),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8, .malformed),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 8, .malformed),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}"#, 8, .malformed),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9223372036854775807]}}"#, 8, .truncated),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999999999]}}"#, 8, .malformed),
        (#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, .malformed),
        (#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#, 4, .malformed),
        (
            #"{"a":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,4]}}"#, 4,
            .malformed
        ),
        (#"{"a":{"dtype":"F32","shape":[0,4611686018427387904,8],"data_offsets":[0,0]}}"#, 0, .malformed),
        (#"{"a":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}}"#, 4, .unsupported),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#, 4, .malformed),
        (#"{"a":{"dtype":"F32","data_offsets":[0,4]}}"#, 4, .malformed),
        (#"{"a":{"shape":[1],"data_offsets":[0,4]}}"#, 4, .malformed),
        (#"{"a":7}"#, 0, .malformed),
        (#"{"__metadata__":{"a":1}}"#, 0, .malformed),
        (#"{"__metadata__":[]}"#, 0, .malformed),
        (
            #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#,
            6,
            .malformed
        ),
        (
            #"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
            2,
            .malformed
        ),
        ("[]", 0, .malformed), ("", 0, .malformed), ("{", 0, .malformed), (#"{"a":{}}x"#, 0, .malformed),
    ])
    func refusesABadHeader(_ header: String, _ data: Int, _ code: CheckpointError.Code) throws {
        let folder = try TemporaryFolder()
        let path = try folder.write(Self.file(header, data: data), "bad.safetensors")
        let error = #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path) }
        #expect(error?.code == code)
        #expect(error?.place == path)
    }

    @Test func refusesLengthsThatAreNoHeader() throws {
        let folder = try TemporaryFolder()
        for content in [[], [1, 2, 3], [UInt8](repeating: 0xFF, count: 16), [9, 0, 0, 0, 0, 0, 0, 0, 0x7B]] {
            let path = try folder.write(content, "bad.safetensors")
            #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path) }
        }
    }

    @Test func anyDamageIsAnErrorOrHarmless() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/model.safetensors"
        try SafetensorsWriter.write(Self.sample(), to: path)
        let original = try bytes(of: path)
        var random = SplitMix(state: 5)
        var refused = 0
        for _ in 0..<3000 {
            let damaged = try folder.write(random.mutate(original), "damaged.safetensors")
            do {
                let file = try SafetensorsFile(path: damaged)
                for name in file.tensorNames { _ = try file.tensor(named: name).values(Float.self) }
            } catch is CheckpointError {
                refused += 1
            }
        }
        #expect(refused > 1000)
    }
}

@Suite struct ShardedSafetensorsTests {
    private func folder(index: String) throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        try SafetensorsWriter.write([("a", Tensor([1] as [Float]))], to: folder.path + "/one.safetensors")
        try SafetensorsWriter.write([("b", Tensor([2] as [Float]))], to: folder.path + "/two.safetensors")
        try folder.write(index, "model.safetensors.index.json")
        return folder
    }

    @Test func readsTensorsFromTheirShards() throws {
        let folder = try folder(index: #"{"weight_map": {"b": "two.safetensors", "a": "one.safetensors"}}"#)
        let model = try SafetensorsModel(folder: folder.path)
        #expect(model.tensorNames == ["b", "a"])
        #expect(try model.tensor(named: "b").values(Float.self) == [2])
        #expect(throws: CheckpointError.self) { try model.tensor(named: "c") }
    }

    @Test(arguments: [
        (#"{"weight_map": {"a": "three.safetensors"}}"#, CheckpointError.Code.notFound),
        (#"{"weight_map": {"b": "one.safetensors"}}"#, .missingTensor),
        (#"{"weight_map": {"a": "../one.safetensors"}}"#, .unsafePath),
        (#"{"weight_map": {"a": "/etc/passwd"}}"#, .unsafePath),
        (#"{"weight_map": {"a": "one.safetensors\u0000"}}"#, .unsafePath),
        (#"{"weight_map": {"a": ".."}}"#, .unsafePath),
        (#"{"weight_map": {"a": ""}}"#, .unsafePath),
        (#"{"weight_map": {"a": 1}}"#, .malformed),
        (#"{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}"#, .malformed),
        (#"{}"#, .malformed),
    ])
    func refusesABadIndex(_ index: String, _ code: CheckpointError.Code) throws {
        let folder = try folder(index: index)
        let error = #expect(throws: CheckpointError.self) { try SafetensorsModel(folder: folder.path) }
        #expect(error?.code == code)
    }

    @Test func aTensorInTwoShardsIsRefused() throws {
        let folder = try folder(index: #"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#)
        let both = try [("a", Tensor([1] as [Float])), ("b", Tensor([2] as [Float]))]
        try SafetensorsWriter.write(both, to: folder.path + "/two.safetensors")
        let error = #expect(throws: CheckpointError.self) { try SafetensorsModel(folder: folder.path) }
        #expect(error?.code == .duplicate)
        #expect(error?.message.contains("one.safetensors and two.safetensors") == true)
    }

    @Test func whatTheIndexLeavesOutIsSeen() throws {
        let folder = try folder(index: #"{"weight_map": {"a": "one.safetensors"}}"#)
        let both = try [("a", Tensor([1] as [Float])), ("b", Tensor([2] as [Float]))]
        try SafetensorsWriter.write(both, to: folder.path + "/one.safetensors")
        #expect(try SafetensorsModel(folder: folder.path).tensorNames == ["a", "b"])
    }
}

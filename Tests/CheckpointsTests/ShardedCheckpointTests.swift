import Checkpoints
import Collectives
import Foundation
import TensorCore
import TestSupport
import Testing

@Suite struct ShardedCheckpointTests {
    private static let layouts = ["1", "fsdp2", "tp2", "fsdp2×tp2", "dp2×fsdp2", "pp2×tp2", "fsdp4"]

    @Test(arguments: layouts)
    func loadsInEveryOtherLayout(_ from: String) throws {
        let folder = try TemporaryFolder()
        let saved = try ShardedCase(from, folder.path)
        try saved.save(3)
        for to in Self.layouts {
            let other = try ShardedCase(to, folder.path)
            try other.run { rank, store in
                let (checkpoint, skipped) = try store.latest()
                #expect(skipped.isEmpty)
                let sharded = try #require(checkpoint?.sharded)
                #expect(checkpoint?.state == Array("{\"step\":3}".utf8))
                #expect(sharded.mesh == saved.mesh.description && sharded.ranks == saved.mesh.rankCount)
                #expect(try ShardedCase.holds(sharded, other.model.ranks[rank], 3), "\(from) as \(to)")
                #expect(try ShardedCase.holds(sharded, other.states.ranks[rank], 3), "\(from) as \(to)")
                let own = try sharded.rankState(rank)
                #expect(own == (rank < sharded.ranks ? Array("{\"rank\":\(rank)}".utf8) : nil))
            }
        }
    }

    @Test func theModelIsAHuggingFaceFolder() throws {
        let folder = try TemporaryFolder()
        let saved = try ShardedCase("fsdp2×tp2", folder.path)
        try saved.save(1)
        let path = folder.path + "/step-000001"
        for place in [path + "/model", path] {
            let source = try ModelSource.open(place)
            #expect(source.architecture == "Qwen2ForCausalLM")
            #expect(source.mainType == .bfloat16)
            #expect(source.config.value("torch_dtype")?.stringValue == "bfloat16")
            #expect(Set(source.tensorNames) == Set(ShardedCase.rules.parameters.flatMap { $0.parts.map(\.name) }))
            for name in source.tensorNames {
                let box = ShardBox(whole: name, shape: try source.shape(of: name))
                let right = try ShardedCase.value(box, 1).to(dtype: .bfloat16)
                #expect(try source.tensor(named: name, dtype: .bfloat16).equals(right))
            }
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: path + "/model")
        #expect(names.contains("model.safetensors.index.json"))
        #expect(names.contains("tokenizer.json"))
        // Every rank took a share of the files.
        #expect(names.filter { $0.hasSuffix(".safetensors") }.count >= 4)
        #expect(!FileManager.default.fileExists(atPath: path + "/parts"))
    }

    /// A copy that several ranks hold is written once.
    @Test func copiesAreWrittenOnce() throws {
        let folder = try TemporaryFolder()
        try ShardedCase("dp4", folder.path + "/copies").save(1)
        try ShardedCase("1", folder.path + "/one").save(1)
        func bytes(_ name: String) throws -> Int {
            let place = folder.path + "/\(name)/step-000001/states"
            return try FileManager.default.contentsOfDirectory(atPath: place).reduce(0) {
                let file = try SafetensorsFile(path: place + "/" + $1)
                return try $0 + file.tensorNames.reduce(0) { try $0 + file.entry(named: $1).range.count }
            }
        }
        #expect(try bytes("copies") == bytes("one"))
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path + "/copies/step-000001/states").count == 4)
    }

    @Test func trainingGoesOnWhileItIsWritten() throws {
        let folder = try TemporaryFolder()
        let saved = try ShardedCase("fsdp2", folder.path)
        try saved.run { rank, store in
            for step in 1...3 {
                let contents = try saved.contents(rank, step)
                try store.save(contents)
                for shard in contents.model + contents.states { try shard.tensor.fill(-1) }
            }
            try store.settle()
            #expect(try store.steps() == [1, 2, 3])
            for step in 1...3 {
                let sharded = try #require(try store.load(step).sharded)
                #expect(try ShardedCase.holds(sharded, saved.states.ranks[rank], step))
                #expect(try ShardedCase.holds(sharded, saved.model.ranks[rank], step))
            }
        }
    }

    @Test func keepsTheLast() throws {
        let folder = try TemporaryFolder()
        var saved = try ShardedCase("fsdp2", folder.path)
        saved.keepLast = 2
        try saved.save(1, 2, 3, 4)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == ["step-000003", "step-000004"])
    }

    @Test func findsCheckpointsOfOneProcessToo() throws {
        let folder = try TemporaryFolder()
        let old = try CheckpointStore(folder: folder.path, keepLast: 3)
        try old.save(step: 5, tensors: [("w", Tensor([1, 2] as [Float]))], state: Array("old".utf8))
        let ranks = try ShardedCase("fsdp2", folder.path)
        try ranks.save(4)
        try ranks.run { _, store in
            let latest = try #require(try store.latest().checkpoint)
            #expect(latest.step == 5 && latest.sharded == nil && latest.state == Array("old".utf8))
            #expect(try latest.tensors.tensor(named: "w").values(Float.self) == [1, 2])
        }
        // And the other way round.
        let one = try #require(try CheckpointStore(folder: folder.path, keepLast: 3).load(4).sharded)
        #expect(try ShardedCase.holds(one, ShardedCase("1", folder.path).states.ranks[0], 4))
    }

    /// Rows come from the bytes of those rows, not from the whole tensor.
    @Test func readsOnlyWhatIsWanted() throws {
        let folder = try TemporaryFolder()
        try ShardedCase("fsdp2", folder.path).save(1)
        let sharded = try #require(try CheckpointStore(folder: folder.path, keepLast: 1).load(1).sharded)
        let name = "exp_avg.lm_head.weight"
        let rows = ShardBox(whole: name, shape: [37, 16]).rows(10..<30)
        var column = ShardBox(whole: name, shape: [37, 16])
        column.ranges[1] = 3..<5
        for box in [rows, column] {
            let target = LocalShard(box: box, tensor: try Tensor.zeros(box.sizes))
            #expect(try sharded.fill([target]).bytes == box.count * 4)
            #expect(try target.tensor.equals(ShardedCase.value(box, 1).contiguous()))
        }
    }

    @Test func whatIsNotThereIsNamed() throws {
        let folder = try TemporaryFolder()
        try ShardedCase("fsdp2", folder.path).save(1)
        let sharded = try #require(try CheckpointStore(folder: folder.path, keepLast: 1).load(1).sharded)
        func error(_ box: ShardBox) -> CheckpointError? {
            #expect(throws: CheckpointError.self) {
                try sharded.fill([LocalShard(box: box, tensor: Tensor.zeros(box.sizes))])
            }
        }
        #expect(error(ShardBox(whole: "nothing", shape: [2]))?.code == .missingTensor)
        #expect(error(ShardBox(whole: "exp_avg.lm_head.weight", shape: [38, 16]))?.code == .malformed)
    }

    @Test func refusesWhatCannotBeSaved() throws {
        let folder = try TemporaryFolder()
        let ranks = try ShardedCase("fsdp2", folder.path)
        try ranks.run { rank, store in
            var contents = try ranks.contents(rank, 1)
            contents.states[0] = contents.model[0]
            let twice = #expect(throws: CheckpointError.self) { try store.save(contents) }
            #expect(twice?.code == .duplicate)
            let negative = #expect(throws: CheckpointError.self) { try store.save(ranks.contents(rank, -1)) }
            #expect(negative?.code == .configuration)
            contents = try ranks.contents(rank, 1)
            contents.companions = [.init(name: "../evil", bytes: [])]
            let path = #expect(throws: CheckpointError.self) { try store.save(contents) }
            #expect(path?.code == .unsafePath)
            #expect(try store.latest().checkpoint == nil)
        }
    }

    @Test func distributedCheckpointsOfPyTorchAreRefused() throws {
        let folder = try TemporaryFolder()
        try folder.write("x", "__0_0.distcp")
        try folder.write("x", ".metadata")
        let error = #expect(throws: CheckpointError.self) { try ModelSource.open(folder.path) }
        #expect(error?.code == .pickle)
        #expect(error?.remedy.contains("Megatron") == true)
    }
}

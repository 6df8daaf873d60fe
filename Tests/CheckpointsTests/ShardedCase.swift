import Checkpoints
import Collectives
import Foundation
import OrderedCollections
import TensorCore
import TestSupport

/// A small model and its optimizer's states, divided over threads, whose values are known by name and place.
struct ShardedCase: Sendable {
    static let rules: DecoderRules = {
        var rules = DecoderRules(
            vocabulary: 37, hidden: 16, layers: 2, heads: 8, keyValueHeads: 4, headDim: 2, intermediate: 24,
            tiedEmbeddings: false)
        rules.attentionBias = true
        return rules
    }()

    let mesh: MeshShape
    var folder: String
    var keepLast = 3
    /// Small, so that there are several files.
    var maxShardBytes = 2500
    var fileSystem: @Sendable (_ rank: Int) -> any FileSystem = { _ in POSIXFileSystem() }

    init(_ layout: String, _ folder: String) throws {
        mesh = try MeshShape(parsing: layout)
        self.folder = folder
    }

    var model: ShardLayout { ShardLayout(Self.rules.parameters, mesh: mesh, dtype: .bfloat16) }
    var states: ShardLayout {
        var layout = ShardLayout(Self.rules.parameters, mesh: mesh, dtype: .float32)
        layout.ranks = layout.ranks.map { specs in
            ["master.", "exp_avg."].flatMap { prefix in
                specs.map { spec in
                    var spec = spec
                    spec.box.name = prefix + spec.box.name
                    return spec
                }
            }
        }
        return layout
    }

    static func value(_ box: ShardBox, _ step: Int) throws -> Tensor {
        let seed = box.name.utf8.reduce(UInt64(bitPattern: Int64(step))) { ($0 &* 31) &+ UInt64($1) }
        let whole = try Tensor.randomNormal(box.shape, generator: RandomGenerator(seed: seed))
        return try LocalShard(box: ShardBox(whole: box.name, shape: box.shape), tensor: whole).view(of: box)
    }

    static func shards(_ specs: [ShardSpec], _ step: Int) throws -> [LocalShard] {
        try specs.map {
            LocalShard(box: $0.box, tensor: try value($0.box, step).to(dtype: $0.dtype, copy: true).contiguous())
        }
    }

    static let config = ModelConfig([
        "architectures": .array([.string("Qwen2ForCausalLM")]), "model_type": .string("qwen2"),
        "vocab_size": .int(37), "hidden_size": .int(16), "num_hidden_layers": .int(2), "num_attention_heads": .int(8),
        "num_key_value_heads": .int(4), "intermediate_size": .int(24), "hidden_act": .string("silu"),
        "rms_norm_eps": .double(1e-6), "rope_theta": .double(10000), "max_position_embeddings": .int(64),
        "tie_word_embeddings": .bool(false), "torch_dtype": .string("float32"),
    ])

    func contents(_ rank: Int, _ step: Int) throws -> ShardedCheckpointStore.Contents {
        var contents = ShardedCheckpointStore.Contents(
            step: step, mesh: mesh, model: try Self.shards(model.ranks[rank], step), modelDType: .bfloat16)
        contents.states = try Self.shards(states.ranks[rank], step)
        contents.rankState = Array("{\"rank\":\(rank)}".utf8)
        contents.state = Array("{\"step\":\(step)}".utf8)
        contents.config = Self.config
        contents.companions = [.init(name: "tokenizer.json", bytes: Array("{}".utf8))]
        return contents
    }

    /// Runs `body` on every rank, with a store.
    func run(_ body: @escaping @Sendable (_ rank: Int, _ store: ShardedCheckpointStore) throws -> Void) throws {
        let meeting = try RendezvousStore.local(), size = mesh.rankCount
        try onRanks(size) { [self] rank in
            Torch.threadCount = 1
            let group =
                size == 1
                ? nil : try ProcessGroup.gloo(meeting, name: "all", rank: rank, size: size, timeout: .seconds(60))
            let store = try ShardedCheckpointStore(
                folder: folder, keepLast: keepLast, group: group, device: .cpu, partTimeout: .seconds(20),
                maxShardBytes: maxShardBytes, fileSystem: fileSystem(rank))
            try body(rank, store)
        }
    }

    func save(_ steps: Int...) throws {
        try run { rank, store in
            for step in steps { try store.save(contents(rank, step)) }
            try store.settle()
        }
    }

    /// Whether the checkpoint holds what was saved for its step, read as `specs` of this layout.
    static func holds(_ checkpoint: ShardedCheckpoint, _ specs: [ShardSpec], _ step: Int) throws -> Bool {
        let targets = try specs.map {
            LocalShard(box: $0.box, tensor: try Tensor.full($0.box.sizes, 7, dtype: $0.dtype))
        }
        try checkpoint.fill(targets)
        return try zip(targets, shards(specs, step)).allSatisfy { try $0.tensor.equals($1.tensor) }
    }
}

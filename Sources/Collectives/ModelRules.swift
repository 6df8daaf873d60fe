public import TensorCore

/// How one tensor of a checkpoint is divided over the ranks of a mesh.
public struct TensorRule: Sendable, Hashable {
    public enum Division: Sendable, Hashable {
        /// Every rank along the tensor axis has all of it.
        case replicated
        /// Rows, in whole units (heads) over the tensor axis; where there are fewer units than ranks, several ranks have the same one.
        case rows(units: Int)
        case columns(units: Int)
    }

    public var name: String
    public var shape: [Int]
    public var division: Division
    /// An expert's tensors are on one rank of the expert axis.
    public var expert: (index: Int, count: Int)?

    public init(
        _ name: String, _ shape: [Int], _ division: Division = .replicated, expert: (index: Int, count: Int)? = nil
    ) {
        self.name = name
        self.shape = shape
        self.division = division
        self.expert = expert
    }

    public static func == (a: TensorRule, b: TensorRule) -> Bool {
        a.name == b.name && a.shape == b.shape && a.division == b.division && a.expert?.index == b.expert?.index
            && a.expert?.count == b.expert?.count
    }
    public func hash(into hasher: inout Hasher) {
        hasher.combine(name)
        hasher.combine(shape)
    }

    /// What the rank has before rows are sharded; nil for none of it.
    func box(_ mesh: MeshShape, _ rank: Int) -> ShardBox? {
        if let expert {
            let size = mesh[.expert]
            guard expert.index * size / expert.count == mesh.coordinate(.expert, of: rank) else { return nil }
        }
        var box = ShardBox(whole: name, shape: shape)
        let (dim, units): (Int, Int)
        switch division {
        case .replicated: return box
        case .rows(let count): (dim, units) = (0, count)
        case .columns(let count): (dim, units) = (1, count)
        }
        let size = mesh[.tensor], place = mesh.coordinate(.tensor, of: rank), width = shape[dim] / units
        let first = place * units / size, last = max(first + 1, (place + 1) * units / size)
        box.ranges[dim] = first * width..<last * width
        return box
    }
}

/// Tensors that are stored as one, stacked by rows: what fully sharded data parallelism cuts.
public struct ParameterRule: Sendable, Hashable {
    public var parts: [TensorRule]
    /// Where in the model, from 0 to 1, for the stages of a pipeline.
    public var depth: Double

    public init(_ parts: [TensorRule], depth: Double = 0) {
        self.parts = parts
        self.depth = depth
    }
}

extension ShardLayout {
    /// What the ranks of `mesh` hold of a model: stages of a pipeline, experts, slices of matrices; of what is left of each parameter,
    /// rank i of the shard axis holds the i-th run of ⌈rows / ranks⌉ rows.
    public init(_ parameters: [ParameterRule], mesh: MeshShape, dtype: DType) {
        self.init(
            ranks: (0..<mesh.rankCount).map { rank in
                parameters.flatMap { parameter -> [ShardSpec] in
                    let stages = mesh[.pipeline], stage = min(Int(parameter.depth * Double(stages)), stages - 1)
                    guard stage == mesh.coordinate(.pipeline, of: rank) else { return [] }
                    let boxes = parameter.parts.compactMap { $0.box(mesh, rank) }
                    let rows = boxes.reduce(0) { $0 + $1.ranges[0].count }
                    let each = (rows + mesh[.shard] - 1) / mesh[.shard], place = mesh.coordinate(.shard, of: rank)
                    let own = min(place * each, rows)..<min((place + 1) * each, rows)
                    var start = 0
                    return boxes.compactMap { box in
                        let all = start..<start + box.ranges[0].count
                        start = all.upperBound
                        let common = all.clamped(to: own)
                        if common.isEmpty { return nil }
                        let part = box.rows(common.lowerBound - all.lowerBound..<common.upperBound - all.lowerBound)
                        return ShardSpec(box: part, dtype: dtype)
                    }
                }
            })
    }
}

/// The tensors of a decoder in the manner of Llama, Qwen and their mixtures of experts, and how they are divided.
public struct DecoderRules: Sendable, Hashable {
    public var vocabulary, hidden, layers, heads, keyValueHeads, headDim, intermediate: Int
    public var tiedEmbeddings: Bool
    public var attentionBias = false
    /// 0: a dense model; else ``intermediate`` is an expert's.
    public var experts = 0

    public init(
        vocabulary: Int, hidden: Int, layers: Int, heads: Int, keyValueHeads: Int, headDim: Int, intermediate: Int,
        tiedEmbeddings: Bool
    ) {
        self.vocabulary = vocabulary
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.keyValueHeads = keyValueHeads
        self.headDim = headDim
        self.intermediate = intermediate
        self.tiedEmbeddings = tiedEmbeddings
    }

    public var parameters: [ParameterRule] {
        var all = [
            ParameterRule([TensorRule("model.embed_tokens.weight", [vocabulary, hidden], .rows(units: vocabulary))])
        ]
        for layer in 0..<layers {
            let depth = (Double(layer) + 0.5) / Double(layers), prefix = "model.layers.\(layer)."
            for parts in attention(prefix + "self_attn.") { all.append(ParameterRule(parts, depth: depth)) }
            if experts == 0 {
                for parts in mlp(prefix + "mlp.", nil) { all.append(ParameterRule(parts, depth: depth)) }
            } else {
                all.append(ParameterRule([TensorRule(prefix + "mlp.gate.weight", [experts, hidden])], depth: depth))
                for expert in 0..<experts {
                    for parts in mlp(prefix + "mlp.experts.\(expert).", (expert, experts)) {
                        all.append(ParameterRule(parts, depth: depth))
                    }
                }
            }
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                all.append(ParameterRule([TensorRule(prefix + norm + ".weight", [hidden])], depth: depth))
            }
        }
        all.append(ParameterRule([TensorRule("model.norm.weight", [hidden])], depth: 1))
        if !tiedEmbeddings {
            all.append(
                ParameterRule([TensorRule("lm_head.weight", [vocabulary, hidden], .rows(units: vocabulary))], depth: 1))
        }
        return all
    }

    private func attention(_ prefix: String) -> [[TensorRule]] {
        let widths = [("q_proj", heads), ("k_proj", keyValueHeads), ("v_proj", keyValueHeads)]
        var all = [
            widths.map { TensorRule(prefix + $0 + ".weight", [$1 * headDim, hidden], .rows(units: $1)) }
        ]
        if attentionBias {
            all.append(widths.map { TensorRule(prefix + $0 + ".bias", [$1 * headDim], .rows(units: $1)) })
        }
        all.append([TensorRule(prefix + "o_proj.weight", [hidden, heads * headDim], .columns(units: heads))])
        return all
    }

    private func mlp(_ prefix: String, _ expert: (index: Int, count: Int)?) -> [[TensorRule]] {
        [
            ["gate_proj", "up_proj"].map {
                TensorRule(prefix + $0 + ".weight", [intermediate, hidden], .rows(units: intermediate), expert: expert)
            },
            [
                TensorRule(
                    prefix + "down_proj.weight", [hidden, intermediate], .columns(units: intermediate), expert: expert)
            ],
        ]
    }
}

extension MeshShape {
    /// Reads `fsdp4`, `tp2×dp2` or `tp2xfsdp4`; `1` is one rank. Ranks along `tp` are neighbours however it is written.
    /// - Throws: ``ReshardError`` `description`.
    public init(parsing text: String) throws {
        func bad(_ reason: String) -> ReshardError {
            ReshardError(
                .description, "the layout '\(text)' \(reason)",
                remedy:
                    "write axes and sizes such as fsdp4 or tp2×dp2; axes are \(MeshAxis.all.map(\.name).joined(separator: ", "))"
            )
        }
        var sizes: [MeshAxis: Int] = [:]
        if text != "1" {
            for part in text.split(whereSeparator: { "×x*".contains($0) }) {
                let name = part.prefix { !$0.isWholeNumber }
                guard let axis = MeshAxis.all.first(where: { $0.name == name }) else {
                    throw bad("has no axis '\(name)'")
                }
                guard let size = Int(part.dropFirst(name.count)), size > 0, size <= 1 << 20 else {
                    throw bad("gives '\(name)' no size of 1 or more")
                }
                guard sizes.updateValue(size, forKey: axis) == nil else { throw bad("names '\(name)' twice") }
            }
            if sizes.isEmpty { throw bad("names no axis") }
        }
        self.init(sizes)
    }
}

public import TensorCore

/// What the routers of one forward pass decided, a layer at a time.
public final class RoutingRecord {
    public struct Layer {
        /// The layer's index in the model; dense layers have no entry.
        public let index: Int
        /// `[T, E]`, with gradients where they were recorded.
        public let logits: Tensor
        /// int64 `[T, K]`.
        public let chosen: Tensor

        func with(logits: Tensor) -> Layer { Layer(index: index, logits: logits, chosen: chosen) }

        /// How many of the tokens each expert got; waits for the device.
        public func load() throws(TorchError) -> ExpertLoad {
            let experts = logits.size(1)
            return ExpertLoad(
                layer: index, tokens: try ExpertRows(chosen: chosen.detached(), count: experts).counts())
        }
    }

    public private(set) var layers: [Layer] = []

    public init() {}

    func append(_ layer: Layer) { layers.append(layer) }
    func append(_ layer: Int, _ routing: Routing) {
        append(Layer(index: layer, logits: routing.logits, chosen: routing.chosen))
    }

    /// The load of every layer's experts.
    public func loads() throws(TorchError) -> [ExpertLoad] {
        var loads: [ExpertLoad] = []
        for layer in layers { loads.append(try layer.load()) }
        return loads
    }

    /// The loss that pulls the experts towards equal shares, as `transformers` computes it over all layers: `E · Σ fᵉ · Pᵉ`, with
    /// fᵉ the times that expert e was chosen for each token and Pᵉ its mean probability (Fedus et al. 2021, equations 4 to 6). It is
    /// K when the load is even, and is meant to be multiplied with `router_aux_loss_coef`.
    ///
    /// - Parameter tokenWeights: float32 `[T]`, how much each token counts: 0 leaves it out, 3 stands for three sequences that
    ///   share it. Nil counts each once.
    /// - Returns: a scalar, float32, with gradients; nil where no layer was recorded.
    public func loadBalancingLoss(tokenWeights: Tensor? = nil) throws(TorchError) -> Tensor? {
        guard let first = layers.first else { return nil }
        let experts = first.logits.size(1), device = first.logits.device
        var chosenSum = try Tensor.zeros([experts], device: device), probabilitySum = chosenSum, rows = chosenSum
        for layer in layers {
            var probabilities = try layer.logits.to(dtype: .float32).softmax(1)
            var ones = try Tensor.ones([layer.chosen.size(0), 1], device: device)
            if let tokenWeights {
                ones = try tokenWeights.unsqueezed(1)
                probabilities = try probabilities.multiplied(by: ones)
            }
            let shares = try ones.expanded(layer.chosen.shape).flattened()
            chosenSum = try chosenSum.scatterAdded(0, layer.chosen.flattened(), shares)
            probabilitySum = try probabilitySum.adding(probabilities.sum(0))
            rows = try rows.adding(ones.sum())
        }
        return try chosenSum.divided(by: rows).multiplied(by: probabilitySum.divided(by: rows)).sum()
            .multiplied(by: Double(experts))
    }
}

/// How the tokens of a forward pass were spread over one layer's experts.
public struct ExpertLoad: Sendable, Hashable {
    public var layer: Int
    /// Tokens for each expert; a token counts once for each expert that it went to.
    public var tokens: [Int]

    public init(layer: Int, tokens: [Int]) {
        self.layer = layer
        self.tokens = tokens
    }

    /// The busiest expert's tokens over the mean: 1 when the load is even, E / K at worst.
    public var imbalance: Double {
        let total = tokens.reduce(0, +)
        return total == 0 ? 1 : Double(tokens.max() ?? 0) * Double(tokens.count) / Double(total)
    }

    /// Experts that got no token.
    public var unused: Int { tokens.count { $0 == 0 } }

    /// Adds another batch's tokens for the same layer.
    public mutating func add(_ other: ExpertLoad) {
        precondition(layer == other.layer && tokens.count == other.tokens.count, "loads of different layers")
        for (index, count) in other.tokens.enumerated() { tokens[index] += count }
    }
}

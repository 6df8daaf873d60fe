import TensorCore

/// A layer's feed-forward network made of many, of which each token goes through a few; some families add one that every token goes
/// through.
struct MixtureOfExperts: FeedForward {
    let layer: Int
    let router: any ExpertRouter
    let experts: Experts
    /// What every token goes through besides.
    var shared: GatedMLP?

    func callAsFunction(_ x: Tensor, _ pass: DecoderPass) throws -> Tensor {
        // The router is whole on every rank; experts are shared, and so are the gradients of what they are weighed with.
        let routing = try router(x), layout = pass.layout
        if let record = pass.routing {
            record.append(
                RoutingRecord.Layer(
                    index: layer, logits: try layout.whole(routing.logits), chosen: try layout.whole(routing.chosen)))
        }
        let inner = try layout.enter(x)
        let output = try experts(
            inner, chosen: layout.alike(routing.chosen), weights: layout.enter(routing.weights))
        let isRead = !pass.leavesOutLastProduct
        guard let shared else { return try layout.leave(output, isRead: isRead) }
        return try layout.leave(
            output.adding(shared.part(inner, isRead: isRead)), bias: shared.down.biasOfSum, isRead: isRead)
    }
}

/// What the experts of a model are, for reports and for the loss that balances them.
public struct ExpertShape: Sendable, Hashable {
    /// Experts of a layer, and how many of them a token goes to.
    public var experts, expertsPerToken: Int
    /// The layers that have experts.
    public var layers: [Int]
    /// The checkpoint's own factor of ``RoutingRecord/loadBalancingLoss(tokenWeights:)``; nil where the family has no such loss.
    public var balancingCoefficient: Double?

    public init(experts: Int, expertsPerToken: Int, layers: [Int], balancingCoefficient: Double? = nil) {
        self.experts = experts
        self.expertsPerToken = expertsPerToken
        self.layers = layers
        self.balancingCoefficient = balancingCoefficient
    }
}

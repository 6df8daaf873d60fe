import TensorCore
import Testing

@testable import Models

/// Routers and what is reported of them, against plain loops and against figures made with `transformers`.
@Suite struct RoutingTests {
    let generator: RandomGenerator
    init() throws { generator = try RandomGenerator(seed: 5) }

    func random(_ shape: [Int]) throws -> Tensor { try Tensor.randomNormal(shape, generator: generator) }

    /// The indices of the `count` largest, the set only.
    func best(_ values: [Float], _ count: Int) -> Set<Int> {
        Set(values.indices.sorted { values[$0] > values[$1] }.prefix(count))
    }

    func rows<Scalar: TensorScalar>(_ tensor: Tensor, _ type: Scalar.Type) throws -> [[Scalar]] {
        let flat = try tensor.values(type), width = tensor.size(1)
        return stride(from: 0, to: flat.count, by: width).map { Array(flat[$0..<$0 + width]) }
    }

    @Test(arguments: [true, false]) func softmaxRouterWeighsTheLargest(normalizes: Bool) throws {
        let router = SoftmaxRouter(weight: try random([7, 12]), expertsPerToken: 3, normalizes: normalizes)
        let routing = try router(random([20, 12]))
        let probabilities = try rows(routing.logits.softmax(1), Float.self)
        let chosen = try rows(routing.chosen, Int64.self), weights = try rows(routing.weights, Float.self)
        for token in 0..<20 {
            #expect(Set(chosen[token].map(Int.init)) == best(probabilities[token], 3))
            let total = normalizes ? chosen[token].reduce(0) { $0 + probabilities[token][Int($1)] } : 1
            for (expert, weight) in zip(chosen[token], weights[token]) {
                #expect(abs(weight - probabilities[token][Int(expert)] / total) < 1e-6)
            }
        }
    }

    @Test(arguments: [(12, 4, 2, 3), (12, 3, 1, 4), (16, 1, 1, 5), (8, 4, 4, 2)], [true, false])
    func groupedRouterChoosesInTheBestGroups(size: (Int, Int, Int, Int), normalizes: Bool) throws {
        let (experts, groups, kept, slots) = size
        let bias = try random([experts])
        let router = GroupedSigmoidRouter(
            weight: try random([experts, 10]), bias: bias, expertsPerToken: slots, groups: groups,
            groupsPerToken: kept, normalizes: normalizes, scale: 1.7)
        let routing = try router(random([30, 10]))
        let scores = try rows(routing.logits.sigmoid(), Float.self), biases = try bias.values(Float.self)
        let chosen = try rows(routing.chosen, Int64.self), weights = try rows(routing.weights, Float.self)
        let width = experts / groups
        for token in 0..<30 {
            let biased = (0..<experts).map { scores[token][$0] + biases[$0] }
            let sums = (0..<groups).map { group in
                biased[group * width..<(group + 1) * width].sorted(by: >).prefix(2).reduce(0, +)
            }
            let open = best(sums, kept)
            let allowed = (0..<experts).map { open.contains($0 / width) ? biased[$0] : -.infinity }
            #expect(Set(chosen[token].map(Int.init)) == best(allowed, slots))
            let total = normalizes ? chosen[token].reduce(0) { $0 + scores[token][Int($1)] } : 1
            for (expert, weight) in zip(chosen[token], weights[token]) {
                #expect(abs(weight - 1.7 * scores[token][Int(expert)] / total) < 1e-5)
            }
        }
    }

    @Test func theSelectionBiasMovesTheChoiceAndGetsNoGradient() throws {
        let weight = try random([6, 8]), x = try random([5, 8])
        try weight.setRequiresGrad()
        let bias = try Tensor([0, 0, 0, 9, 9, 0] as [Float])
        let router = GroupedSigmoidRouter(
            weight: weight, bias: bias, expertsPerToken: 2, groups: 1, groupsPerToken: 1, normalizes: false, scale: 1)
        try withGrad {
            let routing = try router(x)
            #expect(try rows(routing.chosen, Int64.self).allSatisfy { Set($0) == [3, 4] })
            try routing.weights.sum().backward()
        }
        #expect(try #require(try weight.grad()).abs().sum().item() > 0)
        #expect(try bias.grad() == nil)
    }

    /// sin(i · step) · 2, row by row, as the figures below were made.
    func logits(_ step: Double) throws -> Tensor {
        let wave = try Tensor.arange(0..<30).to(dtype: .float64).multiplied(by: step).sin().multiplied(by: 2)
        let logits = try wave.to(dtype: .float32).reshaped([6, 5])
        try logits.setRequiresGrad()
        return logits
    }

    func record(_ logits: [Tensor]) throws -> RoutingRecord {
        let record = RoutingRecord()
        for (layer, logits) in logits.enumerated() {
            record.append(
                RoutingRecord.Layer(
                    index: layer + 1, logits: logits, chosen: try logits.detached().topK(2, dim: 1).indices))
        }
        return record
    }

    @Test func loadBalancingLossIsTransformers() throws {
        let a = try logits(0.7), b = try logits(1.3)
        try withGrad {
            let loss = try #require(try record([a, b]).loadBalancingLoss())
            #expect(abs(try loss.item() - 2.3452439) < 1e-6)
            try loss.backward()
        }
        let gradA = try #require(try a.grad()), gradB = try #require(try b.grad())
        #expect(abs(try Tensor.l2Norm([gradA]) - 0.05969784) < 1e-7)
        #expect(abs(try Tensor.l2Norm([gradB]) - 0.07108042) < 1e-7)
        let first = try gradA.selected(0, 0).values(Float.self)
        for (got, wanted) in zip(first, [0.0027575, 0.0229995, -0.0059283, -0.0147131, -0.0051156] as [Float]) {
            #expect(abs(got - wanted) < 1e-6)
        }
    }

    @Test func loadBalancingLossLeavesOutMaskedTokens() throws {
        let a = try logits(0.7), b = try logits(1.3)
        try withGrad {
            let mask = try Tensor([1, 1, 0, 1, 0, 1] as [Float])
            let loss = try #require(try record([a, b]).loadBalancingLoss(tokenWeights: mask))
            #expect(abs(try loss.item() - 2.0718338) < 1e-6)
            try loss.backward()
        }
        #expect(abs(try Tensor.l2Norm([#require(try a.grad())]) - 0.01579688) < 1e-7)
        #expect(abs(try Tensor.l2Norm([#require(try b.grad())]) - 0.04504639) < 1e-7)
        #expect(try RoutingRecord().loadBalancingLoss() == nil)
    }

    @Test func loadsCountTheTokensOfEachExpert() throws {
        let record = RoutingRecord()
        let chosen = try Tensor([0, 1, 0, 3, 0, 1, 0, 3] as [Int64], shape: [4, 2])
        record.append(RoutingRecord.Layer(index: 3, logits: try Tensor.zeros([4, 4]), chosen: chosen))
        var load = try #require(try record.loads().first)
        #expect(load == ExpertLoad(layer: 3, tokens: [4, 2, 0, 2]))
        #expect(load.imbalance == 2 && load.unused == 1)
        load.add(ExpertLoad(layer: 3, tokens: [0, 2, 4, 2]))
        #expect(load.tokens == [4, 4, 4, 4] && load.imbalance == 1 && load.unused == 0)
    }
}

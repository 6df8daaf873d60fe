import TensorCore
import Testing

@Suite struct SamplingTests {
    let logits: [Float] = [0, 1, 2, 3, -1, 0.5]

    func draw(_ sampling: RowSampling) throws -> (Int, Float) {
        let result = try Tensor(logits, shape: [1, 6]).sample([sampling])
        return (Int(result.tokens[0]), result.logProbs[0])
    }

    @Test func greedyTakesTheLargest() throws {
        let (token, logProb) = try draw(RowSampling(temperature: 0, uniform: 0.001))
        let expected = try Tensor(logits).logSoftmax(0).values(Float.self)[3]
        #expect(token == 3 && abs(logProb - expected) < 1e-5)
    }

    @Test(arguments: [0.5, 1, 2]) func followsTheDistributionAtATemperature(temperature: Double) throws {
        let expected = try Tensor(logits).divided(by: temperature).softmax(0).values(Double.self)
        let trials = 4000
        var counts = [Int](repeating: 0, count: 6)
        // A regular grid of uniforms: the share of each token is its probability to within a grid step.
        let rows = (0..<trials).map {
            RowSampling(temperature: temperature, uniform: (Double($0) + 0.5) / Double(trials))
        }
        let result = try Tensor(logits, shape: [1, 6]).expanded([trials, 6]).contiguous().sample(rows)
        for token in result.tokens { counts[Int(token)] += 1 }
        for token in 0..<6 { #expect(abs(Double(counts[token]) / Double(trials) - expected[token]) < 1e-3) }
        for (token, logProb) in zip(result.tokens, result.logProbs) {
            #expect(abs(Double(logProb) - _log(expected[Int(token)])) < 1e-4)
        }
    }

    @Test(arguments: [
        (RowSampling(topK: 2), Set([2, 3])), (RowSampling(topP: 0.5), Set([3])), (RowSampling(topP: 0.7), Set([2, 3])),
        (RowSampling(minP: 0.3), Set([2, 3])), (RowSampling(topK: 3, topP: 0.95), Set([1, 2, 3])),
    ])
    func filtersKeepTheLikeliest(sampling: RowSampling, allowed: Set<Int>) throws {
        var seen: Set<Int> = []
        for step in 0..<500 {
            var row = sampling
            row.uniform = (Double(step) + 0.5) / 500
            seen.insert(try draw(row).0)
        }
        #expect(seen == allowed)
    }

    @Test func refusesLogitsThatAreNotFinite() throws {
        #expect(throws: TorchError.self) {
            try Tensor([Float](repeating: .nan, count: 4), shape: [1, 4]).sample([RowSampling(uniform: 0.5)])
        }
    }

    private func _log(_ x: Double) -> Double { (try? Tensor([x]).log().item()) ?? .nan }
}

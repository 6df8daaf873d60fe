import PolicyAlgorithms
import TensorCore
import Testing

/// What holds for every policy loss of the registry.
@Suite struct PolicyLossTests {
    static let names = PolicyLosses.all.keys.sorted()
    static let rows = 7, width = 6
    static let splits = [[7], [1, 6], [3, 2, 2], [1, 1, 1, 1, 1, 1, 1]]

    static func settings() throws -> PolicyLossSettings {
        PolicyLossSettings(
            clipLow: 0.1, clipHigh: 0.2, clipCovRatio: 0.1, clipCovLower: 0.05, clipCovUpper: 3, klCovRatio: 0.2,
            rolloutCorrection: try RolloutCorrection(
                weights: "sequence", threshold: "0.3_3.0", normalizes: true, rejection: "token_k1,seq_max_k2",
                rejectionThreshold: "0.5_2.0,0.4"), bypassLoss: .reinforce)
    }

    /// A batch with ragged answers, a gap between turns and a row without a token.
    struct Batch {
        let old, new, advantages, mask, weights: Tensor
        let totals: LossAggregation.Totals

        init(ranks: Int = 1) throws {
            func random(_ seed: UInt64, _ scale: Double) throws -> Tensor {
                try Tensor.randomNormal([rows, width], generator: RandomGenerator(seed: seed)).multiplied(by: scale)
            }
            let lengths = [6, 1, 4, 0, 3, 5, 6]
            var mask = lengths.flatMap { length in (0..<width).map { $0 < length ? Float(1) : 0 } }
            mask[2] = 0
            totals = .init(tokens: Int(mask.reduce(0, +)), sequences: 6, ranks: ranks)
            self.mask = try Tensor(mask, shape: [rows, width])
            old = try random(1, 1).abs().negated().subtracting(0.1)
            new = try old.adding(random(2, 0.3)).clamped(max: -0.01)
            advantages = try random(3, 1)
            weights = try random(4, 0.3).exp()
        }

        /// The loss of some rows, and the gradient of its log-probabilities, row by row.
        func run(
            _ loss: any PolicyLoss, _ range: Range<Int>, _ aggregation: LossAggregation, logProbs: Tensor? = nil
        ) throws -> (value: Double, gradient: [Double]) {
            let leaf = try (logProbs ?? new).narrowed(0, range).cloned()
            try leaf.setRequiresGrad()
            return try withGrad {
                var arguments = try arguments(leaf, range, aggregation)
                arguments.totals = totals
                let result = try loss(arguments).loss
                try result.backward()
                let gradient = try leaf.grad()
                return (try result.item(), try #require(gradient).values(Double.self))
            }
        }

        func arguments(
            _ logProbs: Tensor, _ range: Range<Int>, _ aggregation: LossAggregation
        ) throws -> PolicyLossArguments {
            PolicyLossArguments(
                oldLogProbs: try old.narrowed(0, range), logProbs: logProbs,
                advantages: try advantages.narrowed(0, range), responseMask: try mask.narrowed(0, range),
                aggregation: aggregation, totals: totals, rolloutWeights: try weights.narrowed(0, range))
        }
    }

    /// With the whole batch's totals, the shares of any split add up to the whole batch's loss, and so do their gradients.
    @Test(arguments: names, LossAggregation.Mode.allCases) func doesNotDependOnTheSplit(
        name: String, mode: LossAggregation.Mode
    ) throws {
        let make = try #require(PolicyLosses.all[name]), batch = try Batch(ranks: 2)
        let aggregation = LossAggregation(mode, scaleFactor: 9)
        let loss = try make(Self.settings()).fitted(to: batch.arguments(batch.old, 0..<Self.rows, aggregation))
        let whole = try batch.run(loss, 0..<Self.rows, aggregation)
        #expect(whole.value != 0 && whole.gradient.contains { $0 != 0 })
        for sizes in Self.splits {
            var value = 0.0, gradient: [Double] = [], start = 0
            for size in sizes {
                let share = try batch.run(loss, start..<start + size, aggregation)
                value += share.value
                gradient += share.gradient
                start += size
            }
            #expect(abs(value - whole.value) < 2e-6 * max(1, abs(whole.value)), "\(sizes)")
            for (share, wanted) in zip(gradient, whole.gradient) {
                #expect(abs(share - wanted) < 2e-6 * max(1, abs(wanted)), "\(sizes)")
            }
        }
    }

    /// A loss goes down its own gradient: finite differences agree with autograd, where the loss is a function of the
    /// log-probabilities alone and not a surrogate with constants held.
    @Test(arguments: ["vanilla", "geo_mean", "sapo", "gpg", "reinforce", "dro", "kl_cov"])
    func gradientIsTheSlope(name: String) throws {
        let make = try #require(PolicyLosses.all[name]), batch = try Batch()
        let loss = try make(Self.settings()).fitted(
            to: batch.arguments(batch.old, 0..<Self.rows, LossAggregation(.tokenMean)))
        let aggregation = LossAggregation(.tokenMean), all = 0..<Self.rows
        let direction = try Tensor.randomNormal([Self.rows, Self.width], generator: RandomGenerator(seed: 9))
        func value(_ step: Double) throws -> Double {
            try batch.run(loss, all, aggregation, logProbs: batch.new.adding(direction.multiplied(by: step))).value
        }
        let step = 1e-3
        let slope = (try value(step) - value(-step)) / (2 * step)
        let gradient = try batch.run(loss, all, aggregation).gradient
        let wanted = zip(gradient, try direction.values(Double.self)).reduce(0) { $0 + $1.0 * $1.1 }
        #expect(abs(slope - wanted) < 0.02 * max(0.05, abs(wanted)), "\(slope) and \(wanted)")
    }

    @Test(arguments: names) func maskedTokensHaveNoGradient(name: String) throws {
        let make = try #require(PolicyLosses.all[name]), batch = try Batch()
        let settings = try Self.settings()
        let loss = make(settings)
        let gradient = try batch.run(loss, 0..<Self.rows, LossAggregation(.tokenMean)).gradient
        for (value, isToken) in zip(gradient, try batch.mask.values(Double.self)) where isToken == 0 {
            #expect(value == 0)
        }
    }

    /// On policy, a loss that weighs ratios has the plain policy gradient.
    @Test(arguments: ["vanilla", "cispo", "dppo_tv", "dppo_kl", "gpg", "reinforce", "gspo", "dro", "sapo"])
    func isPolicyGradientOnPolicy(name: String) throws {
        let make = try #require(PolicyLosses.all[name]), batch = try Batch()
        let loss = make(PolicyLossSettings(tauPositive: 1, tauNegative: 1))
        let leaf = try batch.old.cloned()
        try leaf.setRequiresGrad()
        try withGrad {
            var arguments = try batch.arguments(leaf, 0..<Self.rows, LossAggregation(.seqMeanTokenMean))
            arguments.rolloutWeights = nil
            try loss(arguments).loss.backward()
        }
        let found = try leaf.grad()
        let lengths = try batch.mask.sum(-1, keepDim: true).clamped(min: 1).multiplied(by: -6)
        let wanted = try batch.advantages.multiplied(by: batch.mask).divided(by: lengths)
        for (a, b) in zip(try #require(found).values(Double.self), try wanted.values(Double.self)) {
            #expect(abs(a - b) < 1e-6)
        }
    }

    @Test func clipCovDropsTheShareAskedFor() throws {
        let batch = try Batch()
        for (ratio, dropped) in [(0.05, 1), (0.2, 4), (1, 99)] {
            let settings = PolicyLossSettings(clipCovRatio: ratio, clipCovLower: -100, clipCovUpper: 100)
            var arguments = try batch.arguments(batch.old, 0..<Self.rows, LossAggregation(.tokenSum))
            arguments.totals = .init()
            let loss = ClipCovLoss(settings)
            let metrics = try loss(arguments).metrics
            let fraction = try #require(metrics.first { $0.name == "actor/pg_clipfrac" }).value.item()
            #expect(Int((fraction * 24).rounded()) == min(dropped, 24))
        }
    }

    /// Numbers gone bad reach the loss, they do not stop the program.
    @Test(arguments: names) func takesNaNs(name: String) throws {
        let make = try #require(PolicyLosses.all[name]), batch = try Batch()
        let loss = make(try Self.settings())
        let arguments = try batch.arguments(
            Tensor.full([Self.rows, Self.width], .nan), 0..<Self.rows, LossAggregation(.tokenMean))
        let fitted = try loss.fitted(to: arguments)
        for loss in [loss, fitted] { _ = try loss(arguments).loss.item() }
    }

    /// Where all covariances are equal, no more than the share asked for is held back.
    @Test func klCovBreaksTies() throws {
        let batch = try Batch()
        let leaf = try batch.new.cloned()
        try leaf.setRequiresGrad()
        try withGrad {
            var arguments = try batch.arguments(leaf, 0..<Self.rows, LossAggregation(.tokenSum))
            arguments.advantages = try batch.advantages.multiplied(by: 0)
            let loss = KLCovLoss(PolicyLossSettings(klCovRatio: 0.25))
            try loss(arguments).loss.backward()
        }
        let found = try leaf.grad()
        let gradient = try #require(found).values(Double.self)
        #expect(gradient.count { $0 != 0 } == 6)
    }

    @Test func badSettingsSayWhatToGive() throws {
        let batch = try Batch()
        let arguments = try batch.arguments(batch.new, 0..<Self.rows, LossAggregation(.tokenMean))
        for (name, settings) in [
            ("dro", PolicyLossSettings(droBeta: 0)), ("clip_cov", PolicyLossSettings(clipCovRatio: 0)),
            ("kl_cov", PolicyLossSettings(klCovRatio: -1)),
        ] {
            let make = try #require(PolicyLosses.all[name])
            let loss = make(settings)
            #expect { try loss(arguments) } throws: { error in
                (error as? AlgorithmError)?.code == .badSetting && "\(error)".contains(name)
            }
        }
    }
}

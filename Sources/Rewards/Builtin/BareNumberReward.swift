import OrderedCollections

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Full marks for an answer that is the right number and nothing else, and less for answers on the way there.
///
/// A model that never gives the bare number gets no signal from a 0/1 reward: all of a group's scores are alike, and
/// GRPO's advantages are 0. The parts below tell such answers apart. They add up, and the sum is kept under `exact`:
///
/// - `contains`: the right number stands somewhere in the answer;
/// - `begins`: the answer begins with the right number;
/// - `bare`: the answer is one number and nothing else, though a wrong one;
/// - `closeness`: the same, times exp(-(d - 1) / `closenessScale`), d being the distance to the right number;
/// - `number`: any number stands in the answer;
/// - `brevity`: times 1 / (1 + x / `brevityScale`), x being the scalars beyond those of the right number, whatever the
///   answer says;
/// - `rightBrevity`: the same, only where the right number stands somewhere in the answer.
public struct BareNumberReward: ItemReward {
    /// What each part is worth.
    public struct Weights: Hashable, Sendable {
        public var exact = 1.0
        public var number = 0.05
        public var contains = 0.05
        public var begins = 0.03
        public var bare = 0.05
        public var closeness = 0.4
        public var closenessScale = 3.0
        public var brevity = 0.0
        public var rightBrevity = 0.1
        /// How many scalars too many halve the worth of being brief.
        public var brevityScale = 16.0
        /// The most that an answer which is not the bare right number can get.
        public var maximumPartial = 0.8

        public init() {}
    }

    public let weights: Weights

    /// - Throws: `RewardError.badSetting` when partial credit could reach `exact`, so that nothing is left to gain by
    ///   the bare number, or when the scale is not above 0.
    public init(_ weights: Weights = Weights()) throws {
        guard weights.maximumPartial < weights.exact else {
            throw RewardError(
                .badSetting,
                "maximum_partial (\(weights.maximumPartial)) must be below exact (\(weights.exact)), or the bare number "
                    + "is worth no more than a way there")
        }
        guard weights.brevityScale > 0, weights.closenessScale > 0 else {
            throw RewardError(
                .badSetting,
                "brevity_scale (\(weights.brevityScale)) and closeness_scale (\(weights.closenessScale)) must be above 0"
            )
        }
        self.weights = weights
    }

    init(_ options: inout RewardOptions) throws {
        var weights = Weights()
        weights.exact = try options.number("exact", default: weights.exact)
        weights.contains = try options.number("contains", default: weights.contains)
        weights.begins = try options.number("begins", default: weights.begins)
        weights.number = try options.number("number", default: weights.number)
        weights.bare = try options.number("bare", default: weights.bare)
        weights.closeness = try options.number("closeness", default: weights.closeness)
        weights.closenessScale = try options.number("closeness_scale", default: weights.closenessScale)
        weights.brevity = try options.number("brevity", default: weights.brevity)
        weights.rightBrevity = try options.number("right_brevity", default: weights.rightBrevity)
        weights.brevityScale = try options.number("brevity_scale", default: weights.brevityScale)
        weights.maximumPartial = try options.number("maximum_partial", default: weights.maximumPartial)
        try self.init(weights)
    }

    /// Details: `exact`, `contains` and `begins`, 1 or 0. Fails as `garbage` when the ground truth is not a number.
    public func score(_ item: RewardRequest) -> RewardOutcome {
        let wanted = String(item.groundTruth.trimmed)
        guard let expected = NumberScanner.number(wanted) else {
            return .failed(RewardFailure(.garbage, "the ground truth '\(item.groundTruth)' is not a number"))
        }
        let answer = String(item.response.trimmed)
        let numbers = NumberScanner.all(in: answer)
        let isExact = answer.utf8.elementsEqual(wanted.utf8)
        let contains = numbers.contains { $0.value == expected }
        let begins = numbers.first.map { $0.range.lowerBound == 0 && $0.value == expected } ?? false
        let isBare = numbers.first.map { $0.range == 0..<answer.utf8.count } ?? false
        let extra = max(0, answer.unicodeScalars.count - wanted.unicodeScalars.count)
        // An empty answer is brief, but no step towards a number.
        let brief = answer.isEmpty ? 0 : 1 / (1 + Double(extra) / weights.brevityScale)

        var partial = weights.brevity * brief
        if contains { partial += weights.contains + weights.rightBrevity * brief }
        if begins { partial += weights.begins }
        if !numbers.isEmpty { partial += weights.number }
        if isBare, let number = numbers.first?.value {
            let distance = abs(number.doubleValue - expected.doubleValue)
            partial += weights.bare + weights.closeness * exp(-max(0, distance - 1) / weights.closenessScale)
        }
        return .checked(
            isExact ? weights.exact : min(partial, weights.maximumPartial),
            details: ["exact": isExact ? 1 : 0, "contains": contains ? 1 : 0, "begins": begins ? 1 : 0])
    }
}

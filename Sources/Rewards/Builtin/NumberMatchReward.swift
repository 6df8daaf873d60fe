/// 1 when a number in the answer equals the ground truth in value (`0.5`, `.50`, `1/2`; `1,000`, `1e3`); else 0.
public struct NumberMatchReward: ItemReward {
    public enum Which: String, Hashable, Sendable, CaseIterable {
        case first, last
        /// The answer must hold no other number.
        case only
        /// Any of them.
        case any
    }

    public var which: Which
    /// Only what follows the last of these in the answer counts (`####` in GSM8K); empty for the whole answer. An
    /// answer without it has no number.
    public var marker: String

    public init(_ which: Which = .last, after marker: String = "") {
        self.which = which
        self.marker = marker
    }

    init(_ options: inout RewardOptions) throws {
        which = try options.choice("which", default: .last)
        marker = options.text("after", default: "")
    }

    /// Fails as `garbage` when the ground truth is not a number: no answer could be right.
    public func score(_ item: RewardRequest) -> RewardOutcome {
        guard let expected = NumberScanner.number(String(item.groundTruth.trimmed)) else {
            return .failed(RewardFailure(.garbage, "the ground truth '\(item.groundTruth)' is not a number"))
        }
        guard let text = answer(in: item.response) else { return .scored(0) }
        let numbers = NumberScanner.all(in: text).map(\.value)
        let isRight =
            switch which {
            case .first: numbers.first == expected
            case .last: numbers.last == expected
            case .only: numbers.count == 1 && numbers[0] == expected
            case .any: numbers.contains(expected)
            }
        return .scored(isRight ? 1 : 0)
    }

    private func answer(in response: String) -> String? {
        if marker.isEmpty { return response }
        let (text, mark) = (Array(response.utf8), Array(marker.utf8))
        guard text.count >= mark.count else { return nil }
        for start in stride(from: text.count - mark.count, through: 0, by: -1)
        where text[start..<start + mark.count].elementsEqual(mark) {
            return String(decoding: text[(start + mark.count)...], as: UTF8.self)
        }
        return nil
    }
}

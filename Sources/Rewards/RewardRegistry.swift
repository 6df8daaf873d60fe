public import OrderedCollections

/// The built-in rewards by name.
public struct RewardRegistry: Sendable {
    public struct Entry: Sendable {
        public let name: String
        /// One line for help texts.
        public let summary: String
        let make: @Sendable (inout RewardOptions) throws -> any Reward

        public init(
            _ name: String, _ summary: String, make: @escaping @Sendable (inout RewardOptions) throws -> any Reward
        ) {
            self.name = name
            self.summary = summary
            self.make = make
        }
    }

    public var entries: [Entry]

    public init(_ entries: [Entry]) { self.entries = entries }

    public static let builtIn = RewardRegistry([
        Entry("exact_match", "1 when the answer is the ground truth") { try ExactMatchReward(&$0) },
        Entry("number_match", "1 when a number in the answer equals the ground truth") { try NumberMatchReward(&$0) },
        Entry("bare_number", "1 for the bare right number, less for what comes near") { try BareNumberReward(&$0) },
        Entry("regex", "1 when the answer matches a pattern") { try RegexReward(&$0) },
        Entry("format", "1 when the answer is made of the wanted tags") { try FormatReward(&$0) },
    ])

    /// - Throws: `RewardError.unknownReward` that lists the known names, `.badSetting`, `.badPattern`.
    public func make(_ name: String, options: OrderedDictionary<String, String> = [:]) throws -> any Reward {
        guard let entry = entries.first(where: { $0.name == name }) else {
            throw RewardError(
                .unknownReward,
                "no reward is called '\(name)'; known are \(entries.map(\.name).joined(separator: ", "))")
        }
        var reader = RewardOptions(reward: name, options)
        let reward = try entry.make(&reader)
        try reader.finish()
        return reward
    }
}

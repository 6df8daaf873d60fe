/// A reward that cannot be made or used at all; a single item's trouble is a `RewardFailure`.
public struct RewardError: Error, Hashable, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        public let description: String

        private init(_ description: String) { self.description = description }

        /// No reward has this name.
        public static let unknownReward = Code("unknownReward")
        /// A setting is unknown, or its value is of the wrong type or out of range.
        public static let badSetting = Code("badSetting")
        /// A pattern cannot be read, or needs what is not supported.
        public static let badPattern = Code("badPattern")
        /// The file of a Python reward is missing, does not load, or lacks its function.
        public static let badRewardFile = Code("badRewardFile")
        /// The Python interpreter cannot be started.
        public static let noInterpreter = Code("noInterpreter")
        /// An item failed, and the policy is to stop.
        public static let scoringFailed = Code("scoringFailed")
    }

    public let code: Code
    /// What is wrong, with the values and the remedy.
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}

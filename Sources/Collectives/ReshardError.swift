/// Why weights cannot be brought from one layout to another.
public struct ReshardError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        /// Something that is wanted is held by no rank.
        public static let gap = Code("gap")
        /// Ranks disagree about a tensor's shape.
        public static let shape = Code("shape")
        /// A type that cannot become the one wanted.
        public static let type = Code("type")
        /// Tensors that are not those that the plan was made for.
        public static let mismatch = Code("mismatch")
        /// The description of a layout cannot be read.
        public static let description = Code("description")
    }

    public let code: Code
    /// What is wrong, with the tensor and the values.
    public let message: String
    /// What to do about it; empty when nothing is known.
    public let remedy: String

    public init(_ code: Code, _ message: String, remedy: String = "") {
        self.code = code
        self.message = message
        self.remedy = remedy
    }

    public var description: String { message + (remedy.isEmpty ? "" : " (\(remedy))") }
}

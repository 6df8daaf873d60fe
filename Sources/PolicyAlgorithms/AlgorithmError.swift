/// A setting or an input that an algorithm cannot work with.
public struct AlgorithmError: Error, Hashable, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        /// A number or a text of the configuration out of its range.
        public static let badSetting = Code("badSetting")
        /// A tensor that this algorithm needs and the caller did not give.
        public static let missingInput = Code("missingInput")
        /// Too few answers or tokens for the statistic asked for.
        public static let tooFew = Code("tooFew")
        /// Inputs whose sizes do not fit together.
        public static let mismatch = Code("mismatch")
    }

    public let code: Code
    /// The algorithm, by its configuration name.
    public let place: String
    /// What was found and what to do.
    public let message: String

    public init(_ code: Code, _ place: String, _ message: String) {
        self.code = code
        self.place = place
        self.message = message
    }

    public var description: String { "\(place): \(message)" }
}

extension Optional {
    /// The value, or an error that names the input that `place` lacks.
    func required(_ input: String, by place: String, _ remedy: String) throws(AlgorithmError) -> Wrapped {
        guard let self else { throw AlgorithmError(.missingInput, place, "needs \(input); \(remedy)") }
        return self
    }
}

/// Why ranks cannot be started.
public struct ClusterError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        /// The environment's variables do not say what a rank must know.
        public static let badEnvironment = Code("badEnvironment")
        /// A process, a pipe or a socket could not be had.
        public static let system = Code("system")
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

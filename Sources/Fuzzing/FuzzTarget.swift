/// One parser under test: what it starts from, how inputs are changed, and what is done with each.
public protocol FuzzTarget: Sendable {
    /// Its name on the command line.
    static var name: String { get }
    /// Which files of a corpus folder are real inputs, by the end of their names.
    static var fileSuffixes: [String] { get }

    init() throws

    /// Small inputs that are always there.
    func seeds() throws -> [[UInt8]]

    /// What a file of the corpus gives: usually itself, or a small part that is a valid input again.
    func seeds(fromFile path: String) throws -> [[UInt8]]

    /// Changes `input` once; `other` is another input to take pieces from.
    func mutate(_ input: inout [UInt8], splicing other: [UInt8], _ random: inout FuzzRandom)

    /// Reads everything that the input holds, and uses it.
    ///
    /// - Throws: the parser's own error, which is how a bad input should end, or ``BrokenProperty``.
    func run(_ input: [UInt8]) throws
}

extension FuzzTarget {
    public func seeds(fromFile path: String) throws -> [[UInt8]] { [try FileBytes.read(path)] }
}

/// An input was taken, but what came of it cannot be right.
public struct BrokenProperty: Error, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

/// Throws ``BrokenProperty`` unless `condition` holds.
func require(_ condition: Bool, _ what: @autoclosure () -> String) throws {
    guard condition else { throw BrokenProperty(what()) }
}

/// The targets by their names; a new one is its file and one line here.
public enum FuzzTargets {
    public static let all: [any FuzzTarget.Type] = [
        SafetensorsTarget.self, GGUFTarget.self, TokenizerTarget.self, TemplateTarget.self, ConfigTarget.self,
    ]

    public static var names: [String] { all.map { $0.name } }

    public static func named(_ name: String) throws -> (any FuzzTarget)? {
        let hidden: [any FuzzTarget.Type] = [MisbehavingTarget.self]
        return try (all + hidden).first { $0.name == name }?.init()
    }
}

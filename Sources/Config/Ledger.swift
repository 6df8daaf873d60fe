/// One line of the configuration as declared and as read.
struct Declaration: Sendable {
    enum Role: Sendable {
        case section
        /// `value`, `fallback` (the default) and `example` are YAML text in the flow style.
        case setting(accepts: String, value: String, fallback: String, example: String, isRequired: Bool)
    }

    var path: [String]
    var doc: String
    var role: Role
    /// Where it was set; nil for a default.
    var place: Place?

    var keyPath: String { path.joined(separator: ".") }
    var isSection: Bool { if case .section = role { true } else { false } }
}

/// What one reading of a configuration finds: shared by the readers of its sections.
final class Ledger {
    let names: KnownNames
    /// Settings of other programs that unknown keys may be.
    let peers: PeerTable
    /// Where to report what belongs to the whole.
    let top: Place
    /// In the order of declaration, which is the order of the example.
    private(set) var declarations: [Declaration] = []
    var problems: [Diagnostic] = []
    var warnings: [Diagnostic] = []
    /// Keys that no section asked for: judged when all names are known.
    var unknown: [(path: [String], entry: ConfigNode.Entry)] = []
    /// Settings whose value was refused: checks between settings leave them out.
    private(set) var refused: Set<String> = []
    private var index: [String: Int] = [:]

    init(_ names: KnownNames, peers: PeerTable, top: Place) {
        self.names = names
        self.peers = peers
        self.top = top
    }

    func declare(_ declaration: Declaration) {
        precondition(index[declaration.keyPath] == nil, "\(declaration.keyPath) is declared twice")
        index[declaration.keyPath] = declarations.count
        declarations.append(declaration)
    }

    func refuse(
        _ code: ConfigError.Code, at place: Place, _ keyPath: String, _ message: String, remedy: String? = nil
    ) {
        refused.insert(keyPath)
        problems.append(Diagnostic(code, at: place, keyPath, message, remedy: remedy))
    }

    subscript(keyPath: String) -> Declaration? { index[keyPath].map { declarations[$0] } }

    /// Whether a setting has another value than its default.
    func isChanged(_ keyPath: String) -> Bool {
        guard case .setting(_, let value, let fallback, _, _)? = self[keyPath]?.role else { return false }
        return value != fallback
    }
}

import OrderedCollections

/// Says of keys that nobody declared what was probably meant.
struct UnknownKeys {
    private let declarations: [Declaration]

    private let peers: PeerTable

    init(_ ledger: Ledger) {
        declarations = ledger.declarations
        peers = ledger.peers
    }

    func judge(_ unknown: [(path: [String], entry: ConfigNode.Entry)]) -> [Diagnostic] {
        var found: [(path: [String], entry: ConfigNode.Entry)] = []
        for (path, entry) in unknown { expand(path, entry, into: &found) }
        var diagnostics: [Diagnostic] = []
        for (path, entry) in found {
            // Past what an error lists, a name alone is enough.
            if diagnostics.count >= ConfigError.limit {
                diagnostics.append(
                    Diagnostic(.unknownKey, at: entry.keyPlace, path.joined(separator: "."), "unknown key"))
            } else {
                diagnostics.append(judge(path, at: entry.keyPlace))
            }
        }
        return diagnostics
    }

    /// An override names a single setting, so judge that and not the section it begins with; verl's
    /// `actor_rollout_ref` in a file is judged by its parts, which are sections here.
    private func expand(
        _ path: [String], _ entry: ConfigNode.Entry, into found: inout [(path: [String], entry: ConfigNode.Entry)]
    ) {
        let isPeerSection = PeerNames.isOuterSection(path)
        guard case .mapping(let inner) = entry.node.content, !inner.isEmpty,
            isPeerSection || entry.keyPlace.isOverride
        else {
            found.append((path, entry))
            return
        }
        for (key, child) in inner { expand(path + [key], child, into: &found) }
    }

    private func judge(_ path: [String], at place: Place) -> Diagnostic {
        let name = path.joined(separator: ".")
        if let known = PeerNames.known(path, in: peers, isDeclared: { isDeclared($0) }) {
            return Diagnostic(.notSupported, at: place, name, known.message, remedy: known.remedy)
        }
        return Diagnostic(.unknownKey, at: place, name, "unknown key", remedy: suggestion(path))
    }

    private func isDeclared(_ keyPath: String) -> Bool { declarations.contains { $0.keyPath == keyPath } }

    private func suggestion(_ path: [String]) -> String? {
        let leaf = path[path.count - 1]
        // The right name in the wrong section, the sections nearest to the one it was written in first.
        var namesakes = declarations.filter { $0.path[$0.path.count - 1] == leaf && $0.path != path }
        namesakes.sort { shared($0.path, path) > shared($1.path, path) }
        if !namesakes.isEmpty { return didYouMean(namesakes.prefix(3).map(\.keyPath)) }
        let siblings = declarations.filter { $0.path.dropLast() == path.dropLast() }
        if let near = nearest(to: leaf, among: siblings, by: { $0.path[$0.path.count - 1] }) {
            return didYouMean([near.keyPath])
        }
        if let near = nearest(to: path.joined(separator: "."), among: declarations, by: \.keyPath) {
            return didYouMean([near.keyPath])
        }
        if let near = nearest(to: leaf, among: declarations, by: { $0.path[$0.path.count - 1] }) {
            return didYouMean([near.keyPath])
        }
        if siblings.isEmpty { return nil }
        return "known here: " + siblings.map { $0.path[$0.path.count - 1] }.joined(separator: ", ")
    }

    private func didYouMean(_ names: [String]) -> String { "did you mean \(names.joined(separator: " or "))?" }

    private func shared(_ left: [String], _ right: [String]) -> Int { zip(left, right).prefix { $0 == $1 }.count }

    private func nearest(
        to text: String, among candidates: [Declaration], by name: (Declaration) -> String
    ) -> Declaration? {
        let wanted = Array(text.utf8)
        if wanted.count > 100 { return nil }
        var best: (declaration: Declaration, distance: Int)?
        for candidate in candidates {
            let other = Array(name(candidate).utf8)
            let allowed = min(max(wanted.count, other.count) / 3, 4)
            guard abs(wanted.count - other.count) <= allowed else { continue }
            let distance = editDistance(wanted, other)
            if distance <= allowed && distance < best?.distance ?? .max { best = (candidate, distance) }
        }
        return best?.declaration
    }
}

/// Damerau's distance in its optimal string alignment form: insertions, deletions, substitutions and swaps of
/// neighbours.
func editDistance(_ left: [UInt8], _ right: [UInt8]) -> Int {
    if left.isEmpty || right.isEmpty { return max(left.count, right.count) }
    var beforeLast = [Int](repeating: 0, count: right.count + 1)
    var last = Array(0...right.count)
    for i in 1...left.count {
        var row = [i] + [Int](repeating: 0, count: right.count)
        for j in 1...right.count {
            let substitution = last[j - 1] + (left[i - 1] == right[j - 1] ? 0 : 1)
            row[j] = min(last[j] + 1, row[j - 1] + 1, substitution)
            if i > 1, j > 1, left[i - 1] == right[j - 2], left[i - 2] == right[j - 1] {
                row[j] = min(row[j], beforeLast[j - 2] + 1)
            }
        }
        (beforeLast, last) = (last, row)
    }
    return last[right.count]
}

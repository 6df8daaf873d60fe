import OrderedCollections

/// `key=value` arguments, laid over what a file says; later ones win.
enum Overrides {
    /// - Returns: the tree with the overrides in it. A mapping is merged into a mapping; anything else replaces.
    static func apply(_ arguments: [String], to root: ConfigNode, problems: inout [Diagnostic]) -> ConfigNode {
        var root = root
        for argument in arguments {
            guard let (path, text) = split(argument, problems: &problems) else { continue }
            let name = path.joined(separator: ".")
            let (value, found) = YAMLReader.read(value: text, of: argument, keyPath: name)
            problems += found
            guard let value else {
                if found.isEmpty {
                    let remedy = "\(name)=null is the default, \(name)='\"\"' the empty text"
                    problems.append(Diagnostic(.badOverride, at: .override(argument), name, "no value", remedy: remedy))
                }
                continue
            }
            merge(value, at: path[...], into: &root, place: .override(argument))
        }
        return root
    }

    private static func split(_ argument: String, problems: inout [Diagnostic]) -> (path: [String], text: String)? {
        func refuse(_ message: String, _ remedy: String) -> (path: [String], text: String)? {
            problems.append(Diagnostic(.badOverride, at: .override(argument), "", message, remedy: remedy))
            return nil
        }
        guard let sign = argument.utf8.firstIndex(of: UInt8(ascii: "=")) else {
            return refuse("not an override", "write key=value, as in rollout.n=8")
        }
        let key = argument[..<sign]
        if let mark = key.utf8.first, mark == UInt8(ascii: "+") || mark == UInt8(ascii: "~") {
            return refuse("Hydra's + and ~ are not supported", "every setting exists: write key=value")
        }
        let path = key.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard path.count <= YAMLReader.maximumDepth,
            path.allSatisfy({ !$0.isEmpty && !$0.utf8.contains { $0 <= 0x20 } && !$0.utf8.starts(with: "-".utf8) })
        else {
            return refuse("not a setting's name", "write key=value, as in rollout.n=8")
        }
        return (path, String(argument[argument.utf8.index(after: sign)...]))
    }

    private static func merge(
        _ value: ConfigNode, at path: ArraySlice<String>, into node: inout ConfigNode, place: Place
    ) {
        var entries: OrderedDictionary<String, ConfigNode.Entry> = [:]
        if case .mapping(let present) = node.content { entries = present }
        guard let key = path.first else {
            guard case .mapping(let new) = value.content, case .mapping = node.content else {
                node = value
                return
            }
            for (key, entry) in new {
                merge(entry.node, at: [key], into: &node, place: place)
            }
            return
        }
        let empty = ConfigNode(content: .mapping([:]), place: place)
        var entry = entries[key] ?? .init(keyPlace: place, node: path.count > 1 ? empty : value)
        merge(value, at: path.dropFirst(), into: &entry.node, place: place)
        // A name that the command line was first to write, or whose value it replaced, is the command line's.
        if entry.node.place.isOverride { entry.keyPlace = entry.node.place }
        entries[key] = entry
        let isMapping = if case .mapping = node.content { true } else { false }
        node = ConfigNode(content: .mapping(entries), place: isMapping ? node.place : place)
    }
}

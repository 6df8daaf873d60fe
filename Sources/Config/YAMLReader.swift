import OrderedCollections
import Yams

/// YAML text to `ConfigNode`s, within limits that no recipe reaches and no hostile file gets past.
struct YAMLReader {
    static let maximumBytes = 256 << 10
    static let maximumDepth = 32
    static let maximumNodes = 20_000
    /// Sixteen uses of anchors can grow a file some hundredfold at most, so that Yams, which hashes keys with all that
    /// they alias before we see them, has bounded work.
    static let maximumAliases = 16
    static let maximumDuplicates = 100

    /// What was wrong that did not stop the reading.
    private(set) var problems: [Diagnostic] = []
    private let placeAt: (_ line: Int, _ column: Int) -> Place
    private let keyPath: String
    private var nodes = 0
    private var renamed: [String: String] = [:]

    private init(keyPath: String, placeAt: @escaping (_ line: Int, _ column: Int) -> Place) {
        self.placeAt = placeAt
        self.keyPath = keyPath
    }

    private enum Stop: Error { case stopped }

    /// - Returns: nil for a text with no value, and when `problems` tell why there is none.
    static func read(file text: String, named name: String) -> (root: ConfigNode?, problems: [Diagnostic]) {
        var reader = YAMLReader(keyPath: "") { .file(name, line: $0, column: $1) }
        let root = reader.read(text)
        return (root, reader.problems)
    }

    /// The value of an override.
    static func read(
        value text: String, of argument: String, keyPath: String
    ) -> (root: ConfigNode?, problems: [Diagnostic]) {
        var reader = YAMLReader(keyPath: keyPath) { _, _ in .override(argument) }
        let root = reader.read(text)
        return (root, reader.problems)
    }

    private mutating func read(_ original: String) -> ConfigNode? {
        var text = original
        if text.unicodeScalars.first == "\u{FEFF}" { text.unicodeScalars.removeFirst() }
        guard text.utf8.count <= Self.maximumBytes else {
            report(.tooLarge, nil, "\(text.utf8.count) bytes; a configuration has at most \(Self.maximumBytes)")
            return nil
        }
        guard aliasUses(in: text) <= Self.maximumAliases else {
            report(.tooLarge, nil, "more than \(Self.maximumAliases) uses of anchors (*name)", "write the values out")
            return nil
        }
        guard let node = compose(text) else { return nil }
        return try? convert(node, depth: 0, path: keyPath)
    }

    private func place(_ mark: Mark?) -> Place { placeAt(mark?.line ?? 1, mark?.column ?? 1) }

    private mutating func report(_ code: ConfigError.Code, _ mark: Mark?, _ message: String, _ remedy: String? = nil) {
        problems.append(Diagnostic(code, at: place(mark), keyPath, message, remedy: remedy))
    }

    // MARK: Yams

    /// Yams refuses a mapping with a key given twice and stops there. So that the rest is checked as well, the first of
    /// the two is renamed, to scalars for private use and as many, and the text read again.
    private mutating func compose(_ original: String) -> Node? {
        var text = original
        while true {
            do {
                // The basic resolver has no rules: `ConfigNode` resolves scalars, by the core schema.
                return try Yams.compose(yaml: text, .basic, .default, .utf8)
            } catch YamlError.duplicatedKeysInMapping(let keys, let context) {
                guard renamed.count < Self.maximumDuplicates,
                    let key = rename(keys, at: context.mark, in: &text)
                else {
                    let list = keys.sorted().joined(separator: ", ")
                    report(.duplicateKey, context.mark, "\(shortened(list)): key given twice", "keep one")
                    return nil
                }
                renamed[key.replacement] = key.original
            } catch {
                report(error)
                return nil
            }
        }
    }

    private func rename(
        _ keys: [String], at mark: Mark, in text: inout String
    ) -> (original: String, replacement: String)? {
        guard let private_ = Unicode.Scalar(0xE000 + UInt32(renamed.count)),
            var start = index(of: mark, in: text.unicodeScalars)
        else { return nil }
        let scalars = text.unicodeScalars
        if let quote = scalars[start...].first, quote == "\"" || quote == "'" { scalars.formIndex(after: &start) }
        // The longest first: of `n` and `names`, both given twice, the text at the mark tells which it is.
        for key in keys.sorted(by: { $0.unicodeScalars.count > $1.unicodeScalars.count }) where !key.isEmpty {
            guard scalars[start...].starts(with: key.unicodeScalars) else { continue }
            let length = key.unicodeScalars.count
            let replacement = String(String.UnicodeScalarView(repeatElement(private_, count: length)))
            let end = scalars.index(start, offsetBy: length)
            text.unicodeScalars.replaceSubrange(start..<end, with: replacement.unicodeScalars)
            return (key, replacement)
        }
        return nil
    }

    /// Lines as libyaml counts them.
    private func index(of mark: Mark, in text: String.UnicodeScalarView) -> String.Index? {
        var line = 1
        var index = text.startIndex
        while line < mark.line {
            guard index < text.endIndex else { return nil }
            let scalar = text[index]
            text.formIndex(after: &index)
            if scalar == "\r", index < text.endIndex, text[index] == "\n" { text.formIndex(after: &index) }
            if ["\n", "\r", "\u{85}", "\u{2028}", "\u{2029}"].contains(scalar) { line += 1 }
        }
        return text.index(index, offsetBy: mark.column - 1, limitedBy: text.endIndex)
    }

    private mutating func report(_ error: any Error) {
        switch error {
        case YamlError.scanner(let context, let problem, let mark, _),
            YamlError.parser(let context, let problem, let mark, _),
            YamlError.composer(let context, let problem, let mark, _):
            let within = context.map { " (\($0.text), line \($0.mark.line))" } ?? ""
            let isTab = problem.contains("cannot start any token") && !place(mark).isOverride
            let remedy = place(mark).isOverride ? "quote the text" : isTab ? "indent by spaces; quote odd text" : nil
            report(.syntax, mark, "not valid YAML: \(problem)\(within)", remedy)
        case YamlError.reader(let problem, let offset, let value, let yaml):
            let here = offset.map { place(at: $0, in: yaml) } ?? place(nil)
            let character = String(value, radix: 16, uppercase: true)
            problems.append(
                Diagnostic(
                    .syntax, at: here, keyPath, "not valid YAML: \(problem) (character \(character) hexadecimal)"))
        default:
            report(.syntax, nil, "not valid YAML: \(error)")
        }
    }

    private func place(at offset: Int, in text: String) -> Place {
        let before = text.prefix(offset)
        let lines = before.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        return placeAt(lines.count, lines[lines.count - 1].unicodeScalars.count + 1)
    }

    /// How often the text seems to use an anchor that it seems to set: never fewer than it does.
    private func aliasUses(in text: String) -> Int {
        var anchors: Set<Substring> = []
        var uses: [Substring] = []
        let bytes = text.utf8
        for index in bytes.indices where bytes[index] == UInt8(ascii: "&") || bytes[index] == UInt8(ascii: "*") {
            let start = bytes.index(after: index)
            let name = bytes[start...].prefix {
                $0.isLetterOrDigit || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-")
            }
            if name.isEmpty { continue }
            let key = text[start..<name.endIndex]
            if bytes[index] == UInt8(ascii: "&") { anchors.insert(key) } else { uses.append(key) }
        }
        return uses.count { anchors.contains($0) }
    }

    // MARK: Nodes

    private mutating func convert(_ node: Node, depth: Int, path: String) throws(Stop) -> ConfigNode {
        nodes += 1
        guard nodes <= Self.maximumNodes, depth <= Self.maximumDepth else {
            let what = depth > Self.maximumDepth ? "nested deeper than \(Self.maximumDepth)" : "too many values"
            report(.tooLarge, node.mark, "\(what) (at most \(Self.maximumNodes) values, aliases counted out)")
            throw .stopped
        }
        let here = place(node.mark)
        switch node {
        case .scalar(let scalar):
            checkTag(scalar.tag.rawValue, implicit: Tag.Name.str.rawValue, node.mark, path)
            let isPlain = scalar.style == .plain && scalar.tag.rawValue != Tag.Name.str.rawValue
            return ConfigNode(content: .scalar(.init(text: scalar.string, isPlain: isPlain)), place: here)
        case .sequence(let sequence):
            checkTag(sequence.tag.rawValue, implicit: Tag.Name.seq.rawValue, node.mark, path)
            var items: [ConfigNode] = []
            for item in sequence { items.append(try convert(item, depth: depth + 1, path: path)) }
            return ConfigNode(content: .sequence(items), place: here)
        case .mapping(let mapping):
            checkTag(mapping.tag.rawValue, implicit: Tag.Name.map.rawValue, node.mark, path)
            return ConfigNode(content: .mapping(try convert(mapping, depth: depth, path: path)), place: here)
        case .alias(let alias):
            report(.syntax, alias.mark, "an alias that stands for nothing")
            throw .stopped
        }
    }

    private mutating func convert(
        _ mapping: Node.Mapping, depth: Int, path: String
    ) throws(Stop) -> OrderedDictionary<String, ConfigNode.Entry> {
        var entries: OrderedDictionary<String, ConfigNode.Entry> = [:]
        var firsts: [(key: String, mark: Mark?)] = []
        for (keyNode, valueNode) in mapping {
            guard case .scalar(let scalar) = keyNode else {
                report(.wrongType, keyNode.mark, "a key that is a list or a mapping", "keys are names")
                continue
            }
            if scalar.string == "<<", scalar.style == .plain {
                report(.notSupported, keyNode.mark, "merge keys (<<) are not supported", "write the settings out")
                continue
            }
            if let original = renamed[scalar.string] {
                firsts.append((original, keyNode.mark))
                continue
            }
            let inner = path.isEmpty ? scalar.string : "\(path).\(scalar.string)"
            let value = try convert(valueNode, depth: depth + 1, path: inner)
            entries[scalar.string] = .init(keyPlace: place(keyNode.mark), node: value)
            guard let first = firsts.last(where: { $0.key == scalar.string }) else { continue }
            let also = first.mark.map { "also on line \($0.line)" } ?? "given twice"
            let message = place(keyNode.mark).isOverride ? "key given twice" : "key given twice: \(also)"
            problems.append(
                Diagnostic(.duplicateKey, at: place(keyNode.mark), inner, message, remedy: "keep one of the two"))
        }
        return entries
    }

    private mutating func checkTag(_ tag: String, implicit: String, _ mark: Mark?, _ path: String) {
        if ["", "!", implicit].contains(tag) { return }
        let message = "the tag \(shortened(tag)) is not supported"
        problems.append(Diagnostic(.notSupported, at: place(mark), path, message, remedy: "write the plain value"))
    }
}

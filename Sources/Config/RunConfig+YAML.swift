extension RunConfig {
    /// Every setting with its value, as YAML that reads back as an equal configuration: what a run writes into its
    /// folder.
    public func resolvedYAML() -> String {
        var text = ""
        for declaration in declarations {
            let indent = String(repeating: "  ", count: declaration.path.count - 1)
            let key = declaration.path[declaration.path.count - 1]
            switch declaration.role {
            case .section: text += "\(indent)\(key):\n"
            case .setting(_, let value, _, _, _): text += "\(indent)\(key): \(value)\n"
            }
        }
        return text
    }

    /// A recipe with every setting, its documentation, what it accepts and its default: `recipes/example.yaml`.
    public static func exampleYAML(names: KnownNames = KnownNames()) -> String {
        var text = comment(
            "Every setting of Fledge, each at its default, or at an example where it must be set. Written by the "
                + "program from its own declarations: do not edit. A recipe of yours needs only the lines that differ; "
                + "on the command line the same names, joined by dots, override it: fledge train my.yaml rollout.n=16 "
                + "actor.optim.lr=2e-6",
            indent: "")
        for declaration in described(by: names) {
            let indent = String(repeating: "  ", count: declaration.path.count - 1)
            let key = declaration.path[declaration.path.count - 1]
            text += declaration.isSection || declaration.path.count == 1 ? "\n" : ""
            switch declaration.role {
            case .section:
                text += comment(declaration.doc, indent: indent) + "\(indent)\(key):\n"
            case .setting(let accepts, let value, _, let example, let isRequired):
                let given = isRequired ? "Required." : example == value ? "" : "Default: \(value)."
                let note = "(\(accepts))" + (given.isEmpty ? "" : " " + given)
                text += comment("\(declaration.doc) \(note)", indent: indent) + "\(indent)\(key): \(example)\n"
            }
        }
        return text
    }

    private static func comment(_ text: String, indent: String) -> String {
        let width = 100 - indent.count
        var lines: [String] = []
        var line = "#"
        for word in text.split(separator: " ") {
            if line.count + 1 + word.count > width {
                lines.append(line)
                line = "#"
            }
            line += " " + word
        }
        lines.append(line)
        return lines.map { "\(indent)\($0)\n" }.joined()
    }
}

/// Declared settings as YAML.
enum DeclarationText {
    /// Every setting with its value.
    static func resolved(_ declarations: [Declaration]) -> String {
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

    /// Every setting with its documentation, what it accepts and its default, after an introduction.
    static func example(_ declarations: [Declaration], introduction: String) -> String {
        var text = comment(introduction, indent: "")
        for declaration in declarations {
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

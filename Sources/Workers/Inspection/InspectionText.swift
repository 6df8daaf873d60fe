import TensorCore

extension ModelInspection {
    /// The report for people, a line for each fact.
    public var report: String {
        var lines: [String] = []
        func line(_ name: String, _ value: String?) {
            guard let value, !value.isEmpty else { return }
            lines.append(Self.padded(name, 16) + value)
        }
        lines.append("\(path): \(storage.rawValue)")
        line("architecture", architecture.map { $0 + (modelType.map { " (\($0))" } ?? "") })
        if let shape {
            line(
                "shape",
                "\(shape.layers) layers of \(shape.hidden), \(shape.queryHeads) heads of \(shape.headDim) over "
                    + "\(shape.keyValueHeads) key-value heads, feed-forward \(shape.intermediate)")
            if shape.experts > 0 { line("experts", "\(shape.experts), \(shape.expertsPerToken) for each token") }
        }
        line("attention", attention)
        line("rotary", rope)
        line("context", contextLength.map { "\(Self.grouped($0)) tokens" })
        if weights.parts.total > 0 {
            line("parameters", Self.grouped(weights.parts.total) + (isTied == true ? ", embedding and head tied" : ""))
            for part in ParameterParts.Part.allCases where weights.parts[part] > 0 {
                let share = 100 * Double(weights.parts[part]) / Double(weights.parts.total)
                line("  \(part.rawValue)", "\(Self.grouped(weights.parts[part])) (\((share * 10).rounded() / 10) %)")
            }
            let types = weights.types.map { "\($0.name) \(Self.size($0.bytes))" }.joined(separator: ", ")
            line("weights", "\(types), \(weights.tensors) tensors in \(weights.files) files")
        }
        line("tokenizer", text.kind.map { $0 + (text.vocabulary.map { ", \(Self.grouped($0)) tokens" } ?? "") })
        line(
            "special tokens",
            text.specialTokens.map { "\($0.role) \($0.text)" + ($0.id.map { " (\($0))" } ?? "") }.joined(
                separator: ", "))
        line("ends a turn", text.endOfTurn.map { "\($0.text) (\($0.id))" }.joined(separator: ", "))
        line("chat template", templateLine)
        if !memory.isEmpty {
            lines.append("memory")
            for estimate in memory {
                let parts = estimate.parts.map { "\($0.name) \(Self.size($0.bytes))" }.joined(separator: " + ")
                let name = Self.padded("  \(estimate.method), \(estimate.dtype)", 38)
                lines.append(name + Self.padded(Self.size(estimate.total), 10) + parts)
            }
        }
        for finding in findings.sorted(by: { $0.severity < $1.severity }) {
            lines.append("\(finding.severity.rawValue): \(finding.topic): \(finding.message)")
        }
        let errors = findings.count { $0.severity == .error }
        lines.append(errors == 0 ? "Fledge can run this model." : "Fledge cannot run this model: \(errors) errors.")
        return lines.joined(separator: "\n")
    }

    private var templateLine: String {
        guard text.hasTemplate else { return "none" }
        var words = [text.templateMarksGeneration == nil ? "does not compile" : "present"]
        if let marks = text.templateMarksGeneration { words.append(marks ? "generation tags" : "no generation tags") }
        if text.templateTakesTools == true { words.append("tools") }
        if text.templateTakesThinking == true { words.append("thinking") }
        if text.templateNames.count > 1 { words.append("named " + text.templateNames.joined(separator: " ")) }
        return words.joined(separator: ", ")
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }

    /// "1,234,567".
    private static func grouped(_ number: Int) -> String {
        var text = "", count = 0
        for digit in String(number).reversed() {
            if count > 0, count % 3 == 0 { text.append(",") }
            text.append(digit)
            count += 1
        }
        return String(text.reversed())
    }

    /// "1.4 GiB".
    static func size(_ bytes: Int) -> String {
        var value = Double(bytes), unit = "B"
        for next in ["KiB", "MiB", "GiB", "TiB"] where value >= 1024 { (value, unit) = (value / 1024, next) }
        let rounded = value < 100 && unit != "B" ? (value * 10).rounded() / 10 : value.rounded()
        return "\(rounded.formatted) \(unit)"
    }
}

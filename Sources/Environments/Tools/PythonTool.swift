public import ChatTemplates
public import Conversations

/// Runs a model's Python code in a ``PythonSandbox`` and shows it what that wrote. Nothing is kept between calls.
public struct PythonTool: Tool {
    public let definition: ToolDefinition
    public let sandbox: PythonSandbox

    /// - Throws: `ConversationError` for a name that no tool can have.
    public init(_ sandbox: PythonSandbox, name: String = "python") throws {
        self.sandbox = sandbox
        definition = try ToolDefinition(
            name: name,
            description: "Runs Python code and returns what it prints, with the value of a last line that is an "
                + "expression. There is no network, no files, and nothing is kept between calls.",
            parameters: [
                "type": "object", "properties": ["code": ["type": "string", "description": "Python 3 code"]],
                "required": ["code"], "additionalProperties": false,
            ])
    }

    /// The sandbox ends code itself; calls may wait for each other before they begin, and are then not late.
    public var timeLimit: Duration { sandbox.configuration.time * 16 }

    public func call(_ arguments: TemplateObject) async -> ToolResult {
        Self.result(await sandbox.run(arguments["code"]?.string ?? ""))
    }

    static func result(_ outcome: PythonSandbox.Outcome) -> ToolResult {
        var text = outcome.output
        while text.utf8.last == UInt8(ascii: "\n") { text.removeLast() }
        switch outcome.ending {
        case .finished: return ToolResult(text.isEmpty ? "(no output)" : text)
        case .raised:
            return ToolResult(text.isEmpty ? "Error: the code failed without output." : text, failure: "raised")
        default:
            let note = "Error: the code was stopped: \(outcome.note)."
            return ToolResult(text.isEmpty ? note : text + "\n" + note, failure: outcome.ending.rawValue)
        }
    }

    public func shutdown() async { await sandbox.shutdown() }
}

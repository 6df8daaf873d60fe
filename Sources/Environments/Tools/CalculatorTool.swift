public import ChatTemplates
public import Conversations

/// A calculator for one expression; see `Expression` for what it reads.
public struct CalculatorTool: Tool {
    public let definition: ToolDefinition

    public init(name: String = "calculator") throws {
        definition = try ToolDefinition(
            name: name,
            description: "Computes an arithmetic expression exactly. "
                + "It knows + - * / // % **, brackets, decimals, and functions such as sqrt, round, min and max.",
            parameters: [
                "type": "object",
                "properties": [
                    "expression": [
                        "type": "string", "description": "for example: 12.5 * (3 + 4)",
                        "maxLength": .int(Int64(Expression.maximumBytes)),
                    ]
                ],
                "required": ["expression"], "additionalProperties": false,
            ])
    }

    public func call(_ arguments: TemplateObject) -> ToolResult { evaluate(arguments["expression"]?.string ?? "") }

    public func evaluate(_ expression: String) -> ToolResult {
        do {
            return ToolResult(Expression.text(try Expression.value(expression)))
        } catch {
            return ToolResult("Error: \(error.message).", failure: "bad_expression")
        }
    }
}

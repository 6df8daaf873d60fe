public import ChatTemplates
public import Conversations

/// Something that a model can call.
public protocol Tool: Sendable {
    var definition: ToolDefinition { get }
    /// The most time that one call may take; one that takes longer is answered by an error.
    var timeLimit: Duration { get }
    /// - Parameter arguments: checked against the definition's schema.
    func call(_ arguments: TemplateObject) async -> ToolResult
    func shutdown() async
}

extension Tool {
    public var timeLimit: Duration { .seconds(10) }
    public func shutdown() async {}
}

/// What a call gave.
public struct ToolResult: Hashable, Sendable {
    /// What the model is told.
    public var text: String
    /// A short name of what went wrong, for counting; nil for a success.
    public var failure: String?

    public init(_ text: String, failure: String? = nil) {
        self.text = text
        self.failure = failure
    }
}

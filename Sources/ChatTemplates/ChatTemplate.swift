/// A chat template, compiled once and rendered any number of times, from any thread.
///
/// It runs Jinja as `transformers` sets it up: an immutable sandbox with `trim_blocks`, `lstrip_blocks`, loop controls,
/// the `generation` tag, `tojson`, `raise_exception` and `strftime_now`. Templates are hostile input: see
/// ``TemplateLimits``.
public struct ChatTemplate: Sendable {
    /// The template's text as given.
    public let source: String
    public let limits: TemplateLimits
    private let tree: TemplateTree
    private let normalizedSource: [UInt8]

    /// Compiles a template.
    /// - Throws: ``TemplateError`` with the line and column of what is not valid: bad syntax, an unknown filter or test.
    public init(_ source: String, limits: TemplateLimits = TemplateLimits()) throws(TemplateError) {
        self.source = source
        self.limits = limits
        do {
            (tree, normalizedSource) = try Parser.parse(source, limits: limits)
        } catch {
            throw ChatTemplate.own(error)
        }
    }

    /// Whether the template marks what the assistant wrote with `{% generation %}`, so that
    /// ``RenderedChat/generationSpans`` says which text to train on.
    public var marksGeneration: Bool { tree.hasGeneration }

    /// Renders a conversation with the variables that `transformers` defines.
    /// - Parameters:
    ///   - messages: objects with `role`, `content` and whatever else the template reads, as in JSON. For messages with
    ///     reasoning see ``TemplateValue/withReasoningAliases``.
    ///   - tools: a list of JSON schemas; null (the variable is defined and none) without tools.
    ///   - addGenerationPrompt: whether to end with what opens the assistant's turn.
    ///   - variables: further variables, `bos_token`, `eos_token`, `documents`, `enable_thinking` …; they win over the
    ///     ones above.
    ///   - clock: the time for `strftime_now`.
    /// - Throws: ``TemplateError`` with line and column; code `raised` carries the template's own message.
    public func render(
        messages: [TemplateValue], tools: TemplateValue = .null, addGenerationPrompt: Bool = false,
        variables: [String: TemplateValue] = [:], clock: @escaping @Sendable () -> TemplateTime = { .now() }
    ) throws(TemplateError) -> RenderedChat {
        var all: [String: TemplateValue] = [
            "messages": .array(messages), "tools": tools, "documents": .null,
            "add_generation_prompt": .bool(addGenerationPrompt),
        ]
        all.merge(variables) { _, given in given }
        return try render(variables: all, clock: clock)
    }

    /// Renders a conversation of plain messages.
    /// - Throws: ``TemplateError``, as the other forms.
    public func render(
        _ messages: [ChatMessage], tools: TemplateValue = .null, addGenerationPrompt: Bool = false,
        variables: [String: TemplateValue] = [:], clock: @escaping @Sendable () -> TemplateTime = { .now() }
    ) throws(TemplateError) -> RenderedChat {
        try render(
            messages: messages.map(\.value), tools: tools, addGenerationPrompt: addGenerationPrompt,
            variables: variables, clock: clock)
    }

    /// Renders with exactly these variables, as a bare Jinja environment would.
    /// - Throws: ``TemplateError``, as the other forms.
    public func render(
        variables: [String: TemplateValue], clock: @escaping @Sendable () -> TemplateTime = { .now() }
    ) throws(TemplateError) -> RenderedChat {
        let interpreter = Interpreter(tree, limits: limits, clock: clock)
        // Only what the template mentions is converted.
        for (name, value) in variables { interpreter.define(name, Value(value)) }
        do {
            let text = try interpreter.render()
            return RenderedChat(text: text, generations: interpreter.generations)
        } catch {
            throw ChatTemplate.own(error).located(at: Int(interpreter.offset), in: normalizedSource)
        }
    }

    private static func own(_ error: any Error) -> TemplateError {
        error as? TemplateError ?? TemplateError(.runtime, "\(error)")
    }
}

/// A rendered conversation.
public struct RenderedChat: Hashable, Sendable {
    public let text: String
    /// What `generation` blocks wrote, as UTF-8 offsets into `text`, in the order in which the blocks ran.
    public let generationSpans: [Range<Int>]
    /// Generation blocks whose text is not where it was written, because a macro or `set` block took it elsewhere:
    /// they have no span, and a mask made from the spans would miss them.
    public let unplacedGenerations: Int

    init(text: String, generations: [Interpreter.Generation]) {
        self.text = text
        guard !generations.isEmpty else {
            generationSpans = []
            unplacedGenerations = 0
            return
        }
        let bytes = Array(text.utf8)
        var spans: [Range<Int>] = []
        for generation in generations {
            let end = generation.start + generation.text.utf8.count
            if end <= bytes.count, bytes[generation.start..<end].elementsEqual(generation.text.utf8) {
                spans.append(generation.start..<end)
            }
        }
        generationSpans = spans
        unplacedGenerations = generations.count - spans.count
    }

    /// ``generationSpans`` in code points, the unit that Python's tools use.
    public var generationSpansInCodePoints: [Range<Int>] {
        let bytes = Array(text.utf8)
        var spans: [Range<Int>] = []
        var (byte, count) = (0, 0)
        func advance(to offset: Int) -> Int {
            if offset < byte { (byte, count) = (0, 0) }
            count += bytes[byte..<offset].count { $0 & 0xC0 != 0x80 }
            byte = offset
            return count
        }
        for span in generationSpans {
            let start = advance(to: span.lowerBound)
            spans.append(start..<advance(to: span.upperBound))
        }
        return spans
    }
}

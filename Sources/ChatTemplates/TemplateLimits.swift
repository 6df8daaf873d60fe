/// What a template may use before rendering is stopped with ``TemplateError/Code/limit``.
///
/// Templates come with models from strangers. The defaults leave room for conversations of millions of tokens and
/// stop endless loops, runaway recursion and strings that double.
public struct TemplateLimits: Hashable, Sendable {
    /// Evaluated tree nodes and elements looped over or built, together.
    public var steps: Int
    /// UTF-8 bytes of the rendered text, and of any one string made on the way.
    public var outputBytes: Int
    /// UTF-8 bytes of all strings, plus the slots of all lists and dictionaries, made during one rendering.
    public var allocatedBytes: Int
    /// Nested evaluations (macro calls within loops within expressions …), and how deep values may nest.
    public var recursionDepth: Int
    /// Elements in one `range(…)`; Jinja2's sandbox has the same number.
    public var rangeLength: Int
    /// UTF-8 bytes of the template's source, checked when it is compiled.
    public var sourceBytes: Int

    public init(
        steps: Int = 20_000_000, outputBytes: Int = 64 << 20, allocatedBytes: Int = 1 << 30, recursionDepth: Int = 400,
        rangeLength: Int = 100_000, sourceBytes: Int = 1 << 20
    ) {
        self.steps = steps
        self.outputBytes = outputBytes
        self.allocatedBytes = allocatedBytes
        self.recursionDepth = recursionDepth
        self.rangeLength = rangeLength
        self.sourceBytes = sourceBytes
    }
}

/// What `generation_config.json` says of sampling; nil where it says nothing.
public struct GenerationDefaults: Hashable, Sendable {
    /// False for the most likely token each time, whatever the rest says.
    public var samples: Bool?
    public var temperature: Double?
    public var topP: Double?
    public var topK: Int?
    public var minP: Double?
    public var repetitionPenalty: Double?
    /// `max_new_tokens`: tokens of an answer; `max_length`: of prompt and answer together.
    public var maximumNewTokens: Int?
    public var maximumLength: Int?

    public init() {}

    /// - Throws: `TokenizerError` with the field.
    init(_ root: JSONNode) throws {
        func number(_ name: StaticString, above least: Double) throws -> Double? {
            guard let node = root.present(name) else { return nil }
            guard let value = node.double, value >= least else {
                throw TokenizerError(.invalidField, "\(name): expected a number, \(least) or more")
            }
            return value
        }
        func count(_ name: StaticString) throws -> Int? {
            root.present(name) == nil ? nil : try FieldReader(root, at: "generation_config").count(name)
        }
        if root.present("do_sample") != nil {
            samples = try FieldReader(root, at: "generation_config").bool("do_sample")
        }
        temperature = try number("temperature", above: 0)
        topP = try number("top_p", above: 0)
        minP = try number("min_p", above: 0)
        repetitionPenalty = try number("repetition_penalty", above: 0)
        topK = try count("top_k")
        maximumNewTokens = try count("max_new_tokens")
        maximumLength = try count("max_length")
    }
}

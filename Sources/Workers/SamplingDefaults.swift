import Foundation
public import Tokenizers

/// Sampling settings that a user may leave open, filled in from a checkpoint's `generation_config.json` as transformers and vLLM
/// do, else with this program's own. For commands that let a model answer; training draws as its recipe says and never reads the
/// file.
public struct SamplingDefaults: Sendable, Hashable {
    public private(set) var temperature = 0.0
    public private(set) var topK = 0
    public private(set) var topP = 1.0
    public private(set) var minP = 0.0
    public private(set) var repetitionPenalty = 1.0
    /// What the file decides, as `top_p 0.9`: open settings that it gives another value than this program would.
    public private(set) var taken: [String] = []

    /// What a user gives; nil for what is left open.
    public init(
        temperature: Double? = nil, topK: Int? = nil, topP: Double? = nil, minP: Double? = nil,
        repetitionPenalty: Double? = nil, file: GenerationDefaults
    ) {
        func choose<Value: Equatable>(_ name: String, _ given: Value?, _ theirs: Value?, _ usual: Value) -> Value {
            if let given { return given }
            guard let theirs, theirs != usual else { return usual }
            taken.append("\(name) \(theirs)")
            return theirs
        }
        // A file that asks for sampling and names no temperature means 1; one that asks for none means greedy.
        let theirs: Double? =
            switch file.samples {
            case false?: 0
            case true?: file.temperature ?? 1
            case nil: file.temperature
            }
        self.temperature = choose("temperature", temperature, theirs, 0)
        self.topK = choose("top_k", topK, file.topK, 0)
        self.topP = choose("top_p", topP, file.topP, 1)
        self.minP = choose("min_p", minP, file.minP, 0)
        self.repetitionPenalty = choose("repetition_penalty", repetitionPenalty, file.repetitionPenalty, 1)
    }

    /// What the checkpoint at `path` says; nothing for one that is a GGUF file.
    /// - Throws: `TokenizerError` with the file and the field.
    public static func file(ofModelAt path: String) throws -> GenerationDefaults {
        try TokenizerConfig(folder: URL(fileURLWithPath: path, isDirectory: true)).generation
    }
}

import Checkpoints
import Models
import TensorCore

/// A model with what belongs to it, as a Hugging Face folder; an adapter's product is added to the weights.
enum ModelExport {
    /// - Parameter config: where the model has another head than its source; nil for the source's own.
    static func write(
        model: any SequenceModel, source: ModelSource, config: ModelConfig? = nil, to folder: String, maxShardBytes: Int
    ) throws {
        try HuggingFaceExporter.write(
            tensors: model.mergedTensors().map { ($0.name, try $0.tensor.detached()) }, config: config ?? source.config,
            tokenizerFiles: companions(of: source), to: folder, maxShardBytes: maxShardBytes)
    }

    /// What lies beside the weights of the model's folder.
    static func companions(of source: ModelSource) throws -> [HuggingFaceExporter.CompanionFile] {
        if let original = source.folder { return try HuggingFaceExporter.companions(in: original) }
        if let file = source.gguf { return try GGUFTokenizerExport.files(GGUFTokenizerMetadata(file)) }
        return []
    }
}

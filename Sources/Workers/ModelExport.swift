import Checkpoints
import Models
import TensorCore

/// A model with what belongs to it, as a Hugging Face folder; an adapter's product is added to the weights.
enum ModelExport {
    /// - Parameter config: where the model has another head than its source; nil for the source's own.
    static func write(
        model: any SequenceModel, source: ModelSource, config: ModelConfig? = nil, to folder: String, maxShardBytes: Int
    ) throws {
        let companions =
            if let original = source.folder {
                try HuggingFaceExporter.companions(in: original)
            } else if let file = source.gguf {
                try GGUFTokenizerExport.files(GGUFTokenizerMetadata(file))
            } else { [HuggingFaceExporter.CompanionFile]() }
        try HuggingFaceExporter.write(
            tensors: model.mergedTensors().map { ($0.name, try $0.tensor.detached()) }, config: config ?? source.config,
            tokenizerFiles: companions, to: folder, maxShardBytes: maxShardBytes)
    }
}

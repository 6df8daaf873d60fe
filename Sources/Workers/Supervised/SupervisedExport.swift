public import Config
import Models
public import TensorCore

/// The model of a supervised run, as it was last saved, as a Hugging Face folder.
public enum SupervisedExport {
    public static func write(
        _ config: SupervisedConfig, checkpoints: String, dtype: DType, to folder: String, maxShardBytes: Int
    ) async throws {
        var plan = SupervisedWorker.Plan(
            kind: config.kind, modelPath: config.model.path, dtype: dtype, device: .cpu)
        plan.seed = UInt64(config.seed)
        let worker = SupervisedWorker(plan)
        try await worker.load()
        try await worker.loadWeights(checkpoints: checkpoints)
        try await worker.export(to: folder, maxShardBytes: maxShardBytes)
    }
}

import Checkpoints
import TensorCore

/// A folder in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.
public struct PEFTFolder {
    private static let weightsName = "adapter_model"
    private static let prefix = "base_model.model."

    public let path: String
    /// What `adapter_config.json` says.
    public let settings: LoRASettings

    /// Reads the configuration.
    /// - Throws: `CheckpointError`, which for a feature that is not supported names its field.
    public init(_ path: String) throws {
        self.path = path
        let config = try PEFTConfig(folder: path)
        settings = LoRASettings(
            rank: config.rank, alpha: config.alpha, dropout: config.dropout, isRankStabilized: config.usesRSLoRA,
            targets: config.targetModules.map { .modules($0) } ?? .allLinear, excluded: config.excludeModules)
    }

    /// Hangs the adapter on `model`, frozen but for it.
    ///
    /// - Parameters: seed, of the dropout masks.
    /// - Throws: ``ModelError`` with code `adapter` that names the tensors which are missing, left over or misshapen;
    ///   `CheckpointError`.
    @discardableResult
    public func load(into model: some SequenceModel, seed: UInt64 = 0) throws -> LoRA {
        let weights = try open()
        var settings = settings
        settings.seed = seed
        let selection = try AdapterSelection(settings, model: model, isLenient: true)
        try check(weights, selection, rank: settings.rank)
        return try model.addAdapter(settings, selection) { name, _ in try weights.tensor(named: Self.prefix + name) }
    }

    private func open() throws -> SafetensorsModel {
        do {
            return try SafetensorsModel(folder: path, name: Self.weightsName)
        } catch let error as CheckpointError where error.code == .notFound {
            let pickle = Self.weightsName + ".bin"
            guard (try? MappedFile(path: path + "/" + pickle)) != nil else { throw error }
            throw CheckpointError(
                .pickle, path,
                "the adapter's weights are a Python pickle (\(pickle)), which can run any code when read",
                remedy: "save it again with PEFT: save_pretrained(folder, safe_serialization=True)")
        }
    }

    private func check(_ weights: SafetensorsModel, _ selection: AdapterSelection, rank: Int) throws {
        func refuse(_ message: String) -> ModelError { ModelError(.adapter, "\(path): \(message)") }
        func list(_ names: [String]) -> String {
            names.prefix(5).joined(separator: ", ") + (names.count > 5 ? ", …" : "")
        }
        var wanted: [(name: String, shape: [Int])] = []
        for (projection, parts) in selection.targets {
            for part in parts {
                let module = Self.prefix + part.module
                wanted.append((module + ".lora_A.weight", [rank, projection.weight.size(1)]))
                wanted.append((module + ".lora_B.weight", [part.rows.count, rank]))
            }
        }
        let missing = wanted.map(\.name).filter { !weights.contains($0) }
        guard missing.isEmpty else {
            throw refuse(
                "\(missing.count) tensors that the model and 'target_modules' ask for are missing: \(list(missing))")
        }
        let names = Set(wanted.map(\.name))
        let extra = weights.tensorNames.filter { !names.contains($0) }
        guard extra.isEmpty else {
            throw refuse("\(extra.count) tensors are of no module of this model that is adapted: \(list(extra))")
        }
        for (name, shape) in wanted {
            let found = try weights.entry(named: name).shape
            guard found == shape else {
                throw refuse("tensor '\(name)' has shape \(found); rank and model ask for \(shape)")
            }
        }
    }

    /// Writes `lora` as PEFT's `save_pretrained` does; the folder is there whole or not at all.
    ///
    /// - Parameter base: the model that it belongs to, by the name or path that users of the folder know.
    /// - Throws: `CheckpointError`: `duplicate` when `folder` exists and is not empty, `diskFull`.
    public static func write(_ lora: LoRA, base: String?, to folder: String) throws {
        var tensors: [(name: String, tensor: Tensor)] = []
        for parameter in lora.parameters {
            for (name, tensor) in try parameter.split() { tensors.append((prefix + name, try tensor.detached())) }
        }
        let settings = lora.settings
        // For all-linear PEFT lists the modules by their full names.
        let targets: [String] =
            switch settings.targets {
            case .allLinear: lora.modules
            case .modules(let names): names
            }
        let config = PEFTConfig(
            rank: settings.rank, alpha: settings.alpha, dropout: settings.dropout,
            usesRSLoRA: settings.isRankStabilized, targetModules: targets, excludeModules: settings.excluded)
        try HuggingFaceExporter.writeFolder(
            tensors: tensors, named: weightsName,
            files: [.init(name: PEFTConfig.fileName, bytes: Array(config.text(base: base).utf8))], to: folder)
    }
}

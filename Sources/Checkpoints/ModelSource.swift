internal import Collectives
internal import OrderedCollections
public import TensorCore

/// A pre-trained model on disk, either a Hugging Face folder or a GGUF file, seen the same way.
public final class ModelSource {
    /// Where the weights come from.
    public enum Storage {
        case safetensors(SafetensorsModel)
        case gguf(GGUFModel)
    }

    public let path: String
    /// As read, but for `quantization_config`: the weights are given as full numbers.
    public let config: ModelConfig
    /// The packed weights of a GPTQ or AWQ checkpoint, expanded as they are read; nil for any other.
    public let packed: PackedWeights?
    private let original: ModelConfig
    /// Such as "LlamaForCausalLM"; from `config.json`, or derived from GGUF's architecture.
    public let architecture: String
    public let storage: Storage
    /// Changes when the weights or the config do: a hash of the config, the tensor table and a sample of every tensor.
    public private(set) lazy var digest = Self.digest(original, storage)

    /// Opens `path`, a folder with `config.json` and safetensors, or a .gguf file (or a folder that holds just one).
    ///
    /// - Throws: `CheckpointError`, saying what is missing, cut short, not a model, a git-lfs pointer or a pickle.
    public static func open(_ path: String) throws -> ModelSource { try ModelSource(path) }

    private init(_ path: String) throws {
        self.path = path
        guard pathExists(path) else {
            throw CheckpointError(
                .notFound, path, "there is no model here", remedy: "name a Hugging Face folder or a .gguf file")
        }
        let location = isDirectory(path) ? try Self.resolve(folder: path) : path
        if isDirectory(location) {
            let config = try ModelConfig(path: location + "/config.json")
            let model = try SafetensorsModel(folder: location)
            guard let architecture = config.architecture ?? config.modelType else {
                throw CheckpointError(
                    .configuration, config.path, "neither 'architectures' nor 'model_type' names the architecture")
            }
            packed = try PackedFormat(config).map { format in
                try PackedWeights(format, place: location, names: model.tensorNames) { name in
                    let entry = try model.entry(named: name)
                    return (entry.dtype, entry.shape)
                } isZero: { name in
                    try !model.tensor(named: name).values(Float.self).contains { $0 != 0 }
                }
            }
            original = config
            self.config = config.without("quantization_config")
            (self.architecture, storage) = (architecture, .safetensors(model))
        } else {
            try Self.refuseOtherFiles(location)
            let model = try GGUFModel(path: location)
            (config, storage) = (model.config, .gguf(model))
            (original, packed) = (model.config, nil)
            architecture = model.config.architecture ?? ""
        }
    }

    /// Names what else a user may point at, before it is read as GGUF.
    /// - Throws: `CheckpointError`: `unsupported`, `pickle`.
    public static func refuseOtherFiles(_ path: String) throws {
        if path.hasSuffix(".safetensors") || path.hasSuffix(".json") {
            throw CheckpointError(
                .unsupported, path, "is one file of a Hugging Face model", remedy: "name its folder")
        }
        // A pickle's protocol mark, or the zip that torch.save wraps around it.
        let file = try MappedFile(path: path)
        let start = [UInt8](file.bytes.prefix(4))
        if start.starts(with: [0x80, 2]) || start.elementsEqual([0x50, 0x4B, 3, 4]) {
            throw pickle(path, "this file")
        }
    }

    private static func pickle(_ place: String, _ what: String) -> CheckpointError {
        CheckpointError(
            .pickle, place, "the weights are a Python pickle (\(what)), which can run any code when read",
            remedy: "convert them with transformers: AutoModelForCausalLM.from_pretrained(folder)"
                + ".save_pretrained(folder, safe_serialization=True)")
    }

    private static func distributed(_ folder: String) -> CheckpointError {
        CheckpointError(
            .pickle, folder,
            "this is a distributed checkpoint of PyTorch or Megatron-LM (.distcp), whose index is a Python pickle, which can run "
                + "any code when read",
            remedy:
                "convert it where it was made: Megatron-LM's tools/checkpoint/convert.py or Megatron-Bridge's export to "
                + "Hugging Face safetensors; torch.distributed.checkpoint.format_utils, then save_pretrained")
    }

    /// The folder itself when it is a Hugging Face one, else the one GGUF file in it.
    private static func resolve(folder: String) throws -> String {
        let names = try entries(of: folder)
        let ggufs = names.filter { $0.hasSuffix(".gguf") }
        guard names.contains("config.json") else {
            // A training checkpoint of several ranks holds the model in a folder of its own.
            if names.contains(CheckpointManifest.fileName), names.contains(ShardedCheckpoint.modelFolder) {
                return try resolve(folder: folder + "/" + ShardedCheckpoint.modelFolder)
            }
            if names.contains(where: { $0.hasSuffix(".distcp") }) { throw distributed(folder) }
            if ggufs.count == 1 { return folder + "/" + ggufs[0] }
            let several = ggufs.isEmpty ? "" : "; of its \(ggufs.count) GGUF files, name one"
            throw CheckpointError(
                .notFound, folder, "there is no config.json in this folder\(several)",
                remedy: "name a Hugging Face folder or a .gguf file")
        }
        if names.contains("model.safetensors") || names.contains("model.safetensors.index.json") { return folder }
        if names.contains(where: { $0.hasSuffix(".distcp") }) { throw distributed(folder) }
        let pickles = [".bin", ".pt", ".pth"]
        if let name = names.first(where: { name in pickles.contains { name.hasSuffix($0) } }) {
            throw pickle(folder, name)
        }
        throw CheckpointError(
            .notFound, folder, "there are no weights: neither model.safetensors nor model.safetensors.index.json",
            remedy: "fetch the model again")
    }

    /// The file of GGUF weights, which also holds the tokenizer; nil for a Hugging Face folder.
    public var gguf: GGUFFile? { if case .gguf(let model) = storage { model.file } else { nil } }
    /// The Hugging Face folder, which also holds `tokenizer.json`; nil for a GGUF file.
    public var folder: String? { if case .safetensors(let model) = storage { model.folder } else { nil } }

    /// Hugging Face's names.
    public var tensorNames: [String] {
        switch storage {
        case .safetensors(let model): packed?.tensorNames ?? model.tensorNames
        case .gguf(let model): model.tensorNames
        }
    }

    public func contains(_ name: String) -> Bool {
        switch storage {
        case .safetensors(let model): model.contains(name) || packed?.modules[name] != nil
        case .gguf(let model): model.contains(name)
        }
    }

    public func shape(of name: String) throws -> [Int] {
        if let module = packed?.modules[name] { return [module.outputs, module.inputs] }
        switch storage {
        case .safetensors(let model): return try model.entry(named: name).shape
        case .gguf(let model): return try model.shape(of: name)
        }
    }

    /// The tensor under its Hugging Face name, on the CPU, converted to `dtype`. It may borrow from the mapped file; writing to
    /// it changes memory only.
    ///
    /// - Throws: `CheckpointError.missingTensor`; `TorchError`.
    public func tensor(named name: String, dtype: DType) throws -> Tensor {
        if packed?.modules[name] != nil {
            let tensor = try Tensor.empty(shape(of: name), dtype: dtype)
            try load([TensorDestination(name: name, tensor: tensor)])
            return tensor
        }
        switch storage {
        case .safetensors(let model): return try model.tensor(named: name).to(dtype: dtype)
        case .gguf(let model): return try model.tensor(named: name, dtype: dtype)
        }
    }

    /// Fills tensors with those of the checkpoint, converted to the types that they have: the files are read once, in the order
    /// of the disk, straight to where the values belong. GGUF's blocks are expanded on the CPU on the way.
    ///
    /// - Parameters:
    ///   - destinations: their shapes are checked.
    ///   - mode: nil chooses by size and by what is in the page cache already.
    /// - Throws: `CheckpointError`: `missingTensor`, `malformed` for a shape that differs, `truncated`; `TorchError`. What the
    ///   destinations hold then is undefined.
    @discardableResult
    public func load(_ destinations: [TensorDestination], mode: ReadMode? = nil) throws -> LoadStatistics {
        for destination in destinations {
            let found = try shape(of: destination.name)
            guard destination.fits(found) else {
                let part = destination.box.map { " with its part \($0.ranges) of \($0.shape)" } ?? ""
                throw CheckpointError(
                    .malformed, path,
                    "tensor '\(destination.name)' has shape \(found) and cannot fill \(destination.tensor.summary)\(part)"
                )
            }
        }
        switch storage {
        case .safetensors(let model):
            guard let packed else { return try model.load(destinations, mode: mode) }
            for destination in destinations {
                guard let module = packed.modules[destination.name] else { continue }
                let shape = [module.outputs, module.inputs]
                try destination.filled(from: shape) { try PackedExpansion(module, packed.format, model).fill($0) }
            }
            return try model.load(destinations.filter { packed.modules[$0.name] == nil }, mode: mode)
        case .gguf(let model):
            for destination in destinations {
                try destination.filled(from: model.shape(of: destination.name)) { whole in
                    try model.load(TensorDestination(name: destination.name, tensor: whole))
                }
            }
            return LoadStatistics(bytes: try destinations.reduce(0) { $0 + (try model.byteCount(of: $1.name)) })
        }
    }

    /// The type that the checkpoint stores; nil for GGUF's blocks and for packed weights, which are floating-point numbers of no
    /// type that torch has.
    public func storedType(of name: String) throws -> DType? {
        guard case .safetensors(let model) = storage, packed?.modules[name] == nil else { return nil }
        return try model.entry(named: name).dtype
    }

    /// The floating-point type that most of the weights are stored in; nil for GGUF, whose blocks torch has no type for.
    public var mainType: DType? {
        guard case .safetensors(let model) = storage else { return nil }
        var bytes: [DType: Int] = [:]
        for name in model.tensorNames {
            guard let entry = try? model.entry(named: name), entry.dtype.isFloatingPoint else { continue }
            bytes[entry.dtype, default: 0] += entry.range.count
        }
        return bytes.max { ($0.value, $0.key.rawValue) < ($1.value, $1.key.rawValue) }?.key
    }

    /// Refuses to train the weights themselves where they are packed: a step of an optimizer leaves their grid, so that what is
    /// trained is no longer the checkpoint, from a start that is worse than the weights it was made from.
    /// - Throws: `CheckpointError.unsupported`.
    public func requireTrainableWeights() throws {
        guard let packed else { return }
        throw CheckpointError(
            .unsupported, path, "the weights are quantised (\(packed.format.summary)) and cannot all be trained",
            remedy:
                "train an adapter on them (model.lora_rank=16), or start from the checkpoint that they were made from")
    }

    private static func digest(_ config: ModelConfig, _ storage: Storage) -> String {
        var hash = XXHash64()
        hash.update(config.text)
        func sample(_ file: MappedFile, _ header: Range<Int>, _ ranges: [Range<Int>]) {
            hash.update(UnsafeRawBufferPointer(rebasing: file.bytes[header]))
            for range in ranges {
                hash.update(UnsafeRawBufferPointer(rebasing: file.bytes[range.prefix(4096)]))
            }
        }
        switch storage {
        case .safetensors(let model):
            for file in model.files {
                sample(file.file, file.headerRange, file.tensorNames.compactMap { try? file.entry(named: $0).range })
            }
        case .gguf(let model):
            let file = model.file
            sample(file.file, 0..<min(file.dataStart, file.file.count), file.tensors.values.map(\.range))
        }
        return hash.hexadecimal
    }
}

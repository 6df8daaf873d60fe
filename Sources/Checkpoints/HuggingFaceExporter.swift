internal import OrderedCollections
public import TensorCore

/// Writes a model as a Hugging Face folder that `transformers` loads.
public enum HuggingFaceExporter {
    /// A file to put beside the weights: `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`, or one of the folder
    /// `additional_chat_templates`.
    public struct CompanionFile: Sendable {
        public let name: String
        public let bytes: [UInt8]
        public init(name: String, bytes: [UInt8]) {
            self.name = name
            self.bytes = bytes
        }

        /// A copy of a file, under its own name.
        public init(copying path: String) throws {
            let file = try MappedFile(path: path)
            name = String(path.split(separator: "/").last ?? "")
            bytes = [UInt8](file.bytes)
        }
    }

    /// Names of the files that belong to a tokenizer or a generation config, to copy from a model's folder.
    public static let companionNames = [
        "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json", "merges.txt",
        "sentencepiece.bpe.model", "special_tokens_map.json", "spiece.model", "tekken.json", "tokenizer.json",
        "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
    ]
    private static let templateFolder = "additional_chat_templates"

    /// The companions that a Hugging Face folder holds.
    public static func companions(in folder: String) throws -> [CompanionFile] {
        let found = Set(try entries(of: folder))
        let ranks = found.filter { $0.hasSuffix(".tiktoken") }
        var files = try (companionNames.filter(found.contains) + ranks.sorted()).map {
            try CompanionFile(copying: folder + "/" + $0)
        }
        if found.contains(templateFolder), isDirectory(folder + "/" + templateFolder) {
            for name in try entries(of: folder + "/" + templateFolder) where name.hasSuffix(".jinja") {
                let file = try CompanionFile(copying: folder + "/" + templateFolder + "/" + name)
                files.append(CompanionFile(name: templateFolder + "/" + name, bytes: file.bytes))
            }
        }
        return files
    }

    static func isPlain(_ name: String) -> Bool {
        let base = name.hasPrefix(templateFolder + "/") ? String(name.dropFirst(templateFolder.count + 1)) : name
        return !base.hasPrefix(".") && SafetensorsModel.isPlainName(base)
    }

    /// Writes everything into a temporary folder beside `folder`, makes it durable and renames it: the folder is there whole or
    /// not at all.
    ///
    /// - Parameters:
    ///   - tensors: under Hugging Face's names, in the order to write. A tensor that `tie_word_embeddings` derives
    ///     (`lm_head.weight`) is left out, since safetensors holds no shared memory.
    ///   - config: written whole, unknown keys included; its `dtype` (and `torch_dtype`, where it was there) says what the
    ///     weights are.
    /// - Throws: `CheckpointError`: `diskFull` before anything is written, `duplicate` when `folder` exists and is not empty,
    ///   `unsafePath` for a companion whose name is not a plain file name.
    public static func write(
        tensors: [(name: String, tensor: Tensor)], config: ModelConfig, tokenizerFiles: [CompanionFile] = [],
        to folder: String, maxShardBytes: Int = SafetensorsWriter.defaultShardBytes,
        fileSystem: any FileSystem = POSIXFileSystem()
    ) throws {
        let isTied = try config.bool("tie_word_embeddings", default: false)
        let kept = tensors.filter { !(isTied && $0.name == "lm_head.weight") }
        let config = kept.first.map { config.naming(dtype: $0.tensor.dtype) } ?? config
        try writeFolder(
            tensors: kept, named: "model",
            files: [CompanionFile(name: "config.json", bytes: Array(config.text.utf8))] + tokenizerFiles, to: folder,
            maxShardBytes: maxShardBytes, fileSystem: fileSystem)
    }

    /// Writes safetensors under the base name `named`, and `files`, into a new folder, whole or not at all.
    public static func writeFolder(
        tensors: [(name: String, tensor: Tensor)], named: String, files: [CompanionFile], to folder: String,
        maxShardBytes: Int = SafetensorsWriter.defaultShardBytes, fileSystem: any FileSystem = POSIXFileSystem()
    ) throws {
        if pathExists(folder) {
            guard isDirectory(folder), try entries(of: folder).isEmpty else {
                throw CheckpointError(
                    .duplicate, folder, "the folder to export to exists already", remedy: "name a new folder")
            }
        }
        let writer = try SafetensorsWriter(
            tensors, baseName: named, maxShardBytes: maxShardBytes, fileSystem: fileSystem)
        for file in files where !isPlain(file.name) {
            throw CheckpointError(.unsafePath, folder, "'\(file.name)' is not a plain file name")
        }
        var trimmed = folder
        while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
        let parent = parentFolder(trimmed)
        let temporary = parent + "/" + temporaryName(for: trimmed)
        try fileSystem.createDirectory(parent)
        let needed = writer.estimatedBytes + UInt64(files.reduce(0) { $0 + $1.bytes.count })
        try requireSpace(needed, at: parent, fileSystem)
        try fileSystem.remove(temporary)
        try fileSystem.createDirectory(temporary)
        do {
            _ = try writer.write(into: temporary)
            if files.contains(where: { $0.name.contains("/") }) {
                try fileSystem.createDirectory(temporary + "/" + templateFolder)
            }
            for file in files {
                var writer = try HashingWriter(fileSystem, folder: temporary, name: file.name)
                try writer.write(file.bytes)
                _ = try writer.finish()
            }
            if files.contains(where: { $0.name.contains("/") }) {
                try fileSystem.syncDirectory(temporary + "/" + templateFolder)
            }
            try fileSystem.syncDirectory(temporary)
            try fileSystem.rename(temporary, to: trimmed)
            try fileSystem.syncDirectory(parent)
        } catch {
            // The first error is the one to tell; what is left is only a hidden folder, removed by the next export.
            try? fileSystem.remove(temporary)
            throw error
        }
    }
}

extension ModelConfig {
    /// The same, saying that the weights are of this type.
    func naming(dtype: DType) -> ModelConfig {
        var config = self
        config.object["dtype"] = .string("\(dtype)")
        if config.has("torch_dtype") { config.object["torch_dtype"] = .string("\(dtype)") }
        return config
    }
}

/// - Throws: `CheckpointError.diskFull` when fewer than `needed` bytes and a margin of 64 MiB are free.
func requireSpace(_ needed: UInt64, at folder: String, _ fileSystem: any FileSystem) throws {
    let margin: UInt64 = 64 << 20
    let free = try fileSystem.availableBytes(folder)
    guard free < needed + margin else { return }
    throw CheckpointError(
        .diskFull, folder, "\(needed) bytes and a margin of \(margin) are needed, \(free) are free",
        remedy: "free space or write elsewhere", neededBytes: needed + margin, freeBytes: free)
}

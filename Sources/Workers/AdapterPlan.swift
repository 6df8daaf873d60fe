import Config
public import Models

/// Which adapter a worker hangs on its model.
public enum AdapterPlan: Sendable, Hashable {
    case new(LoRASettings)
    /// A folder in PEFT's format; the seed is that of the dropout masks.
    case folder(String, seed: UInt64)

    /// nil where the weights themselves are trained.
    init?(_ model: ModelSettings, seed: UInt64) {
        if let path = model.loraAdapterPath {
            self = .folder(path, seed: seed)
        } else if model.loraRank > 0 {
            self = .new(
                LoRASettings(
                    rank: model.loraRank, alpha: model.loraAlpha, dropout: model.loraDropout,
                    isRankStabilized: model.loraUseRSLoRA,
                    targets: model.targetModules.map { .modules($0) } ?? .allLinear, excluded: model.excludeModules,
                    seed: seed))
        } else {
            return nil
        }
    }

    func add(to model: some SequenceModel) throws {
        switch self {
        case .new(let settings): try model.addAdapter(settings)
        case .folder(let path, let seed): try PEFTFolder(path).load(into: model, seed: seed)
        }
    }
}

extension SequenceModel {
    /// What is trained, and what is not, in words.
    var adapterSummary: String? {
        guard let adapter else { return nil }
        let share = Double(adapter.parameterCount) / Double(parameterCount) * 100
        var text =
            "LoRA of rank \(adapter.settings.rank) on \(adapter.modules.count) modules: \(adapter.parameterCount) parameters are "
            + "trained, \((share * 100).rounded() / 100) % of the model's \(parameterCount)"
        if trainsHeadBesideAdapter { text += "; the score head is trained whole" }
        for note in adapter.leftOut { text += "; \(note)" }
        return text
    }
}

extension Int {
    /// Bytes as millions, to a tenth.
    var roundedMegabytes: Double { (Double(self) / 1e5).rounded() / 10 }
}

extension SavedState {
    /// - Throws: ``WorkerError`` with code `badCheckpoint` when the checkpoint's adapter is not the model's.
    func check(adapter mine: LoRA?, _ folder: String) throws {
        func shape(_ settings: LoRASettings?) -> LoRASettings? {
            // Dropout and its seed may change on the way; what the tensors mean may not.
            var settings = settings
            settings?.dropout = 0
            settings?.seed = 0
            return settings
        }
        guard shape(adapter) != shape(mine?.settings) else { return }
        func describe(_ settings: LoRASettings?) -> String {
            guard let settings else { return "all weights" }
            let targets =
                switch settings.targets {
                case .allLinear: "all-linear"
                case .modules(let names): names.joined(separator: ", ")
                }
            let without = settings.excluded.isEmpty ? "" : " without \(settings.excluded.joined(separator: ", "))"
            return "LoRA of rank \(settings.rank), alpha \(settings.alpha)"
                + (settings.isRankStabilized ? " (rsLoRA)" : "") + " on \(targets)\(without)"
        }
        throw WorkerError(
            .badCheckpoint,
            "\(folder): holds a training of \(describe(adapter)), and the settings say \(describe(mine?.settings)); give the run "
                + "another folder (trainer.default_local_dir), set trainer.resume_mode=disable, or give the model.lora_… "
                + "settings back")
    }
}

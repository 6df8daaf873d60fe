import Config
import Datasets
import Flow
import Foundation
import Logging

/// The prompts of a run: training batches and the held-out set, from files or the built-in generator.
struct DataSources {
    let training: any PromptSource
    /// The shares of `data.train_files`, where `data.train_weights` gives them.
    let mix: PromptMix?
    let heldOut: (any PromptSource)?

    /// - Throws: `DatasetError` for files and rows that cannot be used, ``WorkerError`` for settings at odds with them.
    init(_ config: RunConfig) throws {
        let builtIn = DataSettings.builtinArithmetic
        let wantsProblems = (config.data.trainFiles + config.data.valFiles).contains(builtIn)
        let problems = wantsProblems ? try Self.problems(config) : nil
        func source(
            _ entries: [String], _ setting: String, _ rows: (ArithmeticProblems) -> PromptList
        ) throws -> (rows: any PromptSource, parts: [Range<Int>])? {
            if entries.isEmpty { return nil }
            if let problems, entries == [builtIn] {
                let list = rows(problems)
                return (list, [0..<list.count])
            }
            if entries.contains(builtIn) {
                throw WorkerError(.badData, "data: \(builtIn) cannot stand beside files: \(entries)")
            }
            let paths = try entries.map {
                try FilePattern.files($0, setting: setting, place: config.place(of: setting))
            }
            var columns = PromptColumns()
            columns.prompt = config.data.promptKey
            columns.dataSource = config.data.rewardFnKey
            let files = try PromptFiles(paths: paths.flatMap { $0 }, columns: columns)
            var parts: [Range<Int>] = []
            var first = 0
            for paths in paths {
                let last = first + paths.count - 1
                parts.append(files.rows(ofFile: first).lowerBound..<files.rows(ofFile: last).upperBound)
                first = last + 1
            }
            return (files, parts)
        }
        guard let training = try source(config.data.trainFiles, "data.train_files", \.trainingRows) else {
            throw WorkerError(.badData, "data.train_files names no file")
        }
        self.training = training.rows
        let weights = config.data.trainWeights
        mix =
            weights.isEmpty
            ? nil
            : try PromptMix(
                parts: zip(training.parts.indices, training.parts).map {
                    PromptMix.Part(name: config.data.trainFiles[$0], rows: $1, weight: weights[$0])
                })
        heldOut = try source(config.data.valFiles, "data.val_files", \.heldOutRows)?.rows
    }

    private static func problems(_ config: RunConfig) throws -> ArithmeticProblems {
        let settings = config.data.arithmetic
        let least = settings.minAnswer, greatest = settings.maxAnswer
        let answers = least == nil && greatest == nil ? nil : (least ?? -1 << 40)...(greatest ?? 1 << 40)
        return try ArithmeticProblems(
            seed: UInt64(config.data.seed ?? config.seed),
            space: .init(
                forms: settings.forms.map { $0.signs.map(ArithmeticProblem.Operator.init) },
                operandRange: settings.minOperand...settings.maxOperand, answerRange: answers),
            heldOut: settings.heldout,
            prompt: ArithmeticPrompt(
                template: settings.template, examples: settings.examples,
                multiplication: settings.multiplicationSign), shown: Set(config.data.fewShot.map(\.user)))
    }

    /// Prompts as token ids, over-long ones settled, and the number of steps that the run will take.
    func prepare(
        _ config: RunConfig, _ encoder: PromptEncoder, _ log: Logger
    ) throws -> (pipeline: PromptPipeline, heldOut: [PromptTask], totalSteps: Int) {
        func settled(_ source: any PromptSource, _ kind: String) throws -> OverlongPrompts.Filtered {
            let kept = try encoder.settleLengths(source)
            if !kept.dropped.isEmpty {
                log.warning(
                    """
                    \(kept.dropped.count) of \(source.count) \(kind) are longer than data.max_prompt_length \
                    (\(config.data.maxPromptLength)) and are left out; the longest has \(kept.longest) tokens
                    """)
            }
            if kept.cut > 0 {
                log.notice(
                    """
                    \(kept.cut) of \(source.count) \(kind) are longer than data.max_prompt_length \
                    (\(config.data.maxPromptLength)) and are cut; the longest has \(kept.longest) tokens
                    """)
            }
            return kept
        }
        let kept = try settled(training, "prompts")
        let endless = config.trainer.totalTrainingSteps != nil
        let loader = try PromptLoader(
            source: kept.source, mix: try mix?.keeping(kept.source.indices), batchSize: config.promptsBegun,
            seed: UInt64(config.data.seed ?? config.seed), shuffles: config.data.shuffle,
            epochs: endless ? nil : config.trainer.totalEpochs)
        let totalSteps = config.trainer.totalTrainingSteps ?? loader.batchesPerEpoch * config.trainer.totalEpochs
        let tasks = try heldOut.map { source in
            // A generator may be told to hold nothing out.
            if source.count == 0 { return [PromptTask]() }
            let source = try settled(source, "held-out prompts").source
            return try (0..<source.count).map { try encoder.task(source.row(at: $0), group: $0) }
        }
        let pipeline = PromptPipeline(
            loader: loader, encoder: encoder, leftOut: kept.dropped.count, cut: kept.cut)
        return (pipeline, tasks ?? [], totalSteps)
    }
}

extension ArithmeticProblem.Operator {
    init(_ sign: ArithmeticSettings.Form.Sign) {
        switch sign {
        case .add: self = .add
        case .subtract: self = .subtract
        case .multiply: self = .multiply
        }
    }
}

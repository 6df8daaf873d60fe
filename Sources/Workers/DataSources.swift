import Config
import Datasets
import Flow
import Foundation
import Logging

/// The prompts of a run: training batches and the held-out set, from files or the built-in generator.
struct DataSources {
    let training: any PromptSource
    let heldOut: (any PromptSource)?

    /// - Throws: `DatasetError` for files and rows that cannot be used, ``WorkerError`` for settings at odds with them.
    init(_ config: RunConfig) throws {
        let builtIn = DataSettings.builtinArithmetic
        let wantsProblems = (config.data.trainFiles + config.data.valFiles).contains(builtIn)
        let problems = wantsProblems ? try Self.problems(config) : nil
        func source(_ paths: [String], _ rows: (ArithmeticProblems) -> PromptList) throws -> (any PromptSource)? {
            if paths.isEmpty { return nil }
            if let problems, paths == [builtIn] { return rows(problems) }
            if paths.contains(builtIn) {
                throw WorkerError(.badData, "data: \(builtIn) cannot stand beside files: \(paths)")
            }
            var columns = PromptColumns()
            columns.prompt = config.data.promptKey
            return try JSONLinesDataset(paths: paths, columns: columns)
        }
        guard let training = try source(config.data.trainFiles, \.trainingRows) else {
            throw WorkerError(.badData, "data.train_files names no file")
        }
        self.training = training
        heldOut = try source(config.data.valFiles, \.heldOutRows)
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
        func settled(_ source: any PromptSource, _ kind: String) throws -> PromptSubset {
            let kept = try encoder.settleLengths(source)
            if !kept.dropped.isEmpty {
                log.warning(
                    """
                    \(kept.dropped.count) of \(source.count) \(kind) are longer than data.max_prompt_length \
                    (\(config.data.maxPromptLength)) and are left out; the longest has \(kept.longest) tokens
                    """)
            }
            return kept.source
        }
        let kept = try settled(training, "prompts")
        let endless = config.trainer.totalTrainingSteps != nil
        let loader = try PromptLoader(
            source: kept, batchSize: config.data.trainBatchSize,
            seed: UInt64(config.data.seed ?? config.seed), shuffles: config.data.shuffle,
            epochs: endless ? nil : config.trainer.totalEpochs)
        let totalSteps = config.trainer.totalTrainingSteps ?? loader.batchesPerEpoch * config.trainer.totalEpochs
        let tasks = try heldOut.map { source in
            // A generator may be told to hold nothing out.
            if source.count == 0 { return [PromptTask]() }
            let source = try settled(source, "held-out prompts")
            return try (0..<source.count).map { try encoder.task(source.row(at: $0), group: $0) }
        }
        return (PromptPipeline(loader: loader, encoder: encoder), tasks ?? [], totalSteps)
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

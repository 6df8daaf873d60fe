import Checkpoints
public import Config
import Datasets
public import Flow
public import Logging
public import OrderedCollections
public import Telemetry
import TensorCore
import TrainingEngine

/// A supervised run, from a configuration to its result.
public struct SupervisedRun: Sendable {
    public let config: SupervisedConfig
    public let folder: RunFolder
    public let log: Logger
    /// Where progress is drawn; nil for none.
    public let view: (@Sendable (_ totalSteps: Int) -> LiveView)?
    /// Of Fledge and what it stands on, for the record.
    public let versions: OrderedDictionary<String, String>

    public init(
        config: SupervisedConfig, log: Logger, versions: OrderedDictionary<String, String>,
        view: (@Sendable (_ totalSteps: Int) -> LiveView)? = nil
    ) {
        self.config = config
        self.log = log
        self.versions = versions
        self.view = view
        folder = RunFolder(config.runFolder)
    }

    /// What is measured on held-out rows and told at the end.
    public static func measures(_ kind: SupervisedKind) -> [MetricName] {
        switch kind {
        case .sft: ["val/loss", "val/exact_match"]
        case .dpo: ["val/loss", "val/rewards/accuracies", "val/rewards/margins", "val/exact_match"]
        case .rewardModel: ["val/loss", "val/rewards/accuracies", "val/rewards/margins"]
        }
    }

    /// Trains. `onStart` gets the observer, so that a signal handler can ask it to stop.
    public func run(onStart: @Sendable (RunObserver) -> Void = { _ in }) async throws -> TrainingRun.Outcome {
        let start = ContinuousClock.now
        let plan = try SupervisedPlan(config)
        if let threads = config.trainer.numThreads { Torch.threadCount = threads }
        if config.trainer.deterministic { Torch.useDeterministicAlgorithms(true) }

        // What can fail cheaply comes first: every row, then the weights.
        let source = try ModelSource.open(config.model.path)
        let text = try TextProcessor(source, templatePath: config.model.chatTemplate)
        let padID = config.kind == .rewardModel ? try SupervisedWorker.padID(source, text) : nil
        let encoder = try SupervisedEncoder(text: text, kind: config.kind, data: config.data, padID: padID)
        let (dataset, heldOut) = try plan.data(encoder, log)
        let worker = SupervisedWorker(plan.model)
        try await worker.load(text)
        let loader = try RowLoader(
            count: dataset.count, fingerprint: dataset.fingerprint, batchSize: config.data.trainBatchSize,
            seed: UInt64(config.data.seed ?? config.seed), shuffles: config.data.shuffle,
            epochs: config.trainer.totalTrainingSteps == nil ? config.trainer.totalEpochs : nil)
        let totalSteps = config.trainer.totalTrainingSteps ?? loader.batchesPerEpoch * config.trainer.totalEpochs

        try folder.create()
        try await worker.prepare(plan.training(totalSteps: totalSteps, checkpoints: folder.checkpoints))
        if let summary = try await worker.adapterSummary() { log.info("\(summary)") }
        for line in await worker.optimizerSummary() { log.info("\(line)") }
        let resumed = try await found(worker)?.goingOn(to: totalSteps)
        let recorder = try RunRecorder(
            folder, resumingAfter: resumed?.step ?? (folder.holdsRun ? -1 : nil),
            writesTensorBoard: config.trainer.logger.contains(.tensorboard))
        try folder.write(config: config.resolvedYAML())
        let view = view?(totalSteps)
        if resumed != nil, let view {
            view.replay(
                try MetricsHistory(reading: folder.metrics).steps.map { StepView($0, totalSteps: totalSteps) })
        }
        let measures = Self.measures(config.kind)
        let observer = RunObserver(
            folder: folder, recorder: recorder, view: view,
            summary: RunSummary(
                status: .running, steps: resumed?.step ?? 0, totalSteps: totalSteps, model: config.model.path,
                device: plan.device.description, versions: versions, heldOut: resumed?.heldOut(measures) ?? [:]),
            measures: measures)
        try observer.finish { _ in }
        onStart(observer)
        do {
            let state = try await train(plan, worker, dataset, heldOut, loader, totalSteps, resumed, observer)
            let seconds = (ContinuousClock.now - start) / .seconds(1)
            try observer.finish { summary in
                summary.status = state.step < totalSteps ? .interrupted : .finished
                summary.steps = state.step
                summary.heldOut = state.heldOut(measures)
                summary.times["time/run_s"] = seconds
            }
            if config.trainer.logger.contains(.html) { try folder.writeReport() }
            return TrainingRun.Outcome(state: state, totalSteps: totalSteps, resumedStep: resumed?.step)
        } catch {
            observer.failed(error, log)
            throw error
        }
    }

    private func train(
        _ plan: SupervisedPlan, _ worker: SupervisedWorker, _ dataset: SupervisedDataset,
        _ heldOut: SupervisedDataset?, _ loader: RowLoader, _ totalSteps: Int, _ resumed: LoopState?,
        _ observer: RunObserver
    ) async throws -> LoopState {
        var rows = HeldOutRows()
        var references = ReferenceTable()
        if let heldOut {
            rows.examples = try heldOut.examples(Array(0..<heldOut.count))
            rows.maxNewTokens = config.eval?.maxNewTokens ?? 0
            if rows.maxNewTokens > 0 { rows.questions = try heldOut.questions() }
        }
        // The reference is the model as it begins: what is needed of it is computed before a checkpoint takes its place.
        let isDone = resumed.map { $0.step >= totalSteps && $0.isMeasuredAfter } ?? false
        if plan.objective.needsReference, !isDone {
            try observer.phaseBegins(.refLogProb)
            var wanted: Set<Int> = [], ahead = loader
            for step in 0..<totalSteps {
                guard let batch = ahead.next() else { break }
                if step >= resumed?.step ?? 0 { wanted.formUnion(batch.indices) }
                if wanted.count == dataset.count { break }
            }
            log.info("computing the reference's log-probabilities of \(wanted.count) pairs")
            references = try await ReferenceTable(of: wanted, in: dataset) { try await worker.referenceLogProbs($0) }
            if let heldOut {
                let all = Array(0..<heldOut.count)
                rows.examples = try await ReferenceTable(of: Set(all), in: heldOut) {
                    try await worker.referenceLogProbs($0)
                }.added(to: rows.examples, rows: all)
            }
        }
        try await worker.restore()
        return try await SupervisedLoop(
            settings: .init(totalSteps: totalSteps, config.trainer), worker: worker, dataset: dataset,
            references: references, heldOut: rows, observer: observer
        ).run(loader, from: resumed)
    }

    /// The state that the run goes on from; weights follow when the reference needs them no more.
    private func found(_ worker: SupervisedWorker) async throws -> LoopState? {
        guard config.trainer.resumeMode != .disable else {
            try await worker.forgetCheckpoints()
            return nil
        }
        let (state, skipped) = try await worker.findCheckpoint(at: config.trainer.resumeFromPath)
        log.note(resuming: state, skipped: skipped, folder)
        return state
    }
}

extension LoopState {
    /// The measures among the evaluations, before and after, for the summary.
    func heldOut(_ measures: [MetricName]) -> OrderedDictionary<MetricName, RunSummary.BeforeAfter> {
        var all: OrderedDictionary<MetricName, RunSummary.BeforeAfter> = [:]
        for measure in measures {
            let before = evaluations["before:\(measure.text)"], after = evaluations["after:\(measure.text)"]
            if before != nil || after != nil { all[measure] = .init(before: before, after: after) }
        }
        return all
    }
}

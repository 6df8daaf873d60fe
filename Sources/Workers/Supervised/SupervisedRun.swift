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
    /// This process's place, where it is one of several that train together. All run the same; the first one alone writes the run's
    /// folder.
    public let rank: Rank?

    /// One of several processes.
    public struct Rank: Sendable {
        public let members: RankMembership
        /// Decides its GPU.
        public let localRank: Int

        public init(_ members: RankMembership, localRank: Int) {
            self.members = members
            self.localRank = localRank
        }
    }

    public init(
        config: SupervisedConfig, log: Logger, versions: OrderedDictionary<String, String>,
        view: (@Sendable (_ totalSteps: Int) -> LiveView)? = nil, rank: Rank? = nil
    ) {
        self.rank = rank
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

    /// Whether this process says and writes what concerns the whole run.
    private var speaks: Bool { rank?.members.rank ?? 0 == 0 }

    /// Trains. `onStart` gets the observer, so that a signal handler can ask it to stop; on the first rank only.
    public func run(onStart: @Sendable (RunObserver) -> Void = { _ in }) async throws -> TrainingRun.Outcome {
        let start = ContinuousClock.now
        let plan = try SupervisedPlan(config, rank)
        plan.limitThreads()
        if config.trainer.deterministic { Torch.useDeterministicAlgorithms(true) }

        // What can fail cheaply comes first: every row, then the weights.
        let worker = SupervisedWorker(plan.model)
        let (text, dataset, heldOut) = try await data(plan, worker)
        try await together(worker, "reading the model") { try await worker.load(text) }
        let loader = try RowLoader(
            count: dataset.count, fingerprint: dataset.fingerprint, batchSize: config.data.trainBatchSize,
            seed: UInt64(config.data.seed ?? config.seed), shuffles: config.data.shuffle,
            epochs: config.trainer.totalTrainingSteps == nil ? config.trainer.totalEpochs : nil)
        let totalSteps = config.trainer.totalTrainingSteps ?? loader.batchesPerEpoch * config.trainer.totalEpochs

        let training = plan.training(totalSteps: totalSteps, checkpoints: folder.checkpoints)
        try await together(worker, "making the run's folder") {
            try await worker.check(training)
            if speaks { try folder.create() }
        }
        try await worker.prepare(training)
        if speaks { for note in config.model.notes(on: plan.device, samples: false) { log.warning("\(note)") } }
        if let layout = plan.layoutNote { log.info("\(layout)") }
        if let summary = try await worker.adapterSummary() { log.info("\(summary)") }
        for line in await worker.optimizerSummary() { log.info("\(line)") }
        let resumed = try await found(worker)?.goingOn(to: totalSteps)
        let recorded = try await together(worker, "writing the run's folder") {
            speaks ? try recording(plan, totalSteps, resumed) : nil
        }
        if let recorded { onStart(recorded) }
        let observer: any LoopObserver =
            recorded ?? FollowingObserver(rank?.members.progress, steps: resumed?.step ?? 0)
        do {
            let state = try await train(plan, worker, dataset, heldOut, loader, totalSteps, resumed, observer)
            let seconds = (ContinuousClock.now - start) / .seconds(1), measures = Self.measures(config.kind)
            try recorded?.finish { summary in
                summary.status = state.step < totalSteps ? .interrupted : .finished
                summary.steps = state.step
                summary.heldOut = state.heldOut(measures)
                summary.times["time/run_s"] = seconds
            }
            if speaks, config.trainer.logger.contains(.html) { try folder.writeReport() }
            return TrainingRun.Outcome(state: state, totalSteps: totalSteps, resumedStep: resumed?.step)
        } catch {
            recorded?.failed(error, log)
            throw error
        }
    }

    /// What records the run in its folder, whose files are there then.
    private func recording(_ plan: SupervisedPlan, _ totalSteps: Int, _ resumed: LoopState?) throws -> RunObserver {
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
            measures: measures, progress: rank?.members.progress)
        try observer.finish { _ in }
        return observer
    }

    /// The rows, of which each rank encodes a part, and what makes text of them.
    private func data(
        _ plan: SupervisedPlan, _ worker: SupervisedWorker
    ) async throws -> (text: TextProcessor, training: SupervisedDataset, heldOut: SupervisedDataset?) {
        let (text, rows) = try await together(worker, "reading the data") {
            let source = try ModelSource.open(config.model.path)
            let text = try TextProcessor(source, templatePath: config.model.chatTemplate)
            let padID = config.kind == .rewardModel ? try SupervisedWorker.padID(source, text) : nil
            let encoder = try SupervisedEncoder(text: text, kind: config.kind, data: config.data, padID: padID)
            return (text, try plan.rows(encoder))
        }
        func whole(_ rows: SupervisedDataset.Rows, _ setting: String) async throws -> SupervisedDataset {
            let parts = try await worker.exchange(rows.measured)
            let marks = try await worker.exchange(rows.files.fingerprint)
            return try await together(worker, "reading the data") {
                if let other = marks.firstIndex(where: { $0 != marks[0] }) {
                    throw WorkerError(
                        .badSetting,
                        "\(setting): rank \(other) reads other rows there than rank 0; give all hosts the same files")
                }
                return try plan.dataset(rows, parts.flatMap { $0 }, setting, log)
            }
        }
        let training = try await whole(rows.training, "data.train_files")
        guard let heldOut = rows.heldOut else { return (text, training, nil) }
        return (text, training, try await whole(heldOut, "data.val_files"))
    }

    /// Runs `body`, in which ranks meet but do not wait for one another, on all of them; where it fails on some, the first of these
    /// says why.
    private func together<Value: Sendable>(
        _ worker: SupervisedWorker, _ what: String, _ body: () async throws -> Value
    ) async throws -> Value {
        let result: Result<Value, any Error>, hasFailed: Bool
        do {
            (result, hasFailed) = (.success(try await body()), false)
        } catch {
            (result, hasFailed) = (.failure(error), true)
        }
        guard let first = try await worker.exchange(hasFailed).firstIndex(of: true), first != rank?.members.rank ?? 0
        else { return try result.get() }
        throw TorchError(code: .rank, operation: what, message: "rank \(first) failed at it, and says why")
    }

    private func train(
        _ plan: SupervisedPlan, _ worker: SupervisedWorker, _ dataset: SupervisedDataset,
        _ heldOut: SupervisedDataset?, _ loader: RowLoader, _ totalSteps: Int, _ resumed: LoopState?,
        _ observer: any LoopObserver
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
            let ranks = plan.members?.size ?? 1
            references = try await ReferenceTable(of: wanted, in: dataset, ranks: ranks) {
                try await worker.referenceLogProbs($0)
            }
            if let heldOut {
                let all = Array(0..<heldOut.count)
                rows.examples = try await ReferenceTable(of: Set(all), in: heldOut, ranks: ranks) {
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

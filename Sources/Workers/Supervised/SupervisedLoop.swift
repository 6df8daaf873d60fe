import Config
import Datasets
import Flow
import Foundation
import Logging
import OrderedCollections
import Telemetry
import TrainingEngine

/// Held-out rows, encoded once.
struct HeldOutRows: Sendable {
    var examples: [SupervisedExample] = []
    /// Prompts to answer; none where answers are not measured.
    var questions: [HeldOutQuestion] = []
    var maxNewTokens = 0
}

/// The loop of supervised training: a batch of rows, a step, and now and then a look at held-out rows.
struct SupervisedLoop {
    struct Settings: Sendable {
        var totalSteps: Int
        /// Steps between checkpoints and between evaluations; 0 or less: only at the end.
        var saveEvery = 0
        var evaluateEvery = 0
        var evaluatesFirst = true
        var samplesLogged = 0

        init(totalSteps: Int, _ trainer: TrainerSettings) {
            self.totalSteps = totalSteps
            saveEvery = trainer.saveFreq
            evaluateEvery = trainer.testFreq
            evaluatesFirst = trainer.valBeforeTrain
            samplesLogged = trainer.logSamples
        }
    }

    let settings: Settings
    let worker: SupervisedWorker
    let dataset: SupervisedDataset
    let references: ReferenceTable
    let heldOut: HeldOutRows
    let observer: any LoopObserver

    /// Trains to the last step, or until the observer asks to stop; goes on from `resumed` where there is one.
    func run(_ loader: RowLoader, from resumed: LoopState?) async throws -> LoopState {
        var loader = loader
        var state = try resumed?.goingOn(to: settings.totalSteps) ?? LoopState(step: 0, promptState: loader.saved())
        if let resumed { try loader.restore(saved: resumed.promptState) }
        var saved = resumed?.step
        if state.step == 0, settings.evaluatesFirst, state.evaluations.isEmpty { try await evaluate("before", &state) }
        let timer = PhaseTimer()
        while state.step < settings.totalSteps, try await !wantsToStop(), let batch = loader.next() {
            var metrics = StepMetrics(step: state.step + 1)
            try metrics.record(
                "data/epoch", Double(batch.epoch) + Double(loader.state.position) / Double(loader.state.rowCount))
            let examples = try references.added(to: dataset.examples(batch.indices), rows: batch.indices)
            try observer.phaseBegins(.update)
            try metrics.record(try await timer.measure(.update) { try await worker.update(examples) })
            state.step += 1
            state.promptState = try loader.saved()
            var samples: [Sample] = []
            if settings.evaluateEvery > 0, state.step % settings.evaluateEvery == 0, state.step < settings.totalSteps {
                let found = try await timer.measure(.evaluate) { try await evaluation() }
                try metrics.record(found.metrics)
                samples = found.samples
            }
            let times = timer.finishStep()
            try metrics.record(times.metrics)
            let tokens = examples.reduce(0) { $0 + $1.tokenCount }
            try metrics.record("perf/total_num_tokens", Double(tokens))
            try metrics.record(.tokensPerSecond, Double(tokens) / (times.step / .seconds(1)))
            try observer.stepEnded(metrics, samples: samples)
            if settings.saveEvery > 0, state.step % settings.saveEvery == 0, state.step < settings.totalSteps {
                try await timer.measure(.save) { [state] in try await save(state) }
                saved = state.step
            }
        }
        if state.step >= settings.totalSteps, !state.isMeasuredAfter {
            try await evaluate("after", &state)
        }
        if saved != state.step { try await save(state) }
        try await worker.settleCheckpoints()
        return state
    }

    /// Whether somebody has asked the first rank to stop; all ranks stop at the same step.
    private func wantsToStop() async throws -> Bool { try await worker.exchange(observer.wantsToStop)[0] }

    /// The metrics of a step are on disk before a checkpoint that counts it done.
    private func save(_ state: LoopState) async throws {
        try observer.phaseBegins(.save)
        try observer.willSave(state)
        try await worker.save(step: state.step, state: state)
    }

    private func evaluate(_ name: String, _ state: inout LoopState) async throws {
        guard !heldOut.examples.isEmpty else { return }
        try observer.phaseBegins(.evaluate)
        let found = try await evaluation()
        for (metric, value) in found.metrics { state.evaluations["\(name):\(metric.text)"] = value }
        try observer.evaluated(name, found.metrics)
    }

    private func evaluation() async throws -> (metrics: PhaseMetrics, samples: [Sample]) {
        var metrics = try await worker.evaluate(heldOut.examples)
        guard !heldOut.questions.isEmpty else { return (metrics, []) }
        let answers = try await worker.answers(heldOut.questions, maxNewTokens: heldOut.maxNewTokens)
        let samples = zip(heldOut.questions, answers).map { question, answer in
            let isExact = answer.trimmedScalars.elementsEqual(question.reference.trimmedScalars)
            return Sample(
                prompt: question.text, answer: answer, groundTruth: question.reference, reward: isExact ? 1 : 0)
        }
        metrics["val/exact_match"] = samples.reduce(0) { $0 + $1.reward } / Double(samples.count)
        return (metrics, Array(samples.prefix(settings.samplesLogged)))
    }
}

extension LoopState {
    /// Whether held-out rows were measured at the run's end.
    var isMeasuredAfter: Bool { evaluations.keys.contains { $0.hasPrefix("after:") } }
}

extension SupervisedExample {
    /// Tokens of its sequences, each alone.
    fileprivate var tokenCount: Int {
        sequences.reduce(0) { $0 + $1.tokens.prompt.count + $1.tokens.response.count }
    }
}

extension RowLoader {
    /// The place, as JSON text.
    fileprivate func saved() throws -> String { String(decoding: try JSONEncoder().encode(state), as: UTF8.self) }

    fileprivate mutating func restore(saved: String) throws {
        try restore(JSONDecoder().decode(LoaderState.self, from: Data(saved.utf8)))
    }
}

extension String {
    /// Without white space around it, by scalars: text that looks the same need not be.
    fileprivate var trimmedScalars: Substring.UnicodeScalarView {
        var scalars = unicodeScalars[...]
        while scalars.first?.properties.isWhitespace == true { scalars.removeFirst() }
        while scalars.last?.properties.isWhitespace == true { scalars.removeLast() }
        return scalars
    }
}

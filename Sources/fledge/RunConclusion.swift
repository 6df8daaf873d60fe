import Flow
import OrderedCollections
import Telemetry
import Workers

/// A run that a first Ctrl-C ends after the step at hand.
enum Interruptible {
    static func run(
        _ body: (_ onStart: @escaping @Sendable (RunObserver) -> Void) async throws -> TrainingRun.Outcome
    ) async throws -> (outcome: TrainingRun.Outcome, wasInterrupted: Bool) {
        let interrupts = InterruptHandler()
        let outcome = try await body { observer in
            interrupts.onFirst {
                observer.requestStop()
                Console.note("stopping after this step; press Ctrl-C again to end at once")
            }
        }
        return (outcome, interrupts.wasInterrupted)
    }
}

/// What is said at the end of a run.
struct RunConclusion {
    let folder: RunFolder
    let outcome: TrainingRun.Outcome

    func say() throws {
        if let resumed = outcome.resumedStep, resumed >= outcome.totalSteps {
            Console.say(
                """
                \(folder.path) is complete: \(resumed) of \(outcome.totalSteps) steps were done before, and nothing was trained now.
                To go on, raise trainer.total_training_steps; to begin anew, trainer.resume_mode=disable.
                """)
        }
        let traits = StandardStream.output.traits
        let history = try MetricsHistory(reading: folder.metrics)
        if history.steps.count > 1 {
            let headline = history.headline
            let plot = LinePlot(
                title: headline.name, series: headline.series, width: min(100, traits.width()), height: 12,
                usesUnicode: traits.usesUnicode)
            for line in plot.lines() { Console.say(line) }
        }
        let summary = try folder.readSummary()
        if let match = summary?.heldOutExactMatch {
            Console.say("held-out exact match: before \(percent(match.before)), after \(percent(match.after))")
        }
        for (measure, pair) in summary?.heldOut ?? [:] {
            let isShare = measure.text.hasSuffix("exact_match") || measure.text.hasSuffix("accuracies")
            let (before, after) =
                isShare ? (percent(pair.before), percent(pair.after)) : (number(pair.before), number(pair.after))
            Console.say("held-out \(measure.text.dropFirst("val/".count)): before \(before), after \(after)")
        }
        Console.say("the run's folder: \(folder.path)")
        if outcome.wasStopped {
            Console.say(
                "stopped at step \(outcome.state.step) of \(outcome.totalSteps), saved; the same command goes on from there"
            )
        }
    }

    private func percent(_ rate: Double?) -> String {
        rate.map { "\(($0 * 1000).rounded() / 10) %" } ?? "not measured"
    }

    private func number(_ value: Double?) -> String {
        value.map { "\(($0 * 1e4).rounded() / 1e4)" } ?? "not measured"
    }
}

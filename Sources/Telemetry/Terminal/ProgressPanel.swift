/// What a view has seen of a run so far.
struct RunProgress {
    /// What is going on inside the step under way.
    struct Activity: Equatable {
        var phase: Phase
        /// How many of how many parts are done, when the phase counts them.
        var done: (Int, Int)?

        static func == (a: Activity, b: Activity) -> Bool {
            a.phase == b.phase && a.done?.0 == b.done?.0 && a.done?.1 == b.done?.1
        }
    }

    var title: String
    var totalSteps: Int
    var latest: StepView?
    var rewards: [Double] = []
    var pace = StepPace()
    var activity: Activity?
    /// Since the view was made, in seconds.
    var elapsed = 0.0

    mutating func add(_ view: StepView) {
        latest = view
        totalSteps = view.totalSteps
        rewards.append(view.reward)
        pace.add(stepSeconds: view.stepSeconds)
        activity = nil
    }

    var secondsLeft: Double? {
        latest.flatMap { pace.seconds(forSteps: max(0, $0.totalSteps - $0.step)) }
    }
}

/// The lines of the redrawn panel: a pure function of what was seen and of the width.
struct ProgressPanel {
    static let widest = 100
    let width: Int
    let traits: TerminalTraits

    init(width: Int, traits: TerminalTraits) {
        self.width = max(1, min(width, Self.widest))
        self.traits = traits
    }

    func lines(_ progress: RunProgress) -> [StyledLine] {
        [header(progress), bar(progress), figures(progress), reward(progress), phaseBar(progress), phases(progress)]
            .compactMap(\.self)
    }

    private func header(_ progress: RunProgress) -> StyledLine {
        var left = StyledLine("fledge", .bold)
        left.append(" · \(TerminalText.harmless(progress.title))")
        let step = progress.latest?.step ?? 0
        return left.with(right: StyledLine("step \(step)/\(progress.totalSteps)", .bold), width: width)
    }

    private func bar(_ progress: RunProgress) -> StyledLine {
        let done = Double(progress.latest?.step ?? 0) / Double(max(1, progress.totalSteps))
        var time = StyledLine("\(NumberText.duration(progress.elapsed))", .faint)
        if let left = progress.secondsLeft, left > 0 { time.append(" · \(NumberText.duration(left)) left") }
        let cells = max(4, width - time.width - 2)
        let full = Int((min(1, max(0, done)) * Double(cells)).rounded())
        var line = StyledLine(String(repeating: "━", count: full), .green)
        line.append(String(repeating: "─", count: cells - full), .faint)
        return line.with(right: time, width: width)
    }

    private func figures(_ progress: RunProgress) -> StyledLine? {
        guard let view = progress.latest else { return nil }
        var line = StyledLine(view.headline + " ", .faint)
        line.append(NumberText.short(view.reward), .bold)
        for (name, text) in view.figures {
            line.append("  \(name) ", .faint)
            line.append(text)
        }
        line.append("  step ", .faint)
        line.append(NumberText.duration(view.stepSeconds))
        return line
    }

    private func reward(_ progress: RunProgress) -> StyledLine? {
        guard progress.rewards.count > 1 else { return nil }
        let finite = progress.rewards.filter(\.isFinite)
        let least = NumberText.short(finite.min() ?? .nan)
        let most = NumberText.short(finite.max() ?? .nan)
        let spark = Sparkline.text(
            progress.rewards, width: max(1, width - least.count - most.count - 2), usesUnicode: traits.usesUnicode)
        var line = StyledLine(least + " ", .faint)
        line.append(spark, .cyan)
        line.append(" " + most, .faint)
        return line
    }

    private func phaseBar(_ progress: RunProgress) -> StyledLine? {
        // Only colours tell its parts from each other.
        guard traits.usesColor, traits.usesUnicode else { return nil }
        guard let shares = progress.latest?.visibleShares, !shares.isEmpty else { return nil }
        let sum = max(1, shares.reduce(0) { $0 + $1.share })
        var line = StyledLine()
        for (place, _, share) in shares {
            let cells = Int((share / sum * Double(width)).rounded(.down))
            line.append(String(repeating: "▄", count: cells), .phase(place))
        }
        return line
    }

    private func phases(_ progress: RunProgress) -> StyledLine? {
        var line = StyledLine()
        for (place, phase, share) in progress.latest?.visibleShares ?? [] {
            if !line.pieces.isEmpty { line.append("  ") }
            line.append(phase.name, .phase(place))
            line.append(" \(NumberText.percent(share))")
        }
        guard let activity = progress.activity else { return line.pieces.isEmpty ? nil : line }
        var now = StyledLine("▸ \(activity.phase.name)", .bold)
        if let (done, all) = activity.done { now.append(" \(done)/\(all)") }
        return line.pieces.isEmpty ? now : now.with(right: line, width: width)
    }
}

/// A step as one line for logs and pipes.
enum PlainLine {
    static func text(_ view: StepView, secondsLeft: Double?) -> String {
        var parts = ["step \(view.step)/\(view.totalSteps)", "\(view.headline)=\(NumberText.short(view.reward))"]
        parts += view.figures.map { "\($0.name)=\($0.text)" }
        parts.append("time=\(NumberText.duration(view.stepSeconds))")
        parts += view.visibleShares.map { "\($0.phase)=\(NumberText.percent($0.share))" }
        if let secondsLeft { parts.append("left=\(NumberText.duration(secondsLeft))") }
        return parts.joined(separator: " ")
    }
}

/// The table of samples, one step shown at a time when the page's script runs, all of them otherwise.
struct SampleSection {
    /// More steps than this are thinned evenly, first and last kept.
    static let mostSteps = 60
    /// A text longer than this many characters is cut; a longer one folds behind its beginning.
    static let longestText = 4000
    static let longestOpenText = 240

    let samples: [StepSamples]

    func html() -> HTML {
        let shown = kept
        guard let first = shown.first, let last = shown.last else { return "" }
        let note: HTML =
            shown.count < samples.count
            ? "<p class=\"note\">\(shown.count) of \(samples.count) steps; samples.jsonl has all.</p>" : ""
        let bodies = shown.enumerated().map { index, step -> HTML in
            """
            <tbody data-index="\(index)" data-step="\(step.step)">
            \(step.samples.map { row($0, step: step.step) })</tbody>

            """
        }
        return """
            <section id="samples"><h2>Samples</h2>\(note)
            <label class="control scripted">step <output id="sample-step">\(last.step)</output>
            <input type="range" id="sample-slider" min="0" max="\(shown.count - 1)" value="\(shown.count - 1)" \
            aria-label="step of the samples, from \(first.step) to \(last.step)"></label>
            <div class="scroll"><table><thead><tr><th>step</th><th>reward</th><th>prompt</th><th>answer</th>\
            <th>ground truth</th></tr></thead>
            \(bodies)</table></div></section>

            """
    }

    private var kept: [StepSamples] {
        guard samples.count > Self.mostSteps else { return samples }
        return (0..<Self.mostSteps).map { samples[$0 * (samples.count - 1) / (Self.mostSteps - 1)] }
    }

    private func row(_ sample: Sample, step: Int) -> HTML {
        let tone = sample.reward > 0 ? "good" : "poor"
        return """
            <tr><td class="number">\(step)</td><td class="number \(tone)">\(NumberText.short(sample.reward))</td>\
            <td>\(cell(sample.prompt))</td><td>\(cell(sample.answer))</td><td>\(cell(sample.groundTruth))</td></tr>

            """
    }

    private func cell(_ text: String) -> HTML {
        let whole = text.count > Self.longestText ? String(text.prefix(Self.longestText)) + "…" : text
        guard whole.count > Self.longestOpenText else { return "<div class=\"text\">\(whole)</div>" }
        // The end is what tells long prompts apart, and where an answer stops.
        let end = "…" + String(whole.suffix(120))
        return "<details><summary class=\"text\">\(end)</summary><div class=\"text\">\(whole)</div></details>"
    }
}

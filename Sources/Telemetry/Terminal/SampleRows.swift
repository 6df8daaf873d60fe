/// Samples as rows for the terminal: reward, prompt's end, answer, ground truth.
struct SampleRows {
    let width: Int

    func lines(_ rows: StepSamples) -> [StyledLine] {
        let rewards = rows.samples.map { NumberText.short($0.reward) }
        let rewardCells = max(6, rewards.map(\.utf8.count).max() ?? 0)
        let rest = max(9, width - rewardCells - 7)
        let truthCells = min(
            rest / 4, max(5, rows.samples.map { TerminalText.width(TerminalText.harmless($0.groundTruth)) }.max() ?? 0))
        let promptCells = (rest - truthCells) / 2
        let answerCells = rest - truthCells - promptCells

        func line(_ cells: [(String, Int)], _ styles: [TerminalStyle]) -> StyledLine {
            var line = StyledLine()
            for (index, (text, width)) in cells.enumerated() {
                let clipped = TerminalText.clipped(text, to: width)
                let padded = index == cells.count - 1 ? clipped : TerminalText.padded(clipped, to: width) + "  "
                line.append(padded, styles[index])
            }
            return line
        }
        let head = line(
            [("reward", rewardCells), ("prompt", promptCells), ("answer", answerCells), ("truth", truthCells)],
            [.faint, .faint, .faint, .faint])
        let greatest = rows.samples.map(\.reward).filter(\.isFinite).max() ?? 0
        return [StyledLine("samples of step \(rows.step)", .bold), head]
            + zip(rows.samples, rewards).map { sample, reward in
                line(
                    [
                        (reward, rewardCells), (text(ending: sample.prompt, cells: promptCells), promptCells),
                        (TerminalText.harmless(sample.answer), answerCells),
                        (TerminalText.harmless(sample.groundTruth), truthCells),
                    ],
                    [sample.reward >= greatest && greatest > 0 ? .green : .yellow, .plain, .plain, .faint])
            }
    }

    /// A prompt's end tells one prompt from another: they often begin alike.
    private func text(ending prompt: String, cells: Int) -> String {
        let whole = TerminalText.harmless(prompt)
        guard TerminalText.width(whole) > cells, cells > 1 else { return whole }
        var room = cells - 1
        let end = whole.reversed().prefix {
            room -= TerminalText.width($0)
            return room >= 0
        }
        return "…" + String(end.reversed())
    }
}

extension StepSamples {
    /// Rows to print outside a live view; each fits the width, and nothing in them steers the terminal.
    public func rows(_ traits: TerminalTraits) -> [String] {
        SampleRows(width: traits.width()).lines(self).map {
            $0.rendered(traits)
        }
    }
}

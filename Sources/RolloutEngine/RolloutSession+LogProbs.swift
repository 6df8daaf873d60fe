import Models
import RolloutCore
import TensorCore

/// What requests want besides tokens: changed logits, the likeliest tokens, the prompt's log-probabilities.
extension RolloutSession {
    /// Logits `[D, V]` after penalties, biases and forbidden stops, in float32, where a penalty of 0.05 is not lost.
    func adjusted(_ logits_DV: Tensor, _ draws: [StepPlan.Draw]) throws -> Tensor {
        adjustments.removeAll()
        for (row, draw) in draws.enumerated() {
            requests[draw.request]?.samples[draw.sample].adjuster?.append(to: &adjustments, row: row)
        }
        guard !adjustments.isEmpty else { return logits_DV }
        let device = logits_DV.device
        let wide_DV = try logits_DV.to(dtype: .float32)
        try wide_DV.adjust(
            LogitAdjustments(
                rows: Tensor(adjustments.rows, device: device), tokens: Tensor(adjustments.tokens, device: device),
                factors: Tensor(adjustments.factors, device: device),
                offsets: Tensor(adjustments.offsets, device: device)))
        return wide_DV
    }

    /// The likeliest tokens of each draw, as many as any request wants; empty where none does.
    func top(_ logits_DV: Tensor, _ draws: [StepPlan.Draw], chosen: Tensor) throws -> [[TokenLogProb]] {
        let most = draws.reduce(0) { max($0, requests[$1.request]?.sampling.logProbs ?? 0) }
        guard most > 0 else { return [] }
        let temperatures = draws.map { Float(requests[$0.request]?.sampling.temperature ?? 1) }
        return try logits_DV.topLogProbs(
            count: most, chosen: chosen, temperatures: Tensor(temperatures, device: logits_DV.device)
        ).lists()
    }

    /// Whether some of the work's tokens are of a prompt whose log-probabilities are asked for and not known.
    func wantsPrompt(_ work: StepPlan.Work) -> Bool {
        guard let request = requests[scheduler.request(of: work.sequence)], !request.promptLogProbs.isEmpty else {
            return false
        }
        return work.start < request.promptLogProbs.count && request.promptLogProbs[work.start].logProb.isNaN
    }

    /// Notes the log-probabilities of the prompt's tokens that come after the work's.
    func recordPrompt(_ work: StepPlan.Work, firstToken: Int) throws {
        let id = scheduler.request(of: work.sequence)
        guard let request = requests[id], let hidden_TC = runner.hidden_TC else { return }
        let end = min(work.start + work.count, request.prompt.count - 1)
        // So many rows of logits at a time.
        for start in stride(from: work.start, to: end, by: 256) {
            let places = start..<min(start + 256, end)
            let first = firstToken + start - work.start
            let logits_PV = try runner.model.logits(hidden_TC.narrowed(0, first..<first + places.count))
            let next = try Tensor(
                Array(request.prompt[places.lowerBound + 1..<places.upperBound + 1]), device: logits_PV.device)
            let count = request.sampling.promptLogProbs ?? 0
            let found = try logits_PV.topLogProbs(count: max(1, count), chosen: next)
            let chosen = try found.chosenLogProbs.values(Float.self), lists = try found.lists()
            for (row, place) in places.enumerated() {
                requests[id]?.promptLogProbs[place].logProb = chosen[row]
                requests[id]?.promptLogProbs[place].top = Array(lists[row].prefix(count))
            }
        }
    }
}

extension TopLogProbs {
    fileprivate func lists() throws -> [[TokenLogProb]] {
        let tokens = try tokens.values(Int32.self), logProbs = try logProbs.values(Float.self)
        let width = self.tokens.size(1)
        return (0..<self.tokens.size(0)).map { row in
            (row * width..<row * width + width).map { TokenLogProb(token: tokens[$0], logProb: logProbs[$0]) }
        }
    }
}

/// Ends what a rollout would wait too long for: all other groups once enough are whole, and single samples a bounded number of tokens
/// after most have ended.
final class StragglerCut {
    private let perGroup: Int
    /// Groups that are wanted; the others are given up when so many are whole.
    private let wanted: Int
    /// Samples after whose end the others' tokens are numbered, and the tokens that these may draw yet.
    private let threshold: Int, tokensLeft: Int
    private var ended = 0
    private var endedOfGroup: [Int]
    private var whole = 0
    private var tokensSince: [Int]
    /// Samples that were cut off because most others had ended.
    private(set) var cutSamples = 0

    /// - Parameters:
    ///   - groups: prompts, with `n` samples each.
    ///   - wanted: nil: all.
    ///   - share: of all samples, after whose end the others may draw `tokens` more; nil: no bound.
    init(groups: Int, n: Int, wanted: Int?, share: Double?, tokens: Int) {
        perGroup = n
        self.wanted = min(groups, wanted ?? groups)
        threshold = share.map { Int((Double(groups * n) * $0).rounded(.up)) } ?? .max
        tokensLeft = tokens
        endedOfGroup = Array(repeating: 0, count: groups)
        tokensSince = Array(repeating: 0, count: groups * n)
    }

    private var hasEnough: Bool { wanted < endedOfGroup.count && whole >= wanted }

    /// Whether a sample goes on after one more token.
    func goesOn(request: Int, sample: Int) -> Bool {
        if hasEnough { return false }
        guard ended >= threshold else { return true }
        let place = request * perGroup + sample
        tokensSince[place] += 1
        guard tokensSince[place] > tokensLeft else { return true }
        cutSamples += 1
        return false
    }

    func sampleEnded(request: Int) {
        if hasEnough { return }
        ended += 1
        endedOfGroup[request] += 1
        if endedOfGroup[request] == perGroup { whole += 1 }
    }

    /// Groups that were given up.
    var lost: [Int] { hasEnough ? endedOfGroup.indices.filter { endedOfGroup[$0] < perGroup } : [] }
}

/// What a run found, as JSON.
struct Summary: Encodable {
    struct Failure: Encodable {
        /// "crash-signal-N", "hang", "broken-property" or "exit-N".
        let kind: String
        /// Its number under the run's seed and corpus.
        let input: Int
        /// The input itself, for `--input`.
        let file: String
        /// Whether it fails alone in a fresh process too.
        var isReproducible = false
        var message = ""
        var frames: [String] = []

        init(kind: String, input: Int, file: String) {
            self.kind = kind
            self.input = input
            self.file = file
        }
    }

    let target: String
    let seed: UInt64
    let corpusInputs: Int
    let seconds: Double
    let executions: Int
    var perSecond: Double { executions == 0 ? 0 : (Double(executions) / seconds).rounded() }
    /// Inputs that the parser took; all others were refused with one of `codes`.
    let accepted: Int
    let codes: [String: Int]
    /// Resident memory of a worker before its first input, and the most that any had.
    let baseMB: Int
    let peakMB: Int
    let peakInput: String
    let slowestMilliseconds: Double
    let slowestInput: String
    let failures: [Failure]

    private enum CodingKeys: String, CodingKey {
        case target, seed, corpusInputs = "corpus_inputs", seconds, executions, perSecond = "per_second", accepted,
            codes
        case baseMB = "base_mb", peakMB = "peak_mb", peakInput = "peak_input", slowestMilliseconds = "slowest_ms"
        case slowestInput = "slowest_input", crashes, hangs, broken, failures
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        func count(_ prefix: String) -> Int { failures.count { $0.kind.hasPrefix(prefix) } }
        try container.encode(target, forKey: .target)
        try container.encode(seed, forKey: .seed)
        try container.encode(corpusInputs, forKey: .corpusInputs)
        try container.encode((seconds * 10).rounded() / 10, forKey: .seconds)
        try container.encode(executions, forKey: .executions)
        try container.encode(perSecond, forKey: .perSecond)
        try container.encode(accepted, forKey: .accepted)
        try container.encode(codes, forKey: .codes)
        try container.encode(baseMB, forKey: .baseMB)
        try container.encode(peakMB, forKey: .peakMB)
        try container.encode(peakInput, forKey: .peakInput)
        try container.encode(slowestMilliseconds, forKey: .slowestMilliseconds)
        try container.encode(slowestInput, forKey: .slowestInput)
        try container.encode(count("crash") + count("exit"), forKey: .crashes)
        try container.encode(count("hang"), forKey: .hangs)
        try container.encode(count("broken"), forKey: .broken)
        try container.encode(failures, forKey: .failures)
    }
}

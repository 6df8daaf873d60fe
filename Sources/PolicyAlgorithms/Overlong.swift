/// DAPO's soft punishment of overlong answers (Yu et al. 2025): nothing up to `maxLength − buffer` tokens, then falling by a straight
/// line to −`penalty` at `maxLength`.
public struct OverlongPenalty: Sendable, Hashable {
    public let maxLength, buffer: Int
    public let penalty: Double
    /// What an answer longer than `maxLength` gets: the line goes on (verl), or a floor of −`penalty` (TRL).
    public enum Beyond: Sendable, Hashable { case line, floor }
    public let beyond: Beyond

    /// Source: verl `DAPORewardManager` with `.line` (`max_resp_len`, `overlong_buffer.len`, `.penalty_factor`); TRL
    /// `get_soft_overlong_punishment` with `.floor` and a penalty of 1 (`max_completion_len`, `soft_punish_cache`).
    ///
    /// - Throws: ``AlgorithmError`` (`badSetting`) where the buffer is longer than the maximum, or empty with `.line`.
    public init(
        maxLength: Int, buffer: Int, penalty: Double = 1, beyond: Beyond = .line
    ) throws(AlgorithmError) {
        guard buffer <= maxLength, buffer > (beyond == .line ? 0 : -1) else {
            throw AlgorithmError(
                .badSetting, "overlong_buffer",
                "a buffer of \(buffer) tokens for answers of up to \(maxLength); give one from 1 to \(maxLength)")
        }
        self.maxLength = maxLength
        self.buffer = buffer
        self.penalty = penalty
        self.beyond = beyond
    }

    /// The (negative or zero) reward to add for an answer of `length` tokens.
    public func callAsFunction(length: Int) -> Double {
        let excess = length - (maxLength - buffer)
        guard excess > 0 else { return 0 }
        if beyond == .floor && length > maxLength { return -penalty }
        return -Double(excess) / Double(buffer) * penalty
    }
}

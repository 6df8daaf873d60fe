/// One prompt that waits for its samples.
public struct RolloutRequest: Sendable {
    public var prompt: [Int32]
    public var sampling: SamplingParameters

    public init(prompt: [Int32], sampling: SamplingParameters) {
        self.prompt = prompt
        self.sampling = sampling
    }
}

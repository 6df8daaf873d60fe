/// How a language model on a server is asked to grade answers.
public struct JudgeConfiguration: Sendable {
    /// A key that shows itself nowhere but in a request.
    public struct Key: Hashable, Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
        let text: String
        public init(_ text: String) { self.text = text }
        public var description: String { "(a key)" }
        public var debugDescription: String { description }
        public var customMirror: Mirror { Mirror(self, children: []) }
    }

    /// Of the server up to `/v1`; `/chat/completions` is added.
    public var url: String
    public var model: String
    /// `{prompt}`, `{response}` and `{ground_truth}` stand for an item's.
    public var prompt: String
    public var system: String?
    /// Its one group is the grade; the last match counts.
    public var scorePattern: String
    /// Grades that there are. Scores are 0 for the least and 1 for the greatest.
    public var grades: ClosedRange<Double> = 0...10
    public var temperature = 0.0
    public var maxTokens = 512
    public var concurrency = 32
    /// The most time of one request.
    public var timeout: Duration = .seconds(60)
    /// How often a request is made again.
    public var retries = 5
    /// The most time of one item from its first request on, its retries and the waits between them included.
    public var deadline: Duration = .seconds(300)
    /// The wait before the first retry; it doubles up to `longestWait`. A server's `retry-after` may make it longer.
    public var firstWait: Duration = .milliseconds(500)
    public var longestWait: Duration = .seconds(15)
    public var key: Key?
    /// PEM certificates to trust in place of the system's.
    public var caFile: String?
    /// The most bytes of an answer.
    public var answerBytes = 1 << 20

    public init(url: String, model: String, prompt: String, scorePattern: String) {
        self.url = url
        self.model = model
        self.prompt = prompt
        self.scorePattern = scorePattern
    }

    /// - Throws: ``RewardError`` `badSetting`.
    func check() throws {
        let isValid =
            concurrency > 0 && timeout > .zero && retries >= 0 && deadline > .zero && maxTokens > 0
            && grades.lowerBound < grades.upperBound && answerBytes > 0 && firstWait >= .zero
        guard isValid else {
            throw RewardError(
                .badSetting,
                "a judge needs concurrency, times and tokens above 0 and more than one grade; it has \(self)")
        }
        if let key, key.text.isEmpty || !key.text.utf8.allSatisfy({ (33...126).contains($0) }) {
            throw RewardError(
                .badSetting,
                "the judge's key is empty or holds what no header can: look for a line break or a blank at its end")
        }
    }
}

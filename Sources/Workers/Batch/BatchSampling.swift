public import Datasets
import RolloutCore

/// How the samples of a line are drawn: the command's settings, and a line's own over them.
public struct BatchSampling: Sendable, Hashable {
    public var n = 1
    /// 0: greedy.
    public var temperature = 0.0
    /// 0 or -1: off.
    public var topK = 0
    public var topP = 1.0
    public var minP = 0.0
    /// 1: off.
    public var repetitionPenalty = 1.0
    /// 0: off, as for frequency.
    public var presencePenalty = 0.0
    public var frequencyPenalty = 0.0
    /// Added to the logits of these ids.
    public var logitBias: [Int32: Float] = [:]
    public var maxTokens = 256
    /// No sample ends before it has so many tokens.
    public var minTokens = 0
    public var stop: [String] = []
    /// Ids that end a sample, beside the model's end-of-turn ids.
    public var stopTokenIDs: [Int32] = []
    /// Goes on past the model's end-of-turn ids.
    public var ignoresEndOfTurn = false
    /// Of a line; of the command, what the lines' seeds are made from.
    public var seed: UInt64 = 0

    public init() {}

    /// The seed of the line at `index` of a run. 53 bits, so that every reader of JSON keeps it whole.
    static func seed(run: UInt64, index: Int) -> UInt64 { SplitMix64.seed(run, UInt64(index)) >> 11 }

    /// What a line says of its sampling, by the name that it has on the line.
    enum Key: String, CaseIterable {
        case n, temperature, stop, seed
        case topK = "top_k"
        case topP = "top_p"
        case minP = "min_p"
        case repetitionPenalty = "repetition_penalty"
        case presencePenalty = "presence_penalty"
        case frequencyPenalty = "frequency_penalty"
        case logitBias = "logit_bias"
        case maxTokens = "max_tokens"
        case minTokens = "min_tokens"
        case stopTokenIDs = "stop_token_ids"
        case ignoresEndOfTurn = "ignore_eos"
    }

    /// Names by which other programs know settings that nothing here heeds: on a line they are refused, not carried along.
    static let refused: [String: String] = [
        "bad_words": "is not supported yet", "min_new_tokens": "is min_tokens here",
        "response_format": "is not supported yet", "guided_json": "is not supported yet",
        "guided_regex": "is not supported yet", "structured_outputs": "is not supported yet",
        "max_new_tokens": "is max_tokens here", "max_completion_tokens": "is max_tokens here",
        "num_return_sequences": "is n here", "do_sample": "is not read; temperature 0 is greedy",
        "logprobs": "is one setting for all lines: --logprobs", "input_ids": "is prompt_token_ids here",
        "stop_strings": "is stop here",
    ]

    /// Lays a line's own setting over this.
    /// - Throws: ``BatchProblem``.
    mutating func set(_ key: Key, _ value: JSONValue) throws(BatchProblem) {
        func whole(_ range: ClosedRange<Int>) throws(BatchProblem) -> Int {
            guard case .number(let digits) = value, let number = Int(digits), range.contains(number) else {
                let upper = range.upperBound == .max ? "" : " to \(range.upperBound)"
                throw BatchProblem(
                    key.rawValue, "is \(value.brief)", "give an integer from \(range.lowerBound)\(upper)")
            }
            return number
        }
        func real() throws(BatchProblem) -> Double {
            guard case .number(let digits) = value, let number = Double(digits), number.isFinite else {
                throw BatchProblem(key.rawValue, "is \(value.brief)", "give a number")
            }
            return number
        }
        switch key {
        case .n: n = try whole(1...65_536)
        case .temperature: temperature = try real()
        case .topK: topK = try whole(-1...16_777_216)
        case .topP: topP = try real()
        case .minP: minP = try real()
        case .repetitionPenalty: repetitionPenalty = try real()
        case .presencePenalty: presencePenalty = try real()
        case .frequencyPenalty: frequencyPenalty = try real()
        case .logitBias: logitBias = try value.biases(key.rawValue)
        case .maxTokens: maxTokens = try whole(1...Int(Int32.max))
        case .minTokens: minTokens = try whole(0...Int(Int32.max))
        case .seed:
            guard case .number(let digits) = value, let number = UInt64(digits) else {
                throw BatchProblem(key.rawValue, "is \(value.brief)", "give an integer from 0 to \(UInt64.max)")
            }
            seed = number
        case .stop:
            switch value {
            case .string(let text): stop = [text]
            case .array(let items):
                stop = []
                for item in items {
                    guard case .string(let text) = item else {
                        throw BatchProblem(key.rawValue, "holds \(item.brief)", "give a text or a list of texts")
                    }
                    stop.append(text)
                }
            default: throw BatchProblem(key.rawValue, "is \(value.brief)", "give a text or a list of texts")
            }
        case .stopTokenIDs: stopTokenIDs = try value.tokenIDs(key.rawValue)
        case .ignoresEndOfTurn:
            guard case .bool(let flag) = value else {
                throw BatchProblem(key.rawValue, "is \(value.brief)", "write true or false")
            }
            ignoresEndOfTurn = flag
        }
    }

    /// What the engine is asked for.
    /// - Parameter ids: that end a sample beside the line's own.
    func parameters(endingAt ids: Set<Int32>) -> SamplingParameters {
        SamplingParameters(
            n: n, temperature: temperature, topK: max(0, topK), topP: topP, minP: minP,
            repetitionPenalty: repetitionPenalty, presencePenalty: presencePenalty,
            frequencyPenalty: frequencyPenalty, logitBias: logitBias, maxTokens: maxTokens, minTokens: minTokens,
            stopTokenIDs: ids.union(stopTokenIDs), stop: stop, seed: seed)
    }

    /// Ranges, and what does not go together; `name` gives a setting's name as its reader wrote it.
    func check(_ name: (Key) -> String = \.rawValue) throws(BatchProblem) {
        func require(_ holds: Bool, _ key: Key, _ value: Any, _ remedy: String) throws(BatchProblem) {
            if !holds { throw BatchProblem(name(key), "is \(value)", remedy) }
        }
        try require((1...65_536).contains(n), .n, n, "give an integer from 1 to 65536")
        try require(topK >= -1, .topK, topK, "give -1 or 0 for all, or 1 or more")
        if let problem = parameters(endingAt: []).problem() { throw BatchProblem(problem, name) }
        try require(
            n == 1 || temperature > 0, .n, "\(n), and \(name(.temperature)) is 0: greedy samples are all the same",
            "make \(name(.temperature)) more than 0, or \(name(.n)) 1")
    }
}

/// What is wrong with a line or a setting: which member, its value, and the remedy.
struct BatchProblem: Error, CustomStringConvertible {
    let key: String?
    let message: String
    let remedy: String

    init(_ key: String?, _ message: String, _ remedy: String) {
        self.key = key
        self.message = message
        self.remedy = remedy
    }

    /// From ``SamplingParameters/problem(vocabulary:)``, which begins with a parameter's name in Swift.
    init(_ problem: String, _ name: (BatchSampling.Key) -> String = \.rawValue) {
        let parts = problem.split(separator: "; ", maxSplits: 1)
        let words = parts[0].split(separator: " ", maxSplits: 1)
        let place = words[0].firstIndex(of: "[") ?? words[0].endIndex
        let swift = String(words[0][..<place])
        let key = BatchSampling.Key.allCases.first { "\($0)" == swift }
        self.init(
            (key.map(name) ?? swift) + words[0][place...], String(words.dropFirst().first ?? ""),
            String(parts.dropFirst().first ?? "").replacing("maxTokens", with: name(.maxTokens)))
    }

    var description: String { (key.map { "'\($0)' " } ?? "") + "\(message); \(remedy)" }
}

extension JSONValue {
    /// The value as a message shows it.
    var brief: String {
        switch self {
        case .null, .bool, .number, .string:
            let text = self.text
            return text.unicodeScalars.count > 40 ? String(text.unicodeScalars.prefix(40)) + "…" : text
        case .array, .object: return kind
        }
    }

    /// `{"50256": -100}`
    func biases(_ key: String) throws(BatchProblem) -> [Int32: Float] {
        guard case .object(let object) = self else {
            throw BatchProblem(key, "is \(brief)", "give an object of numbers by token id")
        }
        var biases: [Int32: Float] = [:]
        for member in object.members {
            guard let id = Int32(member.name), id >= 0, biases[id] == nil else {
                throw BatchProblem(
                    "\(key)['\(member.name)']", "is no token id, or there twice", "give ids from 0, once each")
            }
            guard case .number(let digits) = member.value, let bias = Float(digits), bias.isFinite else {
                throw BatchProblem("\(key)['\(member.name)']", "is \(member.value.brief)", "give a number")
            }
            biases[id] = bias
        }
        return biases
    }

    func tokenIDs(_ key: String) throws(BatchProblem) -> [Int32] {
        guard case .array(let items) = self else {
            throw BatchProblem(key, "is \(brief)", "give a list of token ids")
        }
        var ids: [Int32] = []
        ids.reserveCapacity(items.count)
        for (place, item) in items.enumerated() {
            guard case .number(let digits) = item, let id = Int32(digits), id >= 0 else {
                throw BatchProblem("\(key)[\(place)]", "is \(item.brief)", "give token ids: integers from 0")
            }
            ids.append(id)
        }
        return ids
    }
}

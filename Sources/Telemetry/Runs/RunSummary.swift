public import OrderedCollections

/// How a run stands. Open: a launcher may add its own.
public struct RunStatus: Hashable, Sendable, CustomStringConvertible {
    public let name: String
    public init(_ name: String) { self.name = name }
    public var description: String { name }

    /// Under way, or killed before it could say otherwise.
    public static let running = RunStatus("running")
    public static let finished = RunStatus("finished")
    /// Stopped on request; it can be resumed.
    public static let interrupted = RunStatus("interrupted")
    public static let failed = RunStatus("failed")
}

/// What a run came to: the content of `summary.json`.
public struct RunSummary: Hashable, Sendable {
    /// The share of held-out problems answered exactly right, from 0 to 1.
    public typealias ExactMatch = BeforeAfter

    /// A measure before the first step and after the last.
    public struct BeforeAfter: Hashable, Sendable {
        public var before: Double?
        public var after: Double?

        public init(before: Double? = nil, after: Double? = nil) {
            self.before = before
            self.after = after
        }
    }

    public var status: RunStatus
    /// How many steps are done.
    public var steps: Int
    public var totalSteps: Int
    public var model: String
    public var device: String
    /// Of Fledge, torch and what else matters, by name.
    public var versions: OrderedDictionary<String, String>
    public var heldOutExactMatch: ExactMatch?
    /// Other measures of held-out rows, by their metrics' names.
    public var heldOut: OrderedDictionary<MetricName, BeforeAfter>
    /// Times in seconds, under names that begin with `time/`.
    public var times: OrderedDictionary<MetricName, Double>
    /// Why it failed, when it did.
    public var failure: String?

    public init(
        status: RunStatus, steps: Int, totalSteps: Int, model: String, device: String,
        versions: OrderedDictionary<String, String> = [:], heldOutExactMatch: ExactMatch? = nil,
        heldOut: OrderedDictionary<MetricName, BeforeAfter> = [:],
        times: OrderedDictionary<MetricName, Double> = [:], failure: String? = nil
    ) {
        self.status = status
        self.steps = steps
        self.totalSteps = totalSteps
        self.model = model
        self.device = device
        self.versions = versions
        self.heldOutExactMatch = heldOutExactMatch
        self.heldOut = heldOut
        self.times = times
        self.failure = failure
    }
}

extension RunSummary {
    /// The text of `summary.json`, ending in a line feed.
    public var json: String {
        var writer = JSONWriter(style: .pretty)
        writer.object {
            $0.key("status")
            $0.value(status.name)
            $0.key("steps")
            $0.value(steps)
            $0.key("total_steps")
            $0.value(totalSteps)
            if let heldOutExactMatch {
                $0.key("heldout_exact_match")
                heldOutExactMatch.write(&$0)
            }
            if !heldOut.isEmpty {
                $0.key("heldout")
                $0.object { object in
                    for (name, pair) in heldOut {
                        object.key(name.text)
                        pair.write(&object)
                    }
                }
            }
            for (name, seconds) in times {
                $0.key(name.text)
                $0.value(seconds)
            }
            $0.key("model")
            $0.value(model)
            $0.key("device")
            $0.value(device)
            $0.key("versions")
            $0.object {
                for (name, version) in versions {
                    $0.key(name)
                    $0.value(version)
                }
            }
            if let failure {
                $0.key("failure")
                $0.value(failure)
            }
        }
        return writer.text + "\n"
    }

    /// Reads the text of a `summary.json`; keys that this version does not know are passed over.
    /// - Throws: `TelemetryError` with code `malformed`, naming the key.
    public init(parsing bytes: [UInt8], path: String? = nil) throws(TelemetryError) {
        let value = try JSONValue(parsing: bytes, path: path)
        func malformed(_ key: String, _ kind: String) -> TelemetryError {
            TelemetryError(.malformed, "'\(key)' is missing or not \(kind)", path: path)
        }
        func string(_ key: String) throws(TelemetryError) -> String {
            guard let string = value[key]?.string else { throw malformed(key, "a string") }
            return string
        }
        func int(_ key: String) throws(TelemetryError) -> Int {
            guard let int = value[key]?.int else { throw malformed(key, "a whole number") }
            return int
        }
        self.init(
            status: RunStatus(try string("status")), steps: try int("steps"), totalSteps: try int("total_steps"),
            model: try string("model"), device: try string("device"))
        for (name, version) in value["versions"]?.object ?? [:] {
            guard let version = version.string else { throw malformed("versions.\(name)", "a string") }
            versions[name] = version
        }
        if let match = value["heldout_exact_match"]?.object {
            heldOutExactMatch = ExactMatch(before: match["before"]?.double, after: match["after"]?.double)
        }
        for (key, pair) in value["heldout"]?.object ?? [:] {
            guard let pair = pair.object else { throw malformed("heldout.\(key)", "an object") }
            heldOut[try MetricName(key)] = BeforeAfter(before: pair["before"]?.double, after: pair["after"]?.double)
        }
        for (key, seconds) in value.object ?? [:] where key.hasPrefix("time/") {
            guard let seconds = seconds.double else { throw malformed(key, "a number") }
            times[try MetricName(key)] = seconds
        }
        failure = value["failure"]?.string
    }
}

extension RunSummary.BeforeAfter {
    fileprivate func write(_ writer: inout JSONWriter) {
        writer.object {
            $0.key("before")
            $0.value(before)
            $0.key("after")
            $0.value(after)
        }
    }
}

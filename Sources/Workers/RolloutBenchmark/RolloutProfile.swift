import RolloutEngine
public import TensorCore

/// What of a case is profiled.
public enum ProfileScope: Sendable, Hashable {
    /// The whole call, prefill included.
    case call
    /// So many steps from the middle of the answers.
    case steps(Int)
}

/// Where a case's time went.
public struct RolloutProfile: Sendable {
    /// Decode steps that were looked at.
    public var steps: Int
    public var detail: Detail

    public enum Detail: Sendable {
        case device(TimeBreakdown)
        /// Without a device's own account: seconds of a call that stops after the first token, and of all that comes after it.
        case phases(prefill: Double, decode: Double)
    }
}

extension RolloutBenchmark {
    /// Runs the case once more and looks at it.
    /// - Parameter renew: makes the engine, so that its graphs are captured while the trace records: others are not seen.
    static func profile(
        _ work: RolloutCase, shape: BenchmarkShape, scope: ProfileScope, settings: Settings, _ device: Device,
        _ renew: () throws -> RolloutEngine
    ) throws -> RolloutProfile {
        let requests = requests(work, settings, vocabulary: shape.vocabulary)
        guard device.isCUDA else {
            let engine = try renew()
            try warmUp(work, engine, shape: shape, settings: settings)
            var first = work
            first.output = 1
            let prefill = try seconds {
                _ = try engine.generate(Self.requests(first, settings, vocabulary: shape.vocabulary))
            }
            let all = try seconds { _ = try engine.generate(requests) }
            return RolloutProfile(
                steps: engine.statistics.decodeSteps, detail: .phases(prefill: prefill, decode: all - prefill))
        }
        try DeviceTrace.start()
        let recorded: (DeviceTrace, steps: Int)
        do {
            let engine = try renew()
            try warmUp(work, engine, shape: shape, settings: settings)
            recorded = try record(scope, of: work, device) {
                try engine.generate(requests, onToken: $0)
            } steps: {
                engine.statistics.decodeSteps
            }
        } catch {
            _ = try? DeviceTrace.stop()
            throw error
        }
        return RolloutProfile(steps: recorded.steps, detail: .device(TimeBreakdown(recorded.0)))
    }

    private static func record(
        _ scope: ProfileScope, of work: RolloutCase, _ device: Device,
        generate: (((GeneratedToken) -> Bool)?) throws -> [[GeneratedSample]], steps: () -> Int
    ) throws -> (DeviceTrace, steps: Int) {
        try device.synchronize()
        guard case .steps(let wanted) = scope, work.output > 2 else {
            try DeviceTrace.clear()
            _ = try generate(nil)
            try device.synchronize()
            return (try DeviceTrace.stop(), steps())
        }
        // The first answer's tokens tell the steps.
        let count = min(wanted, work.output - 2), first = max(1, (work.output - count) / 2)
        var seen = 0
        var trace: DeviceTrace?
        var failure: (any Error)?
        _ = try generate { token in
            guard token.request == 0, token.sample == 0 else { return true }
            seen += 1
            do {
                if seen == first {
                    try device.synchronize()
                    try DeviceTrace.clear()
                } else if seen == first + count {
                    try device.synchronize()
                    trace = try DeviceTrace.stop()
                }
            } catch { failure = error }
            return failure == nil
        }
        if let failure { throw failure }
        guard let trace else { throw WorkerError(.badData, "\(work): the profile's steps did not come") }
        return (trace, count)
    }

    private static func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = ContinuousClock.now
        try body()
        return (ContinuousClock.now - start) / .seconds(1)
    }
}

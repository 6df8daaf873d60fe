internal import TensorCore

/// A plan under way, bucket by bucket: two are moving at any time.
///
/// All at once: ``finish()``. As soon as parameters were stepped: ``ready(_:)`` with their names, which starts every bucket, in order,
/// that has all it needs. One at a time: ``next()``. Buckets run in the same order on all ranks, whoever is first.
public final class ReshardRun {
    /// A bucket whose targets are filled; on CUDA, for whatever the current stream does next.
    public struct Done: Sendable {
        public var index: Int
        /// Indices of the targets that have all of their elements now.
        public var complete: [Int]
    }

    private let resharder: Resharder
    private let sources: [LocalShard]
    private let targets: [LocalShard]
    private var started = 0
    private var moving: [ReshardBucketWork] = []
    private var waiting: Set<String>
    /// Elements of each target that are still to come.
    private var missing: [Int]
    private var report = ReshardReport()
    private var extraBytes = 0
    private let start = ContinuousClock.now

    private var buckets: [ReshardPlan.Bucket] { resharder.plan.buckets }
    private static let depth = 2

    init(_ resharder: Resharder, _ sources: [LocalShard], _ targets: [LocalShard]) {
        self.resharder = resharder
        self.sources = sources
        self.targets = targets
        waiting = Set(sources.map(\.box.name))
        missing = targets.map(\.box.count)
        report.buckets = resharder.plan.buckets.count
    }

    /// Says that what this rank holds of these tensors is as it is to be sent, and starts the buckets that this completes.
    public func ready(_ names: some Sequence<String>) throws {
        for name in names { waiting.remove(name) }
        while started < buckets.count, waiting.isDisjoint(with: buckets[started].names) {
            if moving.count == Self.depth { _ = try finishOldest() }
            try startNext()
        }
    }

    /// Waits for the next bucket in order, starting it, and the one after it, if need be; nil when all are done.
    public func next() throws -> Done? {
        while started < buckets.count, moving.count < Self.depth { try startNext() }
        return moving.isEmpty ? nil : try finishOldest()
    }

    /// Runs what is left and waits for the device.
    /// - Parameter waitsForDevice: false on CUDA for whatever the current stream does next; the report's seconds are then too few.
    public func finish(waitsForDevice: Bool = true) throws -> ReshardReport {
        while try next() != nil {}
        for device in Set(targets.map(\.tensor.device)) where waitsForDevice && device.isCUDA {
            try device.synchronize()
        }
        report.seconds = (ContinuousClock.now - start) / .seconds(1)
        return report
    }

    private func startNext() throws {
        let index = started
        started += 1
        let work = try withNoGrad {
            try ReshardBucketWork(index, buckets[index], resharder, sources: sources, targets: targets)
        }
        extraBytes += work.stagedBytes
        report.peakExtraBytes = max(report.peakExtraBytes, extraBytes)
        report.sentBytes += work.sentBytes
        report.receivedBytes += work.receivedBytes
        report.copiedBytes += work.copiedBytes
        report.aliasedBytes += work.aliasedBytes
        report.messages += work.messageCount
        moving.append(work)
    }

    private func finishOldest() throws -> Done {
        let work = moving.removeFirst()
        try withNoGrad { try work.finish() }
        extraBytes -= work.stagedBytes
        var complete: [Int] = []
        for (target, count) in work.filled {
            missing[target] -= count
            if missing[target] == 0 { complete.append(target) }
        }
        return Done(index: work.index, complete: complete)
    }
}

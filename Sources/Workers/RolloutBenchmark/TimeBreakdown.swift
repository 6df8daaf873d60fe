public import TensorCore

/// Where the time of a traced stretch went.
public struct TimeBreakdown: Sendable, Hashable {
    public enum Category: String, Sendable, CaseIterable {
        case gemm = "GEMM"
        case attention
        case other = "other kernels"
        case copies
        /// Only operations between devices run: what they take beside other kernels costs nothing here.
        case communication
        /// Nothing runs, though the next kernel has been launched.
        case gaps
        /// Nothing runs because nothing has been launched: the device waits for the host.
        case host
    }

    public struct Kernel: Sendable, Hashable {
        public var name: String
        public var category: Category
        public var count: Int
        /// Of all its runs together; more than its share of the stretch where kernels overlap.
        public var seconds: Double
        public var meanSeconds: Double { seconds / Double(count) }
    }

    public private(set) var totalSeconds: Double
    /// They add up to the total: of kernels that overlap, the first counts for the time that they share, and communication last.
    public private(set) var seconds: [Category: Double]
    /// The longest first.
    public private(set) var kernels: [Kernel]
    public let droppedRecords: Int

    public func share(_ category: Category) -> Double { (seconds[category] ?? 0) / totalSeconds }

    public init(_ trace: DeviceTrace) {
        let categories = trace.names.map(Self.category)
        var counts = Array(repeating: 0, count: trace.names.count)
        var durations = Array(repeating: UInt64(0), count: trace.names.count)
        var nanoseconds: [Category: UInt64] = [:]
        for span in trace.spans where span.start < trace.end && span.end > trace.start {
            counts[span.name] += 1
            durations[span.name] += span.end - span.start
        }
        var links = CoveredTime(
            trace.spans.filter { categories[$0.name] == .communication }.map { $0.start..<max($0.start, $0.end) })
        /// A stretch in which nothing else runs.
        func leave(_ range: Range<UInt64>, to category: Category) {
            let communicating = links.take(range)
            nanoseconds[.communication, default: 0] += communicating
            nanoseconds[category, default: 0] += UInt64(range.count) - communicating
        }
        // Up to where the stretch is accounted for.
        var covered = trace.start
        for span in trace.spans where span.start < trace.end && span.end > trace.start {
            if categories[span.name] == .communication { continue }
            let start = max(span.start, trace.start), end = min(span.end, trace.end)
            if start > covered {
                // What is unknown of a launch counts for the device.
                let launched = min(max(span.launched ?? covered, covered), start)
                leave(covered..<launched, to: .host)
                leave(launched..<start, to: .gaps)
                covered = start
            }
            if end > covered {
                nanoseconds[categories[span.name], default: 0] += end - covered
                covered = end
            }
        }
        if trace.end > covered { leave(covered..<trace.end, to: .host) }
        totalSeconds = Double(trace.end - trace.start) * 1e-9
        seconds = nanoseconds.mapValues { Double($0) * 1e-9 }
        kernels = trace.names.indices.filter { counts[$0] > 0 }.map { index in
            Kernel(
                name: trace.names[index], category: categories[index], count: counts[index],
                seconds: Double(durations[index]) * 1e-9)
        }.sorted { ($0.seconds, $1.name) > ($1.seconds, $0.name) }
        droppedRecords = trace.dropped
    }

    /// By the names that cuBLAS, CUTLASS, flash attention, cuDNN and our own kernels go by.
    static func category(_ name: String) -> Category {
        if name == DeviceTrace.copyName || name == DeviceTrace.fillName { return .copies }
        let lower = name.lowercased()
        if lower.contains("nccl") { return .communication }
        func has(_ parts: [String]) -> Bool { parts.contains { lower.contains($0) } }
        // Flash attention's names hold "cutlass", and cuDNN's attention "gemm": attention is asked for first.
        if has(["flash", "fmha", "attention", "sdpa", "attn", "paged_", "merge_splits"]) { return .attention }
        let products = ["gemm", "gemv", "nvjet", "cutlass", "cublas", "splitk", "xmma", "matmul", "quantized"]
        if has(products) || lower == "dequantize" || lower == "join_pieces" { return .gemm }
        return .other
    }
}

/// Stretches of time, asked about from first to last.
private struct CoveredTime {
    private var ranges: [Range<UInt64>] = []
    private var next = 0

    init(_ all: [Range<UInt64>]) {
        for range in all.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if let last = ranges.last, range.lowerBound <= last.upperBound {
                ranges[ranges.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                ranges.append(range)
            }
        }
    }

    /// How much of `range`, which begins after the one before, is covered.
    mutating func take(_ range: Range<UInt64>) -> UInt64 {
        while next < ranges.count, ranges[next].upperBound <= range.lowerBound { next += 1 }
        var sum: UInt64 = 0
        for covered in ranges[next...].prefix(while: { $0.lowerBound < range.upperBound }) {
            sum += UInt64(covered.clamped(to: range).count)
        }
        return sum
    }
}

internal import CTorch

/// What ran on the CUDA devices between two moments, kernel by kernel, those of replayed graphs too.
///
/// Times are nanoseconds of one clock. Recording slows launches a little; the kernels' own times are real.
public struct DeviceTrace: Sendable {
    /// One kernel, or a copy or fill of memory.
    public struct Span: Sendable, Hashable {
        public var start, end: UInt64
        /// Index into ``names``.
        public var name: Int
        /// When the call that launched it returned; nil where no such call was recorded.
        public var launched: UInt64?

        public init(start: UInt64, end: UInt64, name: Int, launched: UInt64?) {
            self.start = start
            self.end = end
            self.name = name
            self.launched = launched
        }
    }

    public static let copyName = "copy of memory", fillName = "fill of memory"

    /// From when until when it was recorded.
    public var start, end: UInt64
    /// In the order of their starts.
    public var spans: [Span]
    public var names: [String]
    /// Records that were lost; the rest is then too little.
    public var dropped: Int

    public init(start: UInt64, end: UInt64, spans: [Span], names: [String], dropped: Int = 0) {
        self.start = start
        self.end = end
        self.spans = spans
        self.names = names
        self.dropped = dropped
    }

    /// Starts recording; kernels of graphs that were captured before may not be seen.
    /// - Throws: ``TorchError`` where CUPTI is not there or refuses.
    public static func start() throws(TorchError) { try check("DeviceTrace.start") { ct_trace_start($0) } }

    /// Forgets what was recorded and goes on. The devices must be idle.
    public static func clear() throws(TorchError) { try check("DeviceTrace.clear") { ct_trace_clear($0) } }

    /// Stops recording. The devices must be idle.
    public static func stop() throws(TorchError) -> DeviceTrace {
        var raw = ct_trace()
        try check("DeviceTrace.stop") { ct_trace_stop(&raw, $0) }
        var launches: [UInt32: UInt64] = [:]
        for call in UnsafeBufferPointer(start: raw.calls, count: raw.call_count) {
            launches[call.correlation] = max(call.end, launches[call.correlation] ?? 0)
        }
        var trace = DeviceTrace(
            start: raw.start, end: raw.end, spans: [], names: [copyName, fillName], dropped: Int(raw.dropped))
        trace.spans.reserveCapacity(raw.span_count)
        var indices: [Int32: Int] = [-1: 0, -2: 1]
        for span in UnsafeBufferPointer(start: raw.spans, count: raw.span_count) {
            let index: Int
            if let known = indices[span.name] {
                index = known
            } else {
                index = trace.names.count
                trace.names.append(try name(span.name))
                indices[span.name] = index
            }
            trace.spans.append(
                Span(start: span.start, end: span.end, name: index, launched: launches[span.correlation]))
        }
        trace.spans.sort { ($0.start, $0.end) < ($1.start, $1.end) }
        return trace
    }

    private static func name(_ index: Int32) throws(TorchError) -> String {
        var text: ct_message?
        try check("DeviceTrace name") { ct_trace_name(index, &text, $0) }
        defer { text.map { ct_string_free($0) } }
        return text.map { String(cString: $0) } ?? ""
    }
}

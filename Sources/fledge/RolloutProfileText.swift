import Telemetry
import Workers

/// Where a case's time went, for people and for programs.
enum RolloutProfileText {
    /// How many kernels the table names.
    private static let kernelsShown = 15

    static func write(_ profile: RolloutProfile, to object: inout JSONWriter) {
        object.field("steps", profile.steps)
        switch profile.detail {
        case .phases(let prefill, let decode):
            object.field("prefill_seconds", BenchReport.rounded(prefill))
            object.field("decode_seconds", BenchReport.rounded(decode))
        case .device(let breakdown):
            object.field("seconds", BenchReport.rounded(breakdown.totalSeconds, 1e6))
            object.field("dropped_records", breakdown.droppedRecords)
            object.key("categories")
            object.array { list in
                for category in TimeBreakdown.Category.allCases {
                    list.object { entry in
                        entry.field("name", category.rawValue)
                        entry.field("seconds", BenchReport.rounded(breakdown.seconds[category] ?? 0, 1e6))
                        entry.field("share", BenchReport.rounded(breakdown.share(category)))
                        entry.field("step_us", BenchReport.rounded(perStep(breakdown, category, profile), 10))
                        if let limit = limit(category, profile) {
                            entry.field("limit_step_us", BenchReport.rounded(limit, 10))
                        }
                    }
                }
            }
            TimeBreakdownText.writeKernels(breakdown, kernelsShown, to: &object)
        }
    }

    private static func perStep(
        _ breakdown: TimeBreakdown, _ category: TimeBreakdown.Category, _ profile: RolloutProfile
    ) -> Double { (breakdown.seconds[category] ?? 0) * 1e6 / Double(max(1, profile.steps)) }

    /// The least microseconds a step of a category that the limit knows.
    private static func limit(_ category: TimeBreakdown.Category, _ profile: RolloutProfile) -> Double? {
        let steps = Double(max(1, profile.steps))
        switch category {
        case .gemm: return profile.limit.products * 1e6 / steps
        case .attention: return profile.limit.attention * 1e6 / steps
        default: return nil
        }
    }

    static func lines(_ profile: RolloutProfile, of one: RolloutBenchmark.Measurement) -> [String] {
        func number(_ value: Double, _ digits: Int = 1) -> String { TextTable.number(value, digits) }
        let breakdown: TimeBreakdown
        switch profile.detail {
        case .phases(let prefill, let decode):
            let all = prefill + decode
            return [
                "\(one.work): prefill \(number(prefill, 3)) s (\(number(100 * prefill / all)) %), "
                    + "\(profile.steps) steps \(number(decode, 3)) s (\(number(100 * decode / all)) %)"
            ]
        case .device(let found): breakdown = found
        }
        var lines = [
            "\(one.work), traced: \(number(breakdown.totalSeconds * 1e3, 2)) ms, \(profile.steps) decode steps"
                + (breakdown.droppedRecords > 0 ? "; \(breakdown.droppedRecords) records were lost" : "")
        ]
        var table = TextTable(["", "ms", "share", "µs a step", "limit"])
        for category in TimeBreakdown.Category.allCases {
            table.add([
                category.rawValue, number((breakdown.seconds[category] ?? 0) * 1e3, 2),
                number(breakdown.share(category) * 100) + " %", number(perStep(breakdown, category, profile)),
                limit(category, profile).map { number($0) } ?? "",
            ])
        }
        lines += table.lines
        var kernels = TextTable(["kernel", "", "count", "mean µs", "ms", "share"])
        for kernel in breakdown.kernels.prefix(kernelsShown) {
            kernels.add([
                shortened(kernel.name), kernel.category.rawValue, "\(kernel.count)",
                number(kernel.meanSeconds * 1e6, 2), number(kernel.seconds * 1e3, 2),
                number(kernel.seconds / breakdown.totalSeconds * 100) + " %",
            ])
        }
        return lines + [""] + kernels.lines
    }

    /// A kernel's name without what every name has, as far as a line holds.
    static func shortened(_ name: String) -> String {
        var name = name
        for noise in ["void ", "(anonymous namespace)::", "at::native::", "at_cuda_detail::", "c10::"] {
            name = name.split(separator: noise, omittingEmptySubsequences: false).joined()
        }
        return name.count <= 72 ? name : name.prefix(71) + "…"
    }
}

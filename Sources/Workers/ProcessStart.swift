import Foundation

/// When this process was started, by the kernel's account.
enum ProcessStart {
    /// From field 22 of /proc/self/stat, in clock ticks since boot; `ContinuousClock` counts from boot too. Where that cannot
    /// be read, the first use of this value.
    static let instant: ContinuousClock.Instant = {
        let now = ContinuousClock.now
        guard let stat = try? String(contentsOfFile: "/proc/self/stat", encoding: .utf8),
            let uptimeText = try? String(contentsOfFile: "/proc/uptime", encoding: .utf8),
            let uptime = uptimeText.split(separator: " ").first.flatMap({ Double($0) }),
            // The process's name, in parentheses, may hold spaces.
            let end = stat.lastIndex(of: ")")
        else { return now }
        let fields = stat[stat.index(after: end)...].split(separator: " ")
        guard fields.count > 19, let ticks = Double(fields[19]) else { return now }
        let age = uptime - ticks / Double(sysconf(Int32(_SC_CLK_TCK)))
        return now - .milliseconds(Int(max(0, age) * 1000))
    }()
}

/// One line of the list of runs.
public struct RunListing: Hashable, Sendable {
    public var name: String
    public var status: RunStatus?
    public var steps: Int
    public var totalSteps: Int?
    public var lastReward: Double?
    /// Since the run last wrote something.
    public var ageSeconds: Double
    /// Why the run's files could not be read, when they could not.
    public var problem: String?

    /// The runs directly under a folder, the last written first. A run whose files are damaged is listed with its
    /// problem.
    /// - Parameter now: the time in seconds since 1970.
    /// - Throws: `TelemetryError` when the folder cannot be listed.
    public static func list(
        in folder: String, now: Double = SystemFacts.secondsSince1970()
    ) throws(TelemetryError) -> [RunListing] {
        var listings: [RunListing] = []
        for name in try Folder.names(folder) {
            let run = RunFolder(folder + "/" + name)
            guard Folder.exists(run.path), run.holdsRun else { continue }
            listings.append(RunListing(run, now: now))
        }
        return listings.sorted { $0.ageSeconds < $1.ageSeconds }
    }

    init(_ run: RunFolder, now: Double) {
        name = run.name
        steps = 0
        ageSeconds = max(0, now - (run.lastWritten ?? now))
        do throws(TelemetryError) {
            let summary = try run.readSummary()
            status = summary?.status
            totalSteps = summary?.totalSteps
            let history = try MetricsHistory(reading: run.metrics)
            steps = max(summary?.steps ?? 0, history.steps.last?.step ?? 0)
            lastReward = history.score.values.last
        } catch {
            problem = error.description
        }
    }

    /// The list as aligned rows under a head.
    public static func rows(_ listings: [RunListing], traits: TerminalTraits) -> [String] {
        let head = ["name", "status", "steps", "reward", "written"]
        let cells = listings.map { listing in
            [
                TerminalText.harmless(listing.name),
                listing.problem == nil ? TerminalText.harmless(listing.status?.name ?? "-") : "damaged",
                listing.totalSteps.map { "\(listing.steps)/\($0)" } ?? "\(listing.steps)",
                listing.lastReward.map { NumberText.short($0) } ?? "-",
                NumberText.duration(listing.ageSeconds) + " ago",
            ]
        }
        let widths = head.indices.map { column in
            ([head] + cells).map { TerminalText.width($0[column]) }.max() ?? 0
        }
        func row(_ cells: [String], _ style: TerminalStyle, note: String?) -> String {
            var line = StyledLine(zip(cells, widths).map(TerminalText.padded).joined(separator: "  "), style)
            if let note { line.append("  " + TerminalText.harmless(note), .red) }
            return line.rendered(width: max(40, traits.width()), traits)
        }
        return [row(head, .faint, note: nil)]
            + zip(cells, listings).map { row($0, .plain, note: $1.problem) }
    }
}

internal import CTorch

/// Where the ranks of a host show one another what they do: memory that all of them map, so that it can be read whatever has become
/// of a process.
public final class RankBoard: @unchecked Sendable {
    let raw: ct_board

    private init(raw: ct_board) { self.raw = raw }
    deinit { ct_board_free(raw) }

    /// For ranks that are threads of this process.
    public static func local(ranks: Int) throws(TorchError) -> RankBoard {
        try made("a board") { ct_board_create(nil, Int32(ranks), $0, $1) }
    }

    /// In a new file; once all have it open, it can be removed.
    public static func create(at path: String, ranks: Int) throws(TorchError) -> RankBoard {
        try made("the board") { ct_board_create(path, Int32(ranks), $0, $1) }
    }

    public static func open(_ path: String, ranks: Int) throws(TorchError) -> RankBoard {
        try made("the board") { ct_board_open(path, Int32(ranks), $0, $1) }
    }

    // MARK: - Ranks on several hosts

    /// Says where a rank runs, before any starts. One that is `elsewhere` is known by its host's reports only.
    public func place(_ rank: Int, node: String, elsewhere: Bool) throws(TorchError) {
        try check("rank \(rank)") { ct_board_place(raw, Int32(rank), node, elsewhere, $0) }
    }

    /// What other hosts must know of a rank of this one; see ``take(_:of:)``.
    public func report(_ rank: Int) throws(TorchError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(CT_BOARD_REPORT)), count = 0
        try check("report of rank \(rank)") { ct_board_report(raw, Int32(rank), &bytes, bytes.count, &count, $0) }
        return Array(bytes[..<count])
    }

    /// Takes another host's report of a rank of its own.
    /// - Throws: ``TorchError`` where it is none; nothing is changed then.
    public func take(_ report: [UInt8], of rank: Int) throws(TorchError) {
        try check("report of rank \(rank)") { ct_board_take(raw, Int32(rank), report, report.count, $0) }
    }

    /// A rank of another host is gone without a last word: it counts as dead.
    public func lose(_ rank: Int) throws(TorchError) {
        try check("rank \(rank)") { ct_board_lose(raw, Int32(rank), $0) }
    }

    /// Nothing can be heard of a rank of another host, through no fault of its own: it does not count as lifeless.
    public func keep(_ rank: Int) throws(TorchError) {
        try check("rank \(rank)") { ct_board_keep(raw, Int32(rank), $0) }
    }

    /// Whether a rank works and has shown life within the time, or has not started; whether it has said that it ends.
    public func facts(_ rank: Int, within time: Duration) throws(TorchError) -> (isAlive: Bool, hasEnded: Bool) {
        var isAlive = false, hasEnded = false
        try check("rank \(rank)") { ct_board_facts(raw, Int32(rank), time.milliseconds, &isAlive, &hasEnded, $0) }
        return (isAlive, hasEnded)
    }

    private static func made(
        _ what: String, _ call: (UnsafeMutablePointer<ct_board?>, UnsafeMutablePointer<ct_message?>) -> Int32
    ) throws(TorchError) -> RankBoard {
        var raw: ct_board?
        try check(what) { call(&raw, $0) }
        guard let raw else { preconditionFailure("a board without a handle") }
        return RankBoard(raw: raw)
    }
}

/// Publishes what this rank does, and sees which of the others is late or dead. A thread of its own looks a few times a second.
///
/// When one is, the groups under this watch end: whoever waits in them, or uses them next, gets an error of code ``TorchError/Code/rank``
/// that says which operation of which group it was, at which step and phase, which ranks are missing, and what each did last. A rank
/// is *late* when an operation waits for it and it has done nothing (begun or ended no operation, entered no phase, and called
/// ``tick()`` no time) for the deadline, or when its process shows no life for as long. A rank is *dead* when its process is gone.
/// Safe to use from any thread.
public final class RankWatch: @unchecked Sendable {
    let raw: ct_watch
    public let rank: Int
    public let deadline: Duration

    /// - Parameters:
    ///   - exitsAfter: a process that has not ended so long after trouble was found is ended with `exitCode`, having said why on
    ///     standard error: it may be waiting for something that no error reaches. nil: it never is.
    public init(
        _ board: RankBoard, rank: Int, deadline: Duration, exitsAfter: Duration? = nil, exitCode: Int32 = 1
    ) throws(TorchError) {
        var raw: ct_watch?
        try check("watch of rank \(rank)") {
            ct_watch_start(
                board.raw, Int32(rank), deadline.milliseconds, exitsAfter?.milliseconds ?? 0, exitCode, &raw, $0)
        }
        guard let raw else { preconditionFailure("a watch without a handle") }
        self.raw = raw
        self.rank = rank
        self.deadline = deadline
    }

    deinit { ct_watch_free(raw) }

    /// Says where this rank is. The step counts from 1; less than 0: before the first.
    public func enter(step: Int, phase: String, unit: String = "") { ct_watch_progress(raw, Int64(step), phase, unit) }

    /// Says that something was done, where no operation and no phase shows it. Costs nanoseconds.
    public func tick() { ct_watch_tick(raw) }

    /// How long this rank has done nothing; zero while an operation of its own is under way.
    public var idle: Duration { .milliseconds(ct_watch_idle_ms(raw)) }

    /// Throws what was found, if anything was. To be called before anything lasting is done: on a GPU, results after another
    /// rank's death are not real.
    public func verify() throws(TorchError) { try check("rank \(rank)") { ct_watch_check(raw, $0) } }

    /// Says that this rank ends, well or because of `failure`, so that the others need not guess.
    public func leave(failure: String? = nil) { ct_watch_leave(raw, failure) }

    /// What another rank did last.
    public func describe(_ rank: Int) throws(TorchError) -> String {
        var text: UnsafeMutablePointer<CChar>?
        try check("rank \(rank)") { ct_watch_describe(raw, Int32(rank), &text, $0) }
        guard let text else { return "" }
        defer { ct_string_free(text) }
        return String(cString: text)
    }
}

/// How a watch looks at one group.
public struct GroupWatch {
    public var watch: RankWatch
    /// The group's ranks in the board's numbers; nil: 0, 1, 2, …
    public var ranks: [Int]?
    /// Whether ranks may be idle in the group's operations as long as all are alive.
    public var isPatient: Bool

    public init(_ watch: RankWatch, ranks: [Int]? = nil, isPatient: Bool = false) {
        self.watch = watch
        self.ranks = ranks
        self.isPatient = isPatient
    }
}

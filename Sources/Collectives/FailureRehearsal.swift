#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A failure acted out, to see that a run ends and resumes as it should: when a rank enters a phase of a step, its process is killed
/// or stopped, or the weights that it gets are spoiled.
public struct FailureRehearsal: Sendable, Hashable {
    public enum Kind: String, Sendable {
        case kill, stop
        /// A bit of the weights that arrive is another: see ``spoils(rank:at:)``.
        case spoil
    }
    public var kind: Kind
    public var rank: Int
    public var step: Int
    public var phase: String

    /// The environment's variable that asks for one.
    public static let variable = "FLEDGE_REHEARSE"

    /// `kill:1:3:update`: the kind, the rank, the step, the phase. nil for anything else.
    public init?(_ text: String) {
        let parts = text.split(separator: ":", maxSplits: 3)
        guard parts.count == 4, let kind = Kind(rawValue: String(parts[0])), let rank = Int(parts[1]),
            let step = Int(parts[2])
        else { return nil }
        self.kind = kind
        self.rank = rank
        self.step = step
        phase = String(parts[3])
    }

    /// Whether what `rank` gets now is to be spoiled.
    public func spoils(rank: Int, at place: RankProgress.Place) -> Bool { kind == .spoil && isFor(rank, place) }

    private func isFor(_ rank: Int, _ place: RankProgress.Place) -> Bool {
        rank == self.rank && place.step == step && place.phase == phase
    }

    func act(rank: Int, at place: RankProgress.Place) {
        guard kind != .spoil, isFor(rank, place) else { return }
        // To this thread: it goes no further, whichever thread would take a signal to the process.
        _ = Glibc.raise(kind == .kill ? SIGKILL : SIGSTOP)
    }
}

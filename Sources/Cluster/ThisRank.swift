internal import CProcess

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension RankEnvironment {
    /// Makes the kernel kill this process when its ``Launcher`` dies, also when it stands still. To be called first thing.
    public func dieWithLauncher() {
        guard let launcher, fledge_die_with_parent() == 0 else { return }
        // It may have died before.
        if getppid() != launcher { _exit(RankExit.lostOther) }
    }

    /// Keeps the signals that end a run away from this rank: rank 0 heeds them for all.
    public func leaveSignalsToRankZero() {
        if rank == 0 { return }
        _ = signal(SIGINT, SIG_IGN)
        _ = signal(SIGTERM, SIG_IGN)
    }
}

extension RankEnvironment {
    /// The same for a worker that is no rank, where its environment names who started it.
    public static func dieWithStarter(_ variables: [String: String]) {
        guard let starter = variables[Names.launcher].flatMap(Int32.init), fledge_die_with_parent() == 0 else { return }
        if getppid() != starter { _exit(RankExit.lostOther) }
    }
}

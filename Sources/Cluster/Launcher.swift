import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Starts the ranks of a run on this host, one process each, and sees them through: their lines come out with the rank's number
/// before them, the first death ends the others, and none outlives this process.
public final class Launcher: Sendable {
    public struct Plan: Sendable {
        public var count: Int
        public var executable: String
        /// After the program's name.
        public var arguments: [String]
        public var environment: [String: String]
        /// How long the others may take to end by themselves after the first one failed.
        public var grace: Duration = .seconds(10)
        /// What to say after a rank was lost.
        public var remedy = ""
        /// A rank whose standard output comes out as it is: results, which others may read.
        public var speaker: Int?
        /// Exit codes with which a rank has said itself why it ends.
        public var explained: Set<Int32> = [1, 2]

        public init(count: Int, executable: String, arguments: [String], environment: [String: String]) {
            self.count = count
            self.executable = executable
            self.arguments = arguments
            self.environment = environment
        }
    }

    /// Standard output or error.
    public enum Stream: Sendable { case output, errors }

    public let plan: Plan
    /// Takes whole lines, without their ends, on the launcher's thread.
    private let write: @Sendable (Stream, String) -> Void
    private let asked = Mutex<[Int32]>([])

    /// - Parameter write: where the ranks' lines go.
    public init(_ plan: Plan, write: @escaping @Sendable (Stream, String) -> Void) {
        self.plan = plan
        self.write = write
    }

    /// Passes a signal on to rank 0, which ends the run in good order.
    public func forward(_ signal: Int32) { asked.withLock { $0.append(signal) } }

    /// Starts all ranks and waits for their ends.
    /// - Returns: 0, or the exit code of the first rank that failed by itself, or ``RankExit/lostOther``.
    /// - Throws: ``ClusterError`` with code `system` when a rank cannot be started; none is left then.
    public func run() async throws -> Int32 {
        try await withCheckedThrowingContinuation { continuation in
            // The kernel kills the ranks when the thread that started them ends: one that does nothing else.
            let thread = Thread {
                let result = Result { try self.supervise() }
                continuation.resume(with: result)
            }
            thread.stackSize = 1 << 20
            thread.start()
        }
    }

    private func supervise() throws -> Int32 {
        let socket = try ListeningSocket(host: "127.0.0.1")
        var ranks: [RankProcess] = []
        do {
            for rank in 0..<plan.count {
                var place = RankEnvironment(
                    rank: rank, size: plan.count, localRank: rank, host: "127.0.0.1", port: socket.port,
                    launcher: getpid())
                if rank == 0 { place.storeSocket = RankProcess.inheritedSocket }
                ranks.append(try RankProcess(place, plan, socket: rank == 0 ? socket.descriptor : nil))
            }
        } catch {
            for rank in ranks { rank.kill() }
            for rank in ranks { rank.reap() }
            throw error
        }
        socket.close()
        return watch(ranks)
    }

    private func watch(_ ranks: [RankProcess]) -> Int32 {
        let start = ContinuousClock.now
        var exits: [RankExit] = []
        var end: ContinuousClock.Instant?
        while exits.count < ranks.count {
            RankOutput.wait(ranks.flatMap(\.outputs), milliseconds: 50)
            relay(ranks)
            for signal in asked.withLock({ signals in
                defer { signals = [] }
                return signals
            }) { ranks[0].send(signal) }
            for rank in ranks {
                guard let exit = rank.checkExit() else { continue }
                exits.append(exit)
                guard !exit.isSuccess, end == nil else { continue }
                end = ContinuousClock.now + plan.grace
                // What ended because of another rank says so itself, and what was interrupted needs no comment.
                if exit != .exited(RankExit.lostOther), exit != .exited(130), ranks.count > 1 {
                    relay(ranks)
                    report(rank, exit, after: ContinuousClock.now - start)
                }
            }
            guard let limit = end else { continue }
            let isLate = ContinuousClock.now > limit
            for rank in ranks where rank.isRunning && (isLate || rank.isStopped) {
                write(
                    .errors,
                    "rank \(rank.number) (process \(rank.process)) \(isLate ? "does not end" : "stands still"), and is killed"
                )
                rank.kill()
            }
            if isLate { end = .now + plan.grace }
        }
        // What they started and left behind, and their last words.
        for rank in ranks { rank.kill() }
        RankOutput.wait(ranks.flatMap(\.outputs), milliseconds: 50)
        relay(ranks)
        for rank in ranks { for output in rank.outputs { flush(output, rank) } }
        let code = exitCode(of: exits)
        if code == RankExit.lostOther, !plan.remedy.isEmpty { write(.errors, plan.remedy) }
        return code
    }

    private func report(_ rank: RankProcess, _ exit: RankExit, after time: Duration) {
        let seconds = Int(time / .seconds(1))
        write(
            .errors,
            "rank \(rank.number) (process \(rank.process)) \(exit), \(seconds) s after the start; the others are ended")
        if case .exited(let code) = exit, plan.explained.contains(code) { return }
        let tail = rank.lastErrors
        if !tail.isEmpty { write(.errors, "the last it wrote to standard error:") }
        for line in tail { write(.errors, "  " + line) }
    }

    private func relay(_ ranks: [RankProcess]) {
        for rank in ranks {
            for output in rank.outputs {
                for line in output.lines() { say(line, output, rank) }
            }
        }
    }

    private func flush(_ output: RankOutput, _ rank: RankProcess) {
        if let line = output.rest() { say(line, output, rank) }
    }

    private func say(_ line: String, _ output: RankOutput, _ rank: RankProcess) {
        let isBare = output.stream == .output && rank.number == plan.speaker
        write(output.stream, isBare ? line : "[rank \(rank.number)] \(line)")
    }
}

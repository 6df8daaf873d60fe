@testable import Cluster
import Foundation
import Synchronization
import Testing

/// What the ranks' lines were.
private final class Lines: Sendable {
    private let all = Mutex<[String]>([])
    func add(_ stream: Launcher.Stream, _ line: String) {
        all.withLock { $0.append((stream == .output ? "1 " : "2 ") + line) }
    }
    var sorted: [String] { all.withLock { $0.sorted() } }
    var text: String { all.withLock { $0.joined(separator: "\n") } }
}

@Suite struct LauncherTests {
    private func run(
        _ count: Int, _ script: String, grace: Duration = .seconds(20),
        onStart: @Sendable (Launcher, Lines) -> Void = { _, _ in }
    ) async throws -> (code: Int32, lines: Lines) {
        var plan = Launcher.Plan(
            count: count, executable: "/bin/sh", arguments: ["-c", script],
            environment: ["PATH": "/usr/bin:/bin", "KEPT": "yes"])
        plan.grace = grace
        plan.remedy = "start it again"
        let lines = Lines()
        let launcher = Launcher(plan) { lines.add($0, $1) }
        onStart(launcher, lines)
        return (try await launcher.run(), lines)
    }

    @Test func ranksKnowTheirPlaceAndTheirLinesAreMarked() async throws {
        let (code, lines) = try await run(
            3,
            "echo \"$RANK $WORLD_SIZE $LOCAL_RANK $MASTER_ADDR $KEPT ${FLEDGE_STORE_SOCKET:-none}\" >&2; printf end >&2"
        )
        #expect(code == 0)
        #expect(
            lines.sorted == [
                "2 [rank 0] 0 3 0 127.0.0.1 yes 3", "2 [rank 0] end", "2 [rank 1] 1 3 1 127.0.0.1 yes none",
                "2 [rank 1] end", "2 [rank 2] 2 3 2 127.0.0.1 yes none", "2 [rank 2] end",
            ])
    }

    @Test func rankZeroInheritsTheListeningSocket() async throws {
        let (code, lines) = try await run(2, "[ $RANK = 1 ] || { [ -S /proc/$$/fd/3 ] && echo listens >&2; }")
        #expect(code == 0)
        #expect(lines.text == "2 [rank 0] listens")
    }

    @Test func aRankThatFailsIsNamedAndEndsTheOthers() async throws {
        let (code, lines) = try await run(
            3, "if [ $RANK = 1 ]; then echo no luck >&2; exit 4; else trap '' TERM INT; sleep 100; fi",
            grace: .milliseconds(200))
        #expect(code == 4)
        #expect(lines.text.contains("rank 1 (process "))
        #expect(lines.text.contains(") ended with exit code 4"))
        #expect(lines.text.contains("  no luck"))
        #expect(lines.text.contains("rank 0 (process ") && lines.text.contains("does not end, and is killed"))
    }

    @Test func aRankThatIsKilledIsNamedAndCountsAsLost() async throws {
        let (code, lines) = try await run(2, "if [ $RANK = 1 ]; then kill -9 $$; else exit 75; fi")
        #expect(code == RankExit.lostOther)
        #expect(lines.text.contains("was killed by SIGKILL") || !lines.text.contains("rank 1 (process"))
        #expect(lines.text.hasSuffix("start it again"))
    }

    @Test func aStoppedRankIsKilledOnceAnotherHasGivenUp() async throws {
        // Well before the others' time is over.
        let start = ContinuousClock.now
        let (code, lines) = try await run(
            2, "if [ $RANK = 1 ]; then kill -STOP $$; else sleep 0.2; exit 75; fi", grace: .seconds(1000))
        #expect(code == RankExit.lostOther)
        #expect(lines.text.contains("rank 1 (process ") && lines.text.contains("stands still, and is killed"))
        #expect(ContinuousClock.now - start < .seconds(900))
    }

    @Test func signalsGoToRankZero() async throws {
        let (code, lines) = try await run(
            2,
            "trap 'echo heard >&2; exit 130' INT; echo ready >&2; n=0; while [ $RANK = 0 ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done"
        ) { launcher, lines in
            Thread.detachNewThread {
                // A shell that has set no trap yet would die of it.
                while !lines.text.contains("[rank 0] ready") { Thread.sleep(forTimeInterval: 0.02) }
                launcher.forward(SIGINT)
            }
        }
        #expect(code == 130)
        #expect(lines.text.contains("[rank 0] heard"))
    }

    @Test func whatARankLeavesBehindIsEndedToo() async throws {
        let file = FileManager.default.temporaryDirectory.appending(path: "left-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: file) }
        let (code, _) = try await run(1, "sleep 1000 >/dev/null 2>&1 & echo $! > \(file)")
        #expect(code == 0)
        let process = try #require(Int32(String(contentsOfFile: file, encoding: .utf8).filter(\.isNumber)))
        let status = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ""
        #expect(status.isEmpty || status.contains(") Z") || status.contains(") X"), "\(status)")
    }

    @Test func whatCannotBeStartedIsAnError() async throws {
        let plan = Launcher.Plan(count: 2, executable: "/no/such/program", arguments: [], environment: [:])
        await #expect(throws: ClusterError.self) { try await Launcher(plan) { _, _ in }.run() }
    }
}

@Suite struct RankEnvironmentTests {
    @Test func aGangsPlaceComesThroughTheEnvironment() throws {
        var place = RankEnvironment(rank: 5, size: 9, localRank: 5, host: "127.0.0.1", port: 4000)
        place.gang = [0, 1, 4, 5, 6, 8]
        place.linkPort = 4001
        #expect(place.variables["FLEDGE_GANG"] == "0-1,4-6,8")
        let found = try RankEnvironment.given(place.variables)
        #expect(found?.gang == place.gang && found?.linkPort == 4001)
        #expect(found?.placeInGang == 3 && found?.gangSize == 6)
        let alone = try RankEnvironment.given(place.variables.filter { $0.key != "FLEDGE_GANG" })
        #expect(alone?.gang == nil && alone?.placeInGang == 5 && alone?.gangSize == 9)
    }

    @Test(arguments: ["", "0-4", "5-9", "x", "5,4", "5-4", "5--6", "4,,5", "-5", "5-99999999999"])
    func aGangWithoutThisRankIsRefused(text: String) {
        var variables = RankEnvironment(rank: 5, size: 9, localRank: 5, host: "127.0.0.1", port: 4000).variables
        variables["FLEDGE_GANG"] = text
        variables["FLEDGE_LINK_PORT"] = "4001"
        #expect(throws: ClusterError.self) { try RankEnvironment.given(variables) }
    }

    @Test func placesOfSeveralLaunchersAreUnderstood() throws {
        let given = ["MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"]
        let torchrun = try RankEnvironment.given(
            given.merging(["RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"]) {
                $1
            })
        #expect(
            torchrun?.rank == 5 && torchrun?.size == 8 && torchrun?.localRank == 1 && torchrun?.hasForeignStore == true)
        #expect(torchrun?.host == "10.0.0.1" && torchrun?.port == 29500 && torchrun?.launcher == nil)
        let mpi = try RankEnvironment.given(
            given.merging([
                "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "3",
            ]) { $1 })
        #expect(mpi?.rank == 3 && mpi?.hasForeignStore == false)
        let slurm = ["SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1"]
        #expect(try RankEnvironment.given(slurm) == nil)
        #expect(try RankEnvironment.given(given.merging(slurm) { $1 })?.rank == 1)
        #expect(try RankEnvironment.given([:]) == nil)
        #expect(try RankEnvironment.given(["RANK": "0", "WORLD_SIZE": "1"]) == nil)
    }

    @Test(arguments: [
        ["RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"],
        ["RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "h", "MASTER_PORT": "1"],
        ["RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "h", "MASTER_PORT": "1"],
        ["RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"],
        ["RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "h", "MASTER_PORT": "70000"],
    ])
    func incompletePlacesAreRefused(variables: [String: String]) {
        #expect(throws: ClusterError.self) { try RankEnvironment.given(variables) }
    }
}

import Foundation
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    @Suite struct DiskFullTests {
        /// A disk of 96 MiB: room for the checkpoints, until a file takes it.
        @Test func fullDiskEndsTheRunAndKeepsTheEarlierCheckpoint() async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            try FileManager.default.createDirectory(atPath: workspace.run.path, withIntermediateDirectories: true)
            guard try await SmallDisk.mount(workspace.run.path, size: "96m") else {
                return SmallDisk.noteSkipped("fullDiskEndsTheRunAndKeepsTheEarlierCheckpoint")
            }
            do {
                try await fill(workspace, whole)
            } catch {
                _ = try await SmallDisk.unmount(workspace.run.path)
                throw error
            }
            #expect(try await SmallDisk.unmount(workspace.run.path))
        }

        private func fill(_ workspace: Workspace, _ whole: Uninterrupted.Result) async throws {
            // Full before the first checkpoint.
            try await expectFailure(workspace, keeping: [])

            // Full after the first one: a run is killed there, and goes on with less room.
            for _ in 1...40 where workspace.checkpoints() != ["step-000002"] {
                try clear(workspace)
                _ = try await workspace.train { process in
                    let isSaved = { workspace.checkpoints().contains("step-000002") }
                    if try await FledgeProcess.wait(process, until: isSaved) { Glibc.kill(process, SIGKILL) }
                }
            }
            try await expectFailure(workspace, keeping: ["step-000002"])

            let resumed = try await workspace.train()
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == whole.metrics)
        }

        private func expectFailure(_ workspace: Workspace, keeping kept: [String]) async throws {
            let filler = URL(fileURLWithPath: workspace.run.path + "/filler")
            try Data(count: 48 << 20).write(to: filler)
            let outcome = try await workspace.train()
            #expect(outcome.exitCode == 1, "\(outcome)")
            #expect(outcome.errors.contains("are needed") && outcome.errors.contains("are free"), "\(outcome)")
            #expect(workspace.checkpoints() == kept && workspace.checkpoints("tmp-").isEmpty)
            #expect(try workspace.run.readSummary()?.status == .failed)
            try FileManager.default.removeItem(at: filler)
        }

        /// The run's folder is where the disk is mounted, and stays.
        private func clear(_ workspace: Workspace) throws {
            for name in try FileManager.default.contentsOfDirectory(atPath: workspace.run.path) {
                try FileManager.default.removeItem(atPath: workspace.run.path + "/" + name)
            }
        }
    }
}

import Foundation
import Subprocess
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// A batch that was stopped in any way goes on to the same bytes as one that was not.
    @Suite struct BatchResumeTests {
        /// Prompts of many lengths, each with its own settings here and there; a small `--batch` makes many windows.
        private static let input = (0..<40).map { line in
            let own = line % 5 == 0 ? ", \"n\": 3" : line % 7 == 0 ? ", \"temperature\": 0.5, \"top_k\": 20" : ""
            return "{\"id\": \"q\(line)\", \"prompt\": \"\(String(repeating: "ab ", count: line % 9 + 1))\"\(own)}\n"
        }.joined()
        private static let options = [
            "--n", "2", "--temperature", "1", "--max-tokens", "24", "--seed", "9", "--logprobs", "--batch", "2",
        ]

        private func run(
            _ workspace: Workspace, _ more: [String], watch: @Sendable (pid_t) async throws -> Void = { _ in }
        ) async throws -> FledgeProcess.Outcome {
            try await FledgeProcess.run(
                ["generate", "--model", "model", "--device", "cpu", "--input", "in.jsonl", "--output", "out.jsonl"]
                    + Self.options + more, in: workspace.folder, watch: watch)
        }

        private func workspace() throws -> Workspace {
            let workspace = try Workspace()
            try workspace.write("in.jsonl", Self.input)
            return workspace
        }

        private static func output(_ workspace: Workspace) -> URL { workspace.folder.appending(path: "out.jsonl") }

        private static func bytes(_ workspace: Workspace) -> Data {
            FileManager.default.contents(atPath: output(workspace).path) ?? Data()
        }

        private static func lineCount(_ workspace: Workspace) -> Int {
            bytes(workspace).count { $0 == UInt8(ascii: "\n") }
        }

        /// What an undisturbed run writes in order; made once.
        private static let whole = Task {
            let tests = BatchResumeTests()
            let workspace = try tests.workspace()
            let outcome = try await tests.run(workspace, ["--ordered"])
            guard outcome.exitCode == 0 else { throw UnexpectedOutcome(outcome: outcome) }
            return bytes(workspace)
        }

        private func sorted(_ data: Data) -> [Data] {
            data.split(separator: UInt8(ascii: "\n")).map { Data($0) }.sorted { $0.lexicographicallyPrecedes($1) }
        }

        /// Runs until so many lines are written, and sends a signal; again from the start where the process was faster.
        private func interrupt(
            _ workspace: Workspace, _ more: [String], afterLines count: Int, signal: Int32 = SIGKILL
        ) async throws -> FledgeProcess.Outcome {
            for _ in 1..<20 {
                let outcome = try await interruptOnce(workspace, more, afterLines: count, signal: signal)
                if outcome.exitCode != 0 { return outcome }
                try FileManager.default.removeItem(at: Self.output(workspace))
            }
            return try await interruptOnce(workspace, more, afterLines: count, signal: signal)
        }

        private func interruptOnce(
            _ workspace: Workspace, _ more: [String], afterLines count: Int, signal: Int32
        ) async throws -> FledgeProcess.Outcome {
            try await run(workspace, more) { process in
                if try await FledgeProcess.wait(process, until: { Self.lineCount(workspace) >= count }) {
                    Glibc.kill(process, signal)
                }
            }
        }

        @Test(arguments: [1, 13, 30])
        func killedOrderedBatchGoesOnToTheSameBytes(afterLines count: Int) async throws {
            let whole = try await Self.whole.value
            let workspace = try workspace()
            let killed = try await interrupt(workspace, ["--ordered"], afterLines: count)
            #expect(killed.wasKilled, "\(killed)")
            let written = Self.bytes(workspace)
            #expect(written.count < whole.count && whole.starts(with: written))
            let resumed = try await run(workspace, ["--ordered"])
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(resumed.errors.contains("going on: "), "\(resumed)")
            #expect(Self.bytes(workspace) == whole)
            let again = try await run(workspace, ["--ordered"])
            #expect(again.exitCode == 0 && again.errors.contains("nothing was left to do"), "\(again)")
            #expect(Self.bytes(workspace) == whole)
        }

        @Test func killedUnorderedBatchHasTheSameLines() async throws {
            let whole = try await Self.whole.value
            let workspace = try workspace()
            for count in [5, 20] {
                #expect(try await interrupt(workspace, [], afterLines: count).wasKilled)
            }
            #expect(try await run(workspace, []).exitCode == 0)
            #expect(sorted(Self.bytes(workspace)) == sorted(whole))
        }

        /// Neither what else is in flight nor the order of work changes a line.
        @Test func theSizeOfTheBatchChangesNothing() async throws {
            let whole = try await Self.whole.value
            let workspace = try workspace()
            let outcome = try await run(workspace, ["--batch", "64"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            func told(_ data: Data) throws -> [[JSONValue?]] {
                try sorted(data).map { line in
                    let value = try JSONValue(parsing: Array(line), path: nil)
                    guard case .array(let samples)? = value["samples"] else { return [] }
                    return [value["id"], value["seed"]] + samples.map { $0["token_ids"] }
                }
            }
            #expect(try told(Self.bytes(workspace)) == told(whole))
        }

        /// Cut anywhere, as by a power cut.
        @Test(arguments: [1, 100, -1, -40])
        func aTornLastLineIsCutAndDoneAgain(_ cut: Int) async throws {
            let whole = try await Self.whole.value
            let workspace = try workspace()
            #expect(try await run(workspace, ["--ordered"]).exitCode == 0)
            try whole.prefix(cut < 0 ? whole.count + cut : cut).write(to: Self.output(workspace))
            let resumed = try await run(workspace, ["--ordered"])
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(resumed.errors.contains("cut a torn last line of"), "\(resumed)")
            #expect(Self.bytes(workspace) == whole)
        }

        @Test func interruptedBatchSaysHowToGoOn() async throws {
            let whole = try await Self.whole.value
            let workspace = try workspace()
            let stopped = try await interrupt(workspace, ["--ordered"], afterLines: 4, signal: SIGINT)
            #expect(stopped.exitCode == 130, "\(stopped)")
            #expect(stopped.errors.contains("the same command goes on from there"), "\(stopped)")
            let written = Self.bytes(workspace)
            #expect(written.count < whole.count && whole.starts(with: written) && written.last == UInt8(ascii: "\n"))
            #expect(try await run(workspace, ["--ordered"]).exitCode == 0)
            #expect(Self.bytes(workspace) == whole)
        }

        @Test func otherSettingsAreRefused() async throws {
            let workspace = try workspace()
            #expect(try await interrupt(workspace, ["--ordered"], afterLines: 4).wasKilled)
            let written = Self.bytes(workspace)
            func expectRefusal(_ more: [String], _ part: String) async throws {
                let outcome = try await run(workspace, more)
                #expect(outcome.exitCode == 2 && outcome.errors.contains(part), "\(part) is not in \(outcome)")
                #expect(outcome.errors.contains("out.jsonl.settings.json") && outcome.errors.contains("--overwrite"))
                #expect(Self.bytes(workspace) == written)
            }
            try await expectRefusal(["--ordered", "--temperature", "0.5"], "temperature was 1.0 and is 0.5")
            try await expectRefusal(["--ordered", "--seed", "10"], "seed was 9 and is 10")
            try await expectRefusal([], "ordered was true and is false")
            try workspace.write("in.jsonl", Self.input.replacing("q39", with: "q93"))
            try await expectRefusal(["--ordered"], "input_digest was ")
            try workspace.write("in.jsonl", Self.input)
            try FileManager.default.removeItem(at: workspace.model)
            try TinyModel(hidden: 16).write(to: workspace.model)
            try await expectRefusal(["--ordered"], "model_digest was ")
            let anew = try await run(workspace, ["--ordered", "--overwrite"])
            #expect(anew.exitCode == 0, "\(anew)")
            let whole = try await Self.whole.value
            #expect(Self.lineCount(workspace) == 40 && Self.bytes(workspace) != whole)
        }

        @Test func anOutputOfSomethingElseIsLeftAlone() async throws {
            let workspace = try workspace()
            let other = Data("{\"mine\": 1}\n".utf8)
            try other.write(to: Self.output(workspace))
            let outcome = try await run(workspace, [])
            #expect(outcome.exitCode == 2 && outcome.errors.contains("is there already"), "\(outcome)")
            #expect(Self.bytes(workspace) == other)

            // A line in the middle that is no line of the batch.
            try FileManager.default.removeItem(at: Self.output(workspace))
            #expect(try await interrupt(workspace, ["--ordered"], afterLines: 4).wasKilled)
            var damaged = Self.bytes(workspace)
            damaged.insert(contentsOf: other, at: try #require(damaged.firstIndex(of: UInt8(ascii: "\n"))) + 1)
            try damaged.write(to: Self.output(workspace))
            let refused = try await run(workspace, ["--ordered"])
            #expect(refused.exitCode == 2 && refused.errors.contains("out.jsonl:2: is no line"), "\(refused)")
            #expect(Self.bytes(workspace) == damaged)
        }

        /// A disk with room for some of the lines.
        @Test func aFullDiskLeavesWholeLines() async throws {
            let whole = try await Self.whole.value
            let workspace = try workspace()
            let disk = workspace.folder.appending(path: "disk").path
            try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: true)
            guard try await SmallDisk.mount(disk, size: "64k") else {
                return SmallDisk.noteSkipped("aFullDiskLeavesWholeLines")
            }
            do {
                try await fill(workspace, disk, whole)
            } catch {
                _ = try await SmallDisk.unmount(disk)
                throw error
            }
            #expect(try await SmallDisk.unmount(disk))
        }

        private func fill(_ workspace: Workspace, _ disk: String, _ whole: Data) async throws {
            func run() async throws -> FledgeProcess.Outcome {
                try await FledgeProcess.run(
                    ["generate", "--model", "model", "--device", "cpu", "--input", "in.jsonl", "--output"]
                        + ["disk/out.jsonl", "--ordered"] + Self.options, in: workspace.folder)
            }
            let output = { FileManager.default.contents(atPath: disk + "/out.jsonl") ?? Data() }
            try Data(count: 64 << 10 - 20_000).write(to: URL(fileURLWithPath: disk + "/filler"))
            let full = try await run()
            #expect(full.exitCode == 1, "\(full)")
            #expect(full.errors.contains("No space left on device"), "\(full)")
            #expect(full.errors.contains("of 40 lines are whole in 'disk/out.jsonl'"), "\(full)")
            let kept = output()
            #expect(!kept.isEmpty && kept.count < whole.count && whole.starts(with: kept))
            #expect(kept.last == UInt8(ascii: "\n"))
            try FileManager.default.removeItem(atPath: disk + "/filler")
            let resumed = try await run()
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(output() == whole)
        }
    }
}

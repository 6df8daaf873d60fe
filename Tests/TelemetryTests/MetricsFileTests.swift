import Foundation
import OrderedCollections
import Testing

@testable import Telemetry

@Suite struct MetricsFileTests {
    private func metrics(_ step: Int) -> StepMetrics {
        StepMetrics(
            step: step,
            values: [
                "actor/loss": Double(step) / 10, "time/step_s": 1.5, "perf/mfu": 0.3, "actor/kl": step == 2 ? .nan : 0,
            ])
    }

    private func write(_ steps: ClosedRange<Int>, to path: String) throws {
        let file = try MetricsFile(path)
        for step in steps { try file.write(metrics(step)) }
    }

    @Test func writesOneOrderedObjectALine() throws {
        let folder = try TemporaryFolder()
        let file = try MetricsFile(folder("m"), sync: .everyStep)
        try file.write(metrics(1))
        try file.write(metrics(2))
        try file.flush()
        #expect(
            try contents(folder("m")) == """
                {"step":1,"actor/loss":0.1,"time/step_s":1.5,"perf/mfu":0.3,"actor/kl":0.0}
                {"step":2,"actor/loss":0.2,"time/step_s":1.5,"perf/mfu":0.3,"actor/kl":"NaN"}

                """)
        #expect(file.notFiniteCount == 1)
        let history = try MetricsHistory(reading: folder("m"))
        #expect(history.steps[0] == metrics(1))
        #expect(history.series("actor/kl").values[1].isNaN)
    }

    @Test func reproducibleLinesLeaveTheClockOut() throws {
        let folder = try TemporaryFolder()
        try write(1...2, to: folder("m"))
        #expect(
            try MetricsHistory.reproducibleLines(of: folder("m")) == [
                #"{"step":1,"actor/loss":0.1,"actor/kl":0.0}"#, #"{"step":2,"actor/loss":0.2,"actor/kl":"NaN"}"#,
            ])
    }

    @Test func anAbsentFileIsAnEmptyHistory() throws {
        #expect(try MetricsHistory(reading: "/nonexistent/metrics.jsonl").steps.isEmpty)
    }

    /// A run killed at any byte and resumed from any earlier step writes the bytes of one that was never killed.
    @Test func resumesAfterBeingCutAtAnyByte() throws {
        let folder = try TemporaryFolder()
        try write(1...4, to: folder("whole"))
        let whole = try contents(folder("whole"))
        let lines = whole.split(separator: "\n").map { $0.utf8.count + 1 }
        for cut in 0...whole.utf8.count {
            try String(whole.utf8.prefix(cut))!.write(toFile: folder("cut"), atomically: false, encoding: .utf8)
            // The checkpoint is of the last step whose line is whole, or of one before.
            let complete = lines.indices.last { lines[...$0].reduce(0, +) <= cut }.map { $0 + 1 } ?? 0
            let resumed = max(0, complete - cut % 2)
            let file = try MetricsFile(folder("cut"))
            try file.truncate(afterStep: resumed)
            for step in resumed + 1..<5 { try file.write(metrics(step)) }
            #expect(try contents(folder("cut")) == whole, "cut at \(cut)")
        }
    }

    @Test func aTornLastLineMustBeTruncatedFirst() throws {
        let folder = try TemporaryFolder()
        try "{\"step\":1,\"a/b\":1.0}\n{\"step\":2,\"a/".write(toFile: folder("m"), atomically: false, encoding: .utf8)
        #expect(try MetricsHistory(reading: folder("m")).steps.count == 1)
        let file = try MetricsFile(folder("m"))
        #expect { try file.write(StepMetrics(step: 2)) } throws: { ($0 as? TelemetryError)?.code == .malformed }
        try file.truncate(afterStep: 5)
        try file.write(StepMetrics(step: 2))
        #expect(try contents(folder("m")) == "{\"step\":1,\"a/b\":1.0}\n{\"step\":2}\n")
    }

    @Test func aTailOfZerosFromAPowerCutIsTorn() throws {
        let folder = try TemporaryFolder()
        try "{\"step\":1}\n\0\0\0\0\n".write(toFile: folder("m"), atomically: false, encoding: .utf8)
        try MetricsFile(folder("m")).truncate(afterStep: 1)
        #expect(try contents(folder("m")) == "{\"step\":1}\n")
    }

    @Test func refusesAStepThatIsNotNew() throws {
        let folder = try TemporaryFolder()
        try write(1...3, to: folder("m"))
        let file = try MetricsFile(folder("m"))
        for step in 1...3 {
            #expect { try file.write(metrics(step)) } throws: { ($0 as? TelemetryError)?.code == .outOfOrder }
        }
        try file.write(metrics(4))
    }

    @Test func damageInTheMiddleIsNamedNotDropped() throws {
        let folder = try TemporaryFolder()
        let damaged = "{\"step\":1}\n{\"step\":oops}\n{\"step\":3}\n"
        try damaged.write(toFile: folder("m"), atomically: false, encoding: .utf8)
        #expect { try MetricsFile(folder("m")) } throws: {
            let error = $0 as? TelemetryError
            return error?.code == .malformed && error?.message.contains("line 2") == true && error?.path == folder("m")
        }
        #expect(try contents(folder("m")) == damaged)
    }

    @Test func aFullDiskIsReported() throws {
        let file = try MetricsFile("/dev/full")
        #expect { try file.write(metrics(1)) } throws: {
            let error = $0 as? TelemetryError
            return error?.code == .io && error?.path == "/dev/full" && error?.errorNumber == ENOSPC
                && error?.description.contains("No space left") == true
        }
    }

    /// A file-size limit stops a write halfway, as a disk does that fills up; the half line must be taken back.
    /// In a process of its own, since the limit is the whole process's.
    @Test func aHalfWrittenLineIsTakenBack() async {
        await #expect(processExitsWith: .success) {
            let folder = try TemporaryFolder()
            let path = folder("m")
            let file = try MetricsFile(path)
            try file.write(StepMetrics(step: 1, values: ["a/b": 1]))
            let before = try contents(path)

            let resource = __rlimit_resource_t(UInt32(RLIMIT_FSIZE.rawValue))
            var old = rlimit()
            getrlimit(resource, &old)
            signal(SIGXFSZ, SIG_IGN)
            var small = rlimit(rlim_cur: rlim_t(before.utf8.count + 5), rlim_max: old.rlim_max)
            setrlimit(resource, &small)
            let result = Result { try file.write(StepMetrics(step: 2, values: ["a/b": 2])) }
            setrlimit(resource, &old)

            #expect { try result.get() } throws: { ($0 as? TelemetryError)?.errorNumber == EFBIG }
            #expect(try contents(path) == before)
            try file.write(StepMetrics(step: 2, values: ["a/b": 2]))
            #expect(try MetricsHistory(reading: path).steps.map(\.step) == [1, 2])
        }
    }

    @Test func anUnwritablePathNamesItself() {
        #expect { try MetricsFile("/nonexistent/metrics.jsonl") } throws: {
            let error = $0 as? TelemetryError
            return error?.errorNumber == ENOENT && error?.description.contains("/nonexistent/metrics.jsonl") == true
        }
    }
}

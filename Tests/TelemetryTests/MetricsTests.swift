import OrderedCollections
import Testing

@testable import Telemetry

@Suite struct MetricsTests {
    @Test(arguments: ["", "loss", "/a", "a/", "a//b", "a/b c", "a/é", "step", "a/b\n", "a/<b>"])
    func refusesBadNames(_ text: String) {
        #expect { try MetricName(text) } throws: { ($0 as? TelemetryError)?.code == .invalidName }
    }

    @Test func namesTellWhatDependsOnTheClock() {
        #expect(MetricName.score.group == "critic")
        #expect(MetricName.tokensPerSecond.dependsOnClock && MetricName.stepSeconds.dependsOnClock)
        #expect(!MetricName.score.dependsOnClock)
        let near: MetricName = "performance/x"
        #expect(!near.dependsOnClock)
    }

    @Test func refusesAMetricRecordedTwice() throws {
        var metrics = StepMetrics(step: 3)
        try metrics.record("actor/loss", 1)
        #expect { try metrics.record("actor/loss", 2) } throws: {
            let error = $0 as? TelemetryError
            return error?.code == .duplicateMetric && error?.message.contains("actor/loss") == true
        }
    }

    @Test func summarises() throws {
        var metrics = StepMetrics(step: 1)
        try metrics.record("critic/score", summaryOf: [1, 4, -2])
        try metrics.record("critic/none", summaryOf: [])
        #expect(metrics.values == ["critic/score/mean": 1, "critic/score/min": -2, "critic/score/max": 4])
        #expect(
            Array(metrics.values.keys.map(\.text)) == ["critic/score/mean", "critic/score/min", "critic/score/max"])
    }

    @Test(arguments: [[.nan, 1, 2], [1, .nan, 2], [1, 2, .nan]])
    func aSummaryDoesNotHideNaN(_ values: [Double]) throws {
        var metrics = StepMetrics(step: 1)
        try metrics.record("a/b", summaryOf: values)
        #expect(metrics.notFinite.count == 3)
    }

    @Test func recorderWritesToAllSinksThoughOneFails() throws {
        let folder = try TemporaryFolder()
        let kept = try MetricsFile(folder("metrics.jsonl"))
        let full = try MetricsFile("/dev/full")
        #expect { try MetricsRecorder([full, kept]).write(StepMetrics(step: 1, values: ["a/b": 1])) } throws: {
            ($0 as? TelemetryError)?.path == "/dev/full"
        }
        #expect(try contents(folder("metrics.jsonl")) == "{\"step\":1,\"a/b\":1.0}\n")
    }

    @Test func recorderNamesEveryFailure() throws {
        let sinks = [try MetricsFile("/dev/full"), try MetricsFile("/dev/full")]
        #expect { try MetricsRecorder(sinks).write(StepMetrics(step: 1)) } throws: {
            ($0 as? TelemetryError)?.message.contains("1 more") == true
        }
    }

    @Test func smoothsWithoutBias() {
        let series = MetricSeries(steps: [1, 2, 3, 4], values: [2, 4, .nan, 8])
        let smooth = series.smoothed(weight: 0.5)
        #expect(smooth[0] == 2)
        #expect(abs(smooth[1] - 10.0 / 3) < 1e-12)
        #expect(smooth[2].isNaN)
        #expect(abs(smooth[3] - (2 * 0.125 + 4 * 0.25 + 8 * 0.5) / 0.875) < 1e-12)
        #expect(series.smoothed(weight: 0)[3] == 8)
    }
}

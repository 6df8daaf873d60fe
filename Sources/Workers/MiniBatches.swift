import Datasets
import Flow
import OrderedCollections

import Telemetry
import TrainingEngine

/// How a batch of answers becomes optimizer steps.
enum MiniBatches {
    /// Indices by mini-batch: whole groups, so many prompts each, shuffled where a seed is given.
    static func split(_ trajectories: [Trajectory], prompts: Int, shuffledBy seed: UInt64?) -> [[Int]] {
        var groups: OrderedDictionary<Int, [Int]> = [:]
        for (index, trajectory) in trajectories.enumerated() {
            groups[trajectory.prompt.group, default: []].append(index)
        }
        var order = Array(groups.values)
        if let seed {
            var generator = SplitMix64(seed: seed)
            order = generator.permutation(count: order.count).map { order[Int($0)] }
        }
        return stride(from: 0, to: order.count, by: prompts).map { start in
            order[start..<min(start + prompts, order.count)].flatMap { $0 }
        }
    }
}

enum StepReports {
    /// Means over the optimizer steps of one batch; maxima stay maxima.
    /// - Parameter group: of the metrics' names.
    static func metrics(_ reports: [PolicyStepReport], group: String) throws -> PhaseMetrics {
        var sums: OrderedDictionary<String, (total: Double, count: Int, greatest: Double)> = [:]
        for report in reports where report.microBatches > 0 {
            for (name, value) in report.metrics + [(group + "/grad_norm", report.gradNorm)] {
                let old = sums[name] ?? (0, 0, -Double.infinity)
                sums[name] = (old.total + value, old.count + 1, max(old.greatest, value))
            }
        }
        var metrics: PhaseMetrics = [:]
        for (name, sum) in sums {
            let isMaximum = name.hasSuffix("_max")
            metrics[try MetricName(String(name))] = isMaximum ? sum.greatest : sum.total / Double(sum.count)
        }
        // A gradient that was not finite leaves the weights alone: worth an alarm.
        let figures: [(String, Double)] = [
            ("lr", reports.last?.learningRate ?? 0), ("optimizer_steps", Double(reports.count { $0.stepped })),
            ("nonfinite_gradients", Double(reports.count { $0.microBatches > 0 && !$0.stepped })),
            ("micro_batches", Double(reports.reduce(0) { $0 + $1.microBatches })),
            ("computed_tokens", Double(reports.reduce(0) { $0 + $1.computedTokens })),
        ]
        for (name, value) in figures { metrics[try MetricName(group + "/" + name)] = value }
        return metrics
    }
}

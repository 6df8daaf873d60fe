import Collectives
import Models
import Synchronization
import TensorCore
import TestSupport
import Testing
import TrainingEngine

@testable import Workers

/// Ranks are threads here.
@Suite(.serialized) struct TrainingBenchmarkRankTests {
    private static func settings(rows: Int) -> TrainingBenchmark.Settings {
        var settings = TrainingBenchmark.Settings()
        settings.rows = rows
        settings.length = 14
        settings.states = .float32
        settings.microBatchTokens = 25
        settings.drawsByName = true
        settings.warmUp = 1
        settings.steps = 2
        return settings
    }

    private func together(
        _ sharing: TrainingBenchmark.Sharing, _ settings: TrainingBenchmark.Settings
    ) throws -> [TrainingBenchmark.Report] {
        let shape = try #require(BenchmarkShape.known["tiny"]), store = try RendezvousStore.local(),
            reports = Reports()
        try onRanks(sharing.mesh.rankCount) { rank in
            Torch.threadCount = 1
            let mesh = DeviceMesh(sharing.mesh, rank: rank, store: store)
            let report = try TrainingBenchmark.run(
                shape, dtype: .float32, settings: settings, sharing: sharing, mesh: mesh
            ) { _, _ in }
            reports.all.withLock { $0.append(report) }
        }
        return reports.all.withLock { $0 }
    }

    private final class Reports: Sendable {
        let all = Mutex<[TrainingBenchmark.Report]>([])
    }

    static let sharings: [TrainingBenchmark.Sharing] = {
        let all: [TrainingBenchmark.Sharing?] = [
            try? .init(devices: 2), try? .init(devices: 2, mode: .shardGradOp), try? .init(devices: 2, mode: .noShard),
            try? .init(devices: 4, size: 2), try? .init(devices: 2, tensor: 2), try? .init(devices: 4, tensor: 2),
        ]
        return all.compactMap { $0 }
    }()

    /// Ranks learn together what one process learns of all their rows.
    @Test(arguments: sharings, TrainingBenchmark.Objective.allCases)
    func ranksTrainAsOneProcessDoes(
        sharing: TrainingBenchmark.Sharing, objective: TrainingBenchmark.Objective
    ) throws {
        #expect(Self.sharings.count == 6)
        let shape = try #require(BenchmarkShape.known["tiny"])
        let sets = sharing.mesh.rankCount / sharing.mesh[.tensor]
        var one = Self.settings(rows: 2 * sets), own = Self.settings(rows: 2)
        (one.objective, own.objective) = (objective, objective)
        let alone = try TrainingBenchmark.run(shape, dtype: .float32, device: .cpu, settings: one)
        for report in try together(sharing, own) {
            #expect(abs(report.lastLoss - alone.lastLoss) < 1e-5 * alone.lastLoss)
            #expect(report.cost == alone.cost && report.computedTokens == alone.computedTokens)
            #expect(report.parameterCount == alone.parameterCount)
            let ranks = try #require(report.ranks)
            #expect(ranks.peakBytes.count == sharing.mesh.rankCount && ranks.peakBytes.allSatisfy { $0 > 0 })
            #expect(report.seconds.count == 2 && report.seconds.allSatisfy { $0 > 0 })
            #expect(ranks.aloneTokensPerSecond.isEmpty && ranks.aloneMean == nil)
        }
    }

    @Test func eachDeviceIsMeasuredAloneFirst() throws {
        var sharing = try TrainingBenchmark.Sharing(devices: 2)
        sharing.measuresAlone = true
        for report in try together(sharing, Self.settings(rows: 2)) {
            let ranks = try #require(report.ranks)
            #expect(ranks.aloneTokensPerSecond.count == 2 && ranks.aloneTokensPerSecond.allSatisfy { $0 > 0 })
            #expect(report.cost.tokens == 2 * 2 * 14)
        }
    }

    @Test func refusesDevicesThatDoNotDivide() {
        #expect(throws: WorkerError.self) { try TrainingBenchmark.Sharing(devices: 4, tensor: 3) }
        #expect(throws: WorkerError.self) { try TrainingBenchmark.Sharing(devices: 4, size: 3) }
        #expect(throws: WorkerError.self) { try TrainingBenchmark.Sharing(devices: 4, size: 4, tensor: 2) }
    }
}

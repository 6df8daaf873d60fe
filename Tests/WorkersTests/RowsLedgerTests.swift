import Flow
import Testing

@testable import Workers

/// Rows that ranks keep from one call of a step to the next.
@Suite struct RowsLedgerTests {
    private func batch(_ seed: Int, rows: Int = 64, length: Int = 256) -> [Trajectory] {
        (0..<rows).map { row in
            Trajectory(
                prompt: PromptTask(
                    group: row / 4, tokens: (0..<16).map { Int32($0 + row + seed) }, text: "", dataSource: "",
                    groundTruth: ""),
                response: (0..<length).map { Int32($0 &* (row + seed) % 97) }, text: "",
                rolloutLogProbs: values(row + seed, length), isTruncated: false, weightVersion: 0, weightDigest: "")
        }
    }
    private func values(_ seed: Int, _ length: Int) -> [Float] { (0..<length).map { -Float($0 &* seed % 89) / 7 } }

    /// What a rank makes of a call that travelled.
    private func arrive(_ rows: TrainingRows, _ rank: KeptRows, _ bytes: inout Int) throws -> [Trajectory] {
        let encoded = try CallCoder.encode(UpdateModel(model: .actor, rows: rows, seed: 1))
        bytes += encoded.count
        return try rank.complete(CallCoder.decode(UpdateModel.self, from: encoded).rows).trajectories
    }

    private static let ofActor: Set<RowColumn> = [
        .rolloutLogProbs, .advantages, .oldLogProbs, .refLogProbs, .importanceWeights, .responseMask,
    ]

    @Test func aStepSendsEachColumnOnce() throws {
        let ledger = RowsLedger(), rank = KeptRows()
        for step in 1...2 {
            var rows = batch(step), once = 0, whole = 0
            func send(_ columns: Set<RowColumn>) throws -> (found: [Trajectory], id: Int?) {
                let sent = ledger.send(rows, columns) { $0 }
                whole += try CallCoder.encode(
                    UpdateModel(model: .actor, rows: TrainingRows(rows), seed: 1)
                ).count
                return (try arrive(sent, rank, &once), sent.id)
            }
            // Two scores that the rank computes and keeps.
            for column in [RowColumn.oldLogProbs, .refLogProbs] {
                let (found, id) = try send([])
                #expect(found.map(\.response) == rows.map(\.response))
                #expect(found.map(\.prompt.tokens) == rows.map(\.prompt.tokens))
                let scores = rows.indices.map { values($0 + step * 3, rows[$0].response.count) }
                rank.keep(column, PackedRows(scores), of: id)
                ledger.keeps(column, scores, of: id)
                for index in rows.indices {
                    if column == .oldLogProbs { rows[index].oldLogProbs = scores[index] }
                    if column == .refLogProbs { rows[index].refLogProbs = scores[index] }
                }
            }
            for index in rows.indices { rows[index].advantages = values(index, rows[index].response.count) }
            let found = try send(Self.ofActor).found
            #expect(found.map(\.advantages) == rows.map(\.advantages))
            #expect(found.map(\.oldLogProbs) == rows.map(\.oldLogProbs))
            #expect(found.map(\.refLogProbs) == rows.map(\.refLogProbs))
            #expect(found.map(\.rolloutLogProbs) == rows.map(\.rolloutLogProbs))
            #expect(found.allSatisfy { $0.responseMask == nil && $0.values == nil })
            // Tokens, the sampler's log-probabilities and advantages: 12 bytes a token, once.
            let tokens = rows.reduce(0) { $0 + $1.response.count }
            #expect(once < 14 * tokens, "\(once) bytes of \(tokens) tokens")
            #expect(Double(whole) / Double(once) > 2.5, "\(whole) bytes whole, \(once) once")
        }
    }

    @Test func whatChangedIsSentAgain() throws {
        let ledger = RowsLedger(), rank = KeptRows()
        var rows = batch(1), bytes = 0
        _ = try arrive(ledger.send(rows, Self.ofActor) { $0 }, rank, &bytes)
        rows[3].rolloutLogProbs[5] = -42
        rows[2].responseMask = rows[2].response.indices.map { $0 % 2 == 0 }
        var found = try arrive(ledger.send(rows, Self.ofActor) { $0 }, rank, &bytes)
        #expect(found[3].rolloutLogProbs[5] == -42 && found[2].responseMask == rows[2].responseMask)
        // Of fewer rows everything is new.
        rows.removeLast(8)
        let fewer = ledger.send(rows, Self.ofActor) { $0 }
        #expect(fewer.kept.isEmpty && fewer.sequences != nil)
        found = try arrive(fewer, rank, &bytes)
        #expect(found.count == rows.count && found.map(\.responseMask)[2] == rows[2].responseMask)
    }

    @Test func aRankWithoutTheRowsSaysSo() throws {
        let ledger = RowsLedger(), rows = batch(1)
        _ = ledger.send(rows, []) { $0 }
        let later = ledger.send(rows, []) { $0 }
        #expect(throws: WorkerError.self) { try KeptRows().complete(later) }
    }
}

import Foundation
import Synchronization
import TensorCore
import TestSupport
import Testing

@Suite struct WatchTests {
    /// Runs ranks as threads, each with a watch; gives what each ended with.
    private func outcomes(
        _ count: Int, deadline: Duration,
        _ body: @escaping @Sendable (_ rank: Int, _ watch: RankWatch, _ group: ProcessGroup) throws -> Void
    ) throws -> [TorchError?] {
        let store = try RendezvousStore.local(), board = try RankBoard.local(ranks: count)
        let outcomes = Mutex([TorchError?](repeating: nil, count: count))
        try onRanks(count) { rank in
            let watch = try RankWatch(board, rank: rank, deadline: deadline)
            let group = try ProcessGroup.gloo(
                store, name: "all", rank: rank, size: count, timeout: .seconds(30), watch: GroupWatch(watch))
            do {
                try body(rank, watch, group)
                watch.leave()
            } catch let error as TorchError {
                watch.leave(failure: error.description)
                outcomes.withLock { $0[rank] = error }
            }
        }
        return outcomes.withLock { $0 }
    }

    @Test func watchedOperationsGiveWhatTheyPromise() throws {
        let found = try outcomes(3, deadline: .seconds(30)) { rank, watch, group in
            watch.enter(step: 1, phase: "test")
            let sum = try Tensor([Float(rank)]), gathered = try Tensor([Float](repeating: 0, count: 3))
            let first = try group.startAllReduce([sum])
            let second = try group.startAllGather([Tensor([Float(rank)])], into: [gathered])
            try second.wait()
            try first.wait()
            #expect(try sum.item() == 3)
            #expect(try gathered.values(Float.self) == [0, 1, 2])
            let mean = try Tensor([Float(rank)]), piece = try Tensor([Float(0)])
            try group.reduceScatter([gathered], into: [piece], .mean)
            #expect(try piece.item() == Double(rank))
            try group.allReduce([mean], .mean)
            #expect(try mean.item() == 1)
            let came = try Tensor([Float(-1)])
            try group.exchange(
                sends: [.init(Tensor([Float(rank)]), peer: (rank + 1) % 3)],
                receives: [.init(came, peer: (rank + 2) % 3)])
            #expect(try came.item() == Double((rank + 2) % 3))
            try group.barrier()
            try watch.verify()
        }
        #expect(found.allSatisfy { $0 == nil }, "\(found)")
    }

    @Test(arguments: ["all-reduce", "exchange", "barrier"])
    func aLateRankIsNamedWithTheOperationAndWhatItDidLast(operation: String) throws {
        let isOver = Mutex(false)
        let found = try outcomes(3, deadline: .milliseconds(300)) { rank, watch, group in
            watch.enter(step: 4, phase: "update", unit: "layer 2")
            try group.allReduce([Tensor([Float(1)])])
            if rank == 2 {
                // Does nothing until the others have given up.
                while !isOver.withLock({ $0 }) { Thread.sleep(forTimeInterval: 0.005) }
                return
            }
            defer { isOver.withLock { $0 = true } }
            switch operation {
            case "exchange": try group.exchange(sends: [], receives: [.init(Tensor([Float(0)]), peer: 2)])
            case "barrier": try group.barrier()
            default: try group.allReduce([Tensor([Float(1)]), Tensor([Float(2)])])
            }
        }
        #expect(found[2] == nil)
        // One of the two may have heard of it from the other.
        let named = found.prefix(2).compactMap { $0 }.filter { $0.description.contains("past its deadline") }
        let message = try #require(named.first).description
        #expect(named[0].code == .rank)
        #expect(message.contains("at step 4, phase update, layer 2"), "\(message)")
        #expect(message.contains("\(operation) of") && message.contains("number 2 in group 'all'"), "\(message)")
        #expect(message.contains("rank 2") && message.contains("has not arrived"), "\(message)")
        #expect(message.contains("finished all-reduce of 1 tensor (0.000 MB), number 1 in group 'all'"), "\(message)")
        #expect(!message.contains("rank 1 (") || !message.contains("rank 0 ("), "\(message)")
    }

    @Test func aRankThatWorksIsNotLate() throws {
        let found = try outcomes(2, deadline: .seconds(4)) { rank, watch, group in
            if rank == 1 {
                let start = ContinuousClock.now
                while ContinuousClock.now - start < .seconds(6) {
                    watch.tick()
                    Thread.sleep(forTimeInterval: 0.01)
                }
            }
            try group.allReduce([Tensor([Float(1)])])
        }
        #expect(found.allSatisfy { $0 == nil }, "\(found)")
    }

    @Test func aRankThatFailsTellsTheOthersWhy() throws {
        let found = try outcomes(3, deadline: .seconds(60)) { rank, watch, group in
            // All are connected before one of them goes.
            try group.barrier()
            watch.enter(step: 2, phase: "generate")
            if rank == 1 {
                throw TorchError(code: .outOfMemory, operation: "empty", message: "no memory for the pages")
            }
            try group.allReduce([Tensor([Float(1)])])
        }
        for rank in [0, 2] {
            let message = try #require(found[rank]).description
            #expect(message.contains("rank 1 failed at step 2, phase generate: "), "\(message)")
            #expect(message.contains("no memory for the pages"), "\(message)")
        }
    }

    @Test func afterTroubleEveryOperationFails() throws {
        let found = try outcomes(2, deadline: .seconds(60)) { rank, watch, group in
            try group.barrier()
            if rank == 1 { throw TorchError(code: .operation, operation: "test", message: "ends") }
            #expect(throws: TorchError.self) { try group.allReduce([Tensor([Float(1)])]) }
            #expect(throws: TorchError.self) { try watch.verify() }
            try group.barrier()
        }
        #expect(found[0]?.code == .rank)
    }

    @Test func patientGroupsHaveNoDeadline() throws {
        let store = try RendezvousStore.local(), board = try RankBoard.local(ranks: 2)
        try onRanks(2) { rank in
            let watch = try RankWatch(board, rank: rank, deadline: .milliseconds(100))
            let group = try ProcessGroup.gloo(
                store, name: "idle", rank: rank, size: 2, timeout: .seconds(30),
                watch: GroupWatch(watch, isPatient: true))
            if rank == 0 { Thread.sleep(forTimeInterval: 0.6) }
            let told = try Tensor([Float(rank)])
            try group.broadcast([told], root: 0)
            #expect(try told.item() == 0)
            watch.leave()
        }
    }

    @Test func boardsInFilesAreSharedAndChecked() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "board-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        #expect(throws: TorchError.self) { try RankBoard.open(path, ranks: 2) }
        let first = try RankBoard.create(at: path, ranks: 2)
        #expect(throws: TorchError.self) { try RankBoard.create(at: path, ranks: 2) }
        #expect(throws: TorchError.self) { try RankBoard.open(path, ranks: 3) }
        let second = try RankBoard.open(path, ranks: 2)
        let watches = try (
            RankWatch(first, rank: 0, deadline: .seconds(60)), RankWatch(second, rank: 1, deadline: .seconds(60))
        )
        watches.1.enter(step: 7, phase: "save")
        #expect(try watches.0.describe(1).contains("at step 7, phase save: started"))
    }

    /// Two hosts' boards, each with a place for both ranks; reports go by hand.
    private func boards() throws -> (near: RankBoard, far: RankBoard) {
        let near = try RankBoard.local(ranks: 2), far = try RankBoard.local(ranks: 2)
        for (board, own) in [(near, 0), (far, 1)] {
            for rank in 0..<2 { try board.place(rank, node: "10.0.0.\(rank + 1)", elsewhere: rank != own) }
        }
        return (near, far)
    }

    @Test func anotherHostsRanksAreSeenByItsReports() throws {
        let (near, far) = try boards()
        let watch = try RankWatch(near, rank: 0, deadline: .seconds(60))
        let other = try RankWatch(far, rank: 1, deadline: .seconds(60))
        #expect(try watch.describe(1) == "it has not started")
        other.enter(step: 7, phase: "save", unit: "layer 3")
        try near.take(far.report(1), of: 1)
        #expect(try watch.describe(1).contains("at step 7, phase save, layer 3: started"))
        try watch.verify()
        other.leave(failure: "no memory")
        try near.take(far.report(1), of: 1)
        let message = try #require(problem(of: watch))
        #expect(message.contains("rank 1 failed at step 7, phase save, layer 3: no memory"), "\(message)")
    }

    @Test func aLostHostsRanksAreDead() throws {
        let (near, far) = try boards()
        let watch = try RankWatch(near, rank: 0, deadline: .seconds(60))
        let other = try RankWatch(far, rank: 1, deadline: .seconds(60))
        other.enter(step: 2, phase: "update")
        try near.take(far.report(1), of: 1)
        try near.lose(1)
        let message = try #require(problem(of: watch))
        #expect(
            message.contains("on 10.0.0.2) is dead; last, ") && message.contains("at step 2, phase update"),
            "\(message)")
    }

    @Test func aSilentHostsRanksShowNoLifeUnlessTheyAreKept() throws {
        let (near, far) = try boards()
        let watch = try RankWatch(near, rank: 0, deadline: .milliseconds(300))
        let other = try RankWatch(far, rank: 1, deadline: .seconds(60))
        try near.take(far.report(1), of: 1)
        for _ in 0..<60 {
            try near.keep(1)
            Thread.sleep(forTimeInterval: 0.01)
        }
        try watch.verify()
        let message = try #require(problem(of: watch))
        #expect(message.contains("rank 1 (process \(getpid()) on 10.0.0.2) hangs or its host is lost"), "\(message)")
        #expect(try far.facts(1, within: .seconds(60)).isAlive)
        other.leave()
        let facts = try far.facts(1, within: .seconds(60))
        #expect(!facts.isAlive && facts.hasEnded)
    }

    /// Reports come from the network: cut off, too long or of nonsense, they change nothing.
    @Test func damagedReportsAreRefused() throws {
        let (near, far) = try boards()
        let other = try RankWatch(far, rank: 1, deadline: .seconds(60))
        other.enter(step: 3, phase: "generate")
        let report = try far.report(1)
        try near.take(report, of: 1)
        for count in 0..<report.count {
            #expect(throws: TorchError.self) { try near.take(Array(report[..<count]), of: 1) }
        }
        #expect(throws: TorchError.self) { try near.take(report + [0], of: 1) }
        #expect(throws: TorchError.self) { try near.take(report, of: 0) }
        #expect(throws: TorchError.self) { try near.take(report, of: 2) }
        #expect(throws: TorchError.self) { try near.take(report, of: -1) }
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            var damaged = report
            for _ in 0..<3 {
                damaged[Int.random(in: 0..<report.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            try? near.take(damaged, of: 1)
        }
        try near.take(report, of: 1)
        let watch = try RankWatch(near, rank: 0, deadline: .seconds(60))
        #expect(try watch.describe(1).contains("at step 3, phase generate"))
    }

    /// What a watch finds, within half a minute.
    private func problem(of watch: RankWatch) -> String? {
        for _ in 0..<3000 {
            do { try watch.verify() } catch { return error.description }
            Thread.sleep(forTimeInterval: 0.01)
        }
        return nil
    }
}

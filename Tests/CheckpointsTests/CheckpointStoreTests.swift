import Checkpoints
import Foundation
import TensorCore
import Testing

@Suite struct CheckpointStoreTests {
    private static func tensors(_ step: Int) throws -> [(name: String, tensor: Tensor)] {
        [
            ("w", try Tensor((0..<64).map { Float($0 + step) }, shape: [8, 8])),
            ("moment", try Tensor([Float](repeating: Float(step), count: 32))),
        ]
    }

    private static func save(_ store: CheckpointStore, _ step: Int) throws {
        // Small shards, so that there are several files to be interrupted in.
        try store.save(step: step, tensors: tensors(step), state: Array("{\"step\":\(step)}".utf8), maxShardBytes: 256)
    }

    /// Whether the checkpoint holds what `save` wrote for its step.
    private static func isWhole(_ checkpoint: CheckpointStore.Checkpoint) throws -> Bool {
        guard checkpoint.state == Array("{\"step\":\(checkpoint.step)}".utf8) else { return false }
        return try tensors(checkpoint.step).allSatisfy { name, tensor in
            try checkpoint.tensors.tensor(named: name).equals(tensor)
        }
    }

    @Test func keepsTheLastAndFindsTheNewest() throws {
        let folder = try TemporaryFolder()
        let store = try CheckpointStore(folder: folder.path + "/deep/checkpoints", keepLast: 2)
        #expect(try store.latest().checkpoint == nil)
        for step in [1, 2, 3, 1_000_000] { try Self.save(store, step) }
        #expect(try store.steps() == [3, 1_000_000])
        let (latest, skipped) = try store.latest()
        #expect(skipped.isEmpty)
        #expect(latest?.step == 1_000_000)
        #expect(try latest.map(Self.isWhole) == true)
        #expect(try Self.isWhole(store.load(3)))
        let error = #expect(throws: CheckpointError.self) { try store.load(2) }
        #expect(error?.code == .notFound)
    }

    @Test func savingAStepAgainReplacesIt() throws {
        let folder = try TemporaryFolder()
        let store = try CheckpointStore(folder: folder.path, keepLast: 2)
        try store.save(step: 1, tensors: [("w", Tensor([9] as [Float]))], state: [])
        try Self.save(store, 1)
        #expect(try Self.isWhole(store.load(1)))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["step-000001"])
    }

    /// A run may be saving while another command reads.
    @Test func readingLeavesWhatIsBeingWrittenAlone() throws {
        let folder = try TemporaryFolder()
        let writer = try CheckpointStore(folder: folder.path, keepLast: 2)
        try Self.save(writer, 1)
        let unfinished = folder.path + "/tmp-step-000002"
        try FileManager.default.createDirectory(atPath: unfinished, withIntermediateDirectories: false)
        #expect(try CheckpointStore(reading: folder.path).latest().checkpoint?.step == 1)
        #expect(try CheckpointStore.checkpoint(at: writer.path(of: 1)).step == 1)
        #expect(FileManager.default.fileExists(atPath: unfinished))
        _ = try CheckpointStore(folder: folder.path, keepLast: 2)
        #expect(!FileManager.default.fileExists(atPath: unfinished))
        #expect(try CheckpointStore(reading: folder.path + "/nowhere").latest().checkpoint == nil)
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/nowhere"))
    }

    @Test func prunesAbandonedStepsFirst() throws {
        let folder = try TemporaryFolder()
        let store = try CheckpointStore(folder: folder.path, keepLast: 2)
        try Self.save(store, 10)
        try Self.save(store, 20)
        try Self.save(store, 15)
        #expect(try store.steps() == [10, 15])
    }

    /// Every file of a checkpoint, damaged in every way: it is passed over with a reason, and the one before it found.
    @Test(arguments: ["flip", "cut", "remove", "grow"])
    func fallsBackFromADamagedCheckpoint(_ damage: String) throws {
        let folder = try TemporaryFolder()
        let store = try CheckpointStore(folder: folder.path, keepLast: 3)
        try Self.save(store, 1)
        try Self.save(store, 2)
        for name in try FileManager.default.contentsOfDirectory(atPath: store.path(of: 2)) {
            let path = store.path(of: 2) + "/" + name
            let whole = try bytes(of: path)
            for at in stride(from: 0, to: whole.count, by: max(1, whole.count / 37)) {
                var changed = whole
                switch damage {
                case "flip": changed[at] ^= 0x04
                case "cut": changed.removeSubrange(at...)
                case "grow": changed.insert(0x20, at: at)
                default: break
                }
                try Data(changed).write(to: URL(fileURLWithPath: path))
                if damage == "remove" { try FileManager.default.removeItem(atPath: path) }
                let (latest, skipped) = try store.latest()
                if let latest, latest.step == 2 {
                    // White space around the manifest's text, its last newline included, says nothing.
                    let isSpace = damage == "grow" || damage == "cut" && at == whole.count - 1
                    #expect(name == "manifest.json" && isSpace)
                } else {
                    #expect(latest?.step == 1)
                    #expect(skipped.map(\.step) == [2])
                    #expect(skipped.first?.description.contains("step-000002") == true)
                }
                try Data(whole).write(to: URL(fileURLWithPath: path))
            }
        }
        #expect(try store.latest().checkpoint?.step == 2)
    }

    /// A process that dies at any operation of a save leaves a store whose newest checkpoint is whole: the new one or the one before.
    @Test(arguments: [[1, 2, 3], [1, 2, 2], [1]])
    func everyInterruptionLeavesAWholeCheckpoint(_ steps: [Int]) throws {
        var operation = 0
        var finished = false
        var outcomes: Set<Int> = []
        while !finished {
            let folder = try TemporaryFolder()
            let calm = try CheckpointStore(folder: folder.path, keepLast: 2, fileSystem: FaultyFileSystem(.none))
            for step in steps.dropLast() { try Self.save(calm, step) }
            let before = try calm.steps()
            let faulty = FaultyFileSystem(.death(atOperation: operation))
            do {
                let store = try CheckpointStore(folder: folder.path, keepLast: 2, fileSystem: faulty)
                try Self.save(store, steps.last!)
                finished = true
            } catch is FaultyFileSystem.Death {}
            // The next process opens the store and goes on.
            let next = try CheckpointStore(folder: folder.path, keepLast: 2, fileSystem: FaultyFileSystem(.none))
            let (latest, skipped) = try next.latest()
            #expect(skipped.isEmpty, "operation \(operation): \(skipped)")
            #expect(latest != nil || before.isEmpty, "operation \(operation)")
            if let latest {
                #expect(try Self.isWhole(latest), "operation \(operation)")
                #expect(latest.step >= before.last ?? 0)
                outcomes.insert(latest.step)
            }
            let rest = try FileManager.default.contentsOfDirectory(atPath: folder.path)
            #expect(rest.allSatisfy { $0.hasPrefix("step-") }, "operation \(operation): \(rest)")
            try Self.save(next, 9)
            #expect(try next.latest().checkpoint?.step == 9)
            operation += 1
        }
        #expect(operation > 20)
        #expect(outcomes.contains(steps.last!))
    }

    /// A disk that fills up at any byte: the error says so, nothing is left over, the checkpoint before is there.
    @Test func aFullDiskKeepsTheCheckpointBefore() throws {
        let folder = try TemporaryFolder()
        let first = try CheckpointStore(folder: folder.path, keepLast: 2)
        try Self.save(first, 1)
        let size = try FileManager.default.contentsOfDirectory(atPath: first.path(of: 1)).reduce(0) {
            try $0 + bytes(of: first.path(of: 1) + "/" + $1).count
        }
        for limit in stride(from: 0, to: size, by: 50) {
            let store = try CheckpointStore(
                folder: folder.path, keepLast: 2, fileSystem: FaultyFileSystem(.diskFull(afterBytes: limit)))
            let error = #expect(throws: CheckpointError.self) { try Self.save(store, 2) }
            #expect(error?.code == .diskFull)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["step-000001"])
            #expect(try store.latest().checkpoint.map(Self.isWhole) == true)
        }
    }

    @Test func asksForRoomBeforeItWrites() throws {
        let folder = try TemporaryFolder()
        let faulty = FaultyFileSystem(.free(bytes: 4096))
        let store = try CheckpointStore(folder: folder.path, keepLast: 2, fileSystem: faulty)
        let operations = faulty.operationCount
        let error = #expect(throws: CheckpointError.self) { try Self.save(store, 1) }
        #expect(error?.code == .diskFull)
        #expect(error?.freeBytes == 4096)
        #expect((error?.neededBytes ?? 0) > 384)
        #expect(faulty.operationCount == operations)
    }

    @Test func refusesWhatCannotBeSaved() throws {
        let folder = try TemporaryFolder()
        #expect(throws: CheckpointError.self) { try CheckpointStore(folder: folder.path, keepLast: 0) }
        let store = try CheckpointStore(folder: folder.path, keepLast: 1)
        let twice = try [("w", Tensor([1] as [Float])), ("w", Tensor([2] as [Float]))]
        let error = #expect(throws: CheckpointError.self) { try store.save(step: 1, tensors: twice, state: []) }
        #expect(error?.code == .duplicate)
        #expect(throws: CheckpointError.self) { try store.save(step: -1, tensors: [], state: []) }
        try store.save(step: 0, tensors: [], state: [])
        #expect(try store.load(0).tensors.tensorNames.isEmpty)
    }
}

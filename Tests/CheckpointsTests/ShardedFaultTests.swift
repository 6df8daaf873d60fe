import Checkpoints
import Collectives
import Foundation
import Synchronization
import TensorCore
import TestSupport
import Testing

/// Checkpoints of several ranks in trouble: what was whole stays, what is broken is passed over by name, and every rank says the same.
@Suite struct ShardedFaultTests {
    private static func files(_ folder: String) throws -> [String] {
        let all = FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []
        return all.filter { !isFolder(folder + "/" + $0) }.sorted()
    }

    private static func isFolder(_ path: String) -> Bool {
        (try? FileManager.default.attributesOfItem(atPath: path)[.type] as? FileAttributeType) == .typeDirectory
    }

    @Test(arguments: ["flip", "cut", "remove", "exchange"])
    func fallsBackFromADamagedCheckpoint(_ damage: String) throws {
        let folder = try TemporaryFolder()
        let ranks = try ShardedCase("fsdp2", folder.path)
        try ranks.save(1, 2)
        let place = folder.path + "/step-000002"
        for name in try Self.files(place) {
            let path = place + "/" + name
            let whole = try bytes(of: path)
            var changed = whole
            switch damage {
            case "flip": changed[changed.count / 2] ^= 0x04
            case "cut": changed.removeLast(2)
            // The same file of another step: well-formed, and wrong.
            case "exchange": changed = try bytes(of: folder.path + "/step-000001/" + name)
            default: break
            }
            if changed == whole, damage != "remove" { continue }
            try Data(changed).write(to: URL(fileURLWithPath: path))
            if damage == "remove" { try FileManager.default.removeItem(atPath: path) }
            try ranks.run { rank, store in
                let (latest, skipped) = try store.latest()
                #expect(latest?.step == 1, "\(damage) \(name)")
                #expect(skipped.map(\.step) == [2])
                let reason = skipped.first?.description ?? ""
                let isManifest = name == "manifest.json"
                #expect(isManifest || reason.contains(name), "\(reason)")
                #expect(reason.contains("step-000002"))
                if let sharded = latest?.sharded {
                    #expect(try ShardedCase.holds(sharded, ranks.states.ranks[rank], 1))
                }
            }
            try Data(whole).write(to: URL(fileURLWithPath: path))
        }
        try ranks.run { _, store in
            let latest = try store.latest().checkpoint
            #expect(latest?.step == 2)
        }
    }

    /// The manifest of a run in another layout beside these files.
    @Test func aManifestOfAnotherLayoutIsFound() throws {
        let folder = try TemporaryFolder(), other = try TemporaryFolder()
        let ranks = try ShardedCase("fsdp2", folder.path)
        try ranks.save(1, 2)
        try ShardedCase("tp2", other.path).save(2)
        let manifest = "/step-000002/manifest.json"
        try Data(bytes(of: other.path + manifest)).write(to: URL(fileURLWithPath: folder.path + manifest))
        try ranks.run { _, store in
            let (latest, skipped) = try store.latest()
            #expect(latest?.step == 1)
            #expect(skipped.first?.reason.code == .damaged)
        }
    }

    @Test func asksForRoomBeforeItWrites() throws {
        let folder = try TemporaryFolder()
        var ranks = try ShardedCase("fsdp2", folder.path)
        try ranks.save(1)
        ranks.fileSystem = { _ in FaultyFileSystem(.free(bytes: 4096)) }
        try ranks.run { [ranks] rank, store in
            let error = #expect(throws: CheckpointError.self) { try store.save(ranks.contents(rank, 2)) }
            #expect(error?.code == .diskFull)
            #expect(error?.freeBytes == 4096)
            #expect((error?.neededBytes ?? 0) > 30000)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["step-000001"])
    }

    /// The disk fills up on one rank, in the thread that writes: every rank hears of it, the checkpoint before stays, and the next save
    /// works.
    @Test(arguments: [0, 1], [0, 2000, 9000])
    func aDiskThatFillsUpIsToldToAll(_ victim: Int, _ limit: Int) throws {
        let folder = try TemporaryFolder()
        var ranks = try ShardedCase("fsdp2", folder.path)
        try ranks.save(1)
        ranks.fileSystem = { rank in
            rank == victim ? FaultyFileSystem(.diskFull(afterBytes: limit)) as any FileSystem : POSIXFileSystem()
        }
        try ranks.run { [ranks] rank, store in
            try store.save(ranks.contents(rank, 2))
            let error = #expect(throws: CheckpointError.self) { try store.settle() }
            #expect(error.map { "\($0)" }?.contains("No space left") == true, "\(error as Any)")
            let (latest, skipped) = try store.latest()
            #expect(latest?.step == 1 && skipped.isEmpty)
        }
        ranks.fileSystem = { _ in POSIXFileSystem() }
        try ranks.save(3)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == ["step-000001", "step-000003"])
    }

    /// A rank that never writes its part is named.
    @Test func aRankThatStaysAwayIsNamed() throws {
        let folder = try TemporaryFolder()
        let meeting = try RendezvousStore.local(), path = folder.path
        let ranks = try ShardedCase("fsdp2", path)
        try onRanks(2) { rank in
            let group = try ProcessGroup.gloo(meeting, name: "all", rank: rank, size: 2, timeout: .seconds(60))
            let stuck = StuckFileSystem(isStuck: rank == 1)
            let store = try ShardedCheckpointStore(
                folder: path, keepLast: 2, group: group, device: .cpu, partTimeout: .milliseconds(300),
                fileSystem: stuck)
            try store.save(ranks.contents(rank, 1))
            if rank == 1 { stuck.letGo(whenThereIs: path + "/tmp-step-000001/parts/rank-00000.failed") }
            let error = #expect(throws: CheckpointError.self) { try store.settle() }
            if rank == 0 { #expect(error?.message.contains("rank 1 has not written its part of step 1") == true) }
        }
    }

    /// Killed at any operation of any rank's disk: the next process finds a whole checkpoint, the new one or the one before.
    @Test(arguments: [0, 1, 4, 9, 14, 19, 24, 29, 34, 39])
    func aKillLeavesAWholeCheckpoint(_ operation: Int) async throws {
        let folder = try TemporaryFolder()
        let ranks = try ShardedCase("fsdp2", folder.path)
        try ranks.save(1)
        await #expect(processExitsWith: .signal(SIGKILL)) {
            [path = folder.path as String, operation = operation as Int] in
            var ranks = try ShardedCase("fsdp2", path)
            let killer = KillingFileSystem(atOperation: operation)
            ranks.fileSystem = { _ in killer }
            // What both ranks do is fewer operations than the highest that is asked for: again until it happens.
            try ranks.save(2, 3, 4)
        }
        try ranks.run { rank, store in
            let (latest, skipped) = try store.latest()
            #expect(skipped.isEmpty, "\(skipped)")
            let sharded = try #require(latest?.sharded)
            #expect(try ShardedCase.holds(sharded, ranks.states.ranks[rank], sharded.step))
            #expect(try ShardedCase.holds(sharded, ranks.model.ranks[rank], sharded.step))
        }
        let rest = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        #expect(rest.allSatisfy { $0.hasPrefix("step-") }, "\(rest)")
        try ranks.save(9)
        try ranks.run { _, store in
            let latest = try store.latest().checkpoint
            #expect(latest?.step == 9)
        }
    }
}

/// A disk that kills the process at an operation, a write half done.
private final class KillingFileSystem: FileSystem {
    private let count = Mutex(0)
    private let last: Int
    private let disk = POSIXFileSystem()

    init(atOperation last: Int) { self.last = last }

    private func operation(half: () -> Void = {}) {
        let number = count.withLock { count in
            defer { count += 1 }
            return count
        }
        guard number == last else { return }
        half()
        kill(getpid(), SIGKILL)
    }

    func createDirectory(_ path: String) throws {
        operation()
        try disk.createDirectory(path)
    }
    func createFile(_ path: String) throws -> any FileWriter { Writer(self, try disk.createFile(path)) }
    func rename(_ from: String, to: String) throws {
        operation()
        try disk.rename(from, to: to)
    }
    func remove(_ path: String) throws {
        operation()
        try disk.remove(path)
    }
    func syncDirectory(_ path: String) throws {}
    func availableBytes(_ path: String) throws -> UInt64 { try disk.availableBytes(path) }

    private final class Writer: FileWriter {
        private let owner: KillingFileSystem
        private let inner: any FileWriter
        init(_ owner: KillingFileSystem, _ inner: any FileWriter) {
            self.owner = owner
            self.inner = inner
        }
        func write(_ bytes: UnsafeRawBufferPointer) throws {
            owner.operation { try? inner.write(UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count / 2)])) }
            try inner.write(bytes)
        }
        func sync() throws {}
        func close() throws { try inner.close() }
    }
}

/// A disk that takes files only once another rank has given up.
private final class StuckFileSystem: FileSystem {
    private let isStuck: Bool
    private let gate = DispatchSemaphore(value: 0)
    private let disk = POSIXFileSystem()

    init(isStuck: Bool) { self.isStuck = isStuck }

    func letGo(whenThereIs path: String) {
        while !FileManager.default.fileExists(atPath: path) { usleep(1000) }
        gate.signal()
    }

    func createDirectory(_ path: String) throws { try disk.createDirectory(path) }
    func createFile(_ path: String) throws -> any FileWriter {
        if isStuck {
            gate.wait()
            gate.signal()
        }
        return try disk.createFile(path)
    }
    func rename(_ from: String, to: String) throws { try disk.rename(from, to: to) }
    func remove(_ path: String) throws { try disk.remove(path) }
    func syncDirectory(_ path: String) throws {}
    func availableBytes(_ path: String) throws -> UInt64 { try disk.availableBytes(path) }
}

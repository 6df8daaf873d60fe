import Checkpoints
import Foundation
import Synchronization

/// A disk that fails as told: it fills up, or the process "dies" at one operation, after which nothing more is done to it and what
/// was never synced is lost in part.
final class FaultyFileSystem: FileSystem {
    enum Fault: Sendable {
        case none
        /// ENOSPC once this many bytes were written.
        case diskFull(afterBytes: Int)
        /// The disk reports this much room.
        case free(bytes: UInt64)
        /// The operation of this number (from 0) does not happen, nor does any after it. Unsynced files keep only half.
        case death(atOperation: Int)
    }

    /// What a dead process "throws"; nothing catches it but the test.
    struct Death: Error {}

    struct State {
        var operations = 0
        var written = 0
        var isDead = false
        var unsynced: Set<String> = []
    }

    let fault: Fault
    let state = Mutex(State())
    private let disk = POSIXFileSystem()

    init(_ fault: Fault) { self.fault = fault }

    var operationCount: Int { state.withLock { $0.operations } }

    /// Counts an operation; throws when the process is, or now dies.
    func operation() throws {
        let lost: Set<String>? = try state.withLock { state in
            if state.isDead { throw Death() }
            defer { state.operations += 1 }
            guard case .death(let number) = fault, number == state.operations else { return nil }
            state.isDead = true
            return state.unsynced
        }
        guard let lost else { return }
        for path in lost {
            guard let handle = FileHandle(forWritingAtPath: path) else { continue }
            try handle.truncate(atOffset: handle.seekToEnd() / 2)
            try handle.close()
        }
        throw Death()
    }

    func createDirectory(_ path: String) throws {
        try operation()
        try disk.createDirectory(path)
    }

    func createFile(_ path: String) throws -> any FileWriter {
        try operation()
        _ = state.withLock { $0.unsynced.insert(path) }
        return Writer(self, try disk.createFile(path), path)
    }

    func rename(_ from: String, to: String) throws {
        try operation()
        try disk.rename(from, to: to)
    }

    func remove(_ path: String) throws {
        try operation()
        // A death in the middle of a removal leaves part of the tree.
        if let names = try? FileManager.default.contentsOfDirectory(atPath: path) {
            for name in names.sorted() {
                try operation()
                try disk.remove(path + "/" + name)
            }
        }
        try disk.remove(path)
    }

    func syncDirectory(_ path: String) throws {
        // Counted, not done: what a sync is for is simulated, and the many saves of a test need not wait for a disk.
        try operation()
    }

    func availableBytes(_ path: String) throws -> UInt64 {
        if case .free(let bytes) = fault { return bytes }
        return try disk.availableBytes(path)
    }

    private final class Writer: FileWriter {
        private let owner: FaultyFileSystem
        private let inner: any FileWriter
        private let path: String

        init(_ owner: FaultyFileSystem, _ inner: any FileWriter, _ path: String) {
            self.owner = owner
            self.inner = inner
            self.path = path
        }

        func write(_ bytes: UnsafeRawBufferPointer) throws {
            try owner.operation()
            let written = owner.state.withLock { state in
                state.written += bytes.count
                return state.written
            }
            if case .diskFull(let limit) = owner.fault, written > limit {
                throw CheckpointError(.diskFull, path, "No space left on device")
            }
            try inner.write(bytes)
        }

        func sync() throws {
            try owner.operation()
            _ = owner.state.withLock { $0.unsynced.remove(path) }
        }

        func close() throws { try inner.close() }
    }
}

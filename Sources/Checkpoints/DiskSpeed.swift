internal import Dispatch
internal import Synchronization

/// How fast the disk gives bytes to nobody: what loading is measured against.
public enum DiskSpeed {
    /// Reads whole files with as many threads as loading has, past the page cache where the file system can.
    ///
    /// - Returns: the bytes read and the seconds it took.
    /// - Throws: `CheckpointError`.
    public static func measure(_ paths: [String]) throws -> (bytes: Int, seconds: Double) {
        var pieces: [(file: Int, range: Range<Int>)] = []
        var readers: [FileReader] = []
        for (index, path) in paths.enumerated() {
            let size = try MappedFile(path: path).count
            readers.append(try FileReader(path: path, mode: .direct))
            readers[index].dropFromCache()
            for start in stride(from: 0, to: size, by: LoadPlan.readBytes) {
                pieces.append((index, start..<min(size, start + LoadPlan.readBytes)))
            }
        }
        let shared = Shared(readers: readers, pieces: pieces)
        let group = DispatchGroup()
        let start = ContinuousClock.now
        for index in 0..<min(StagedLoad.threads, pieces.count) {
            DispatchQueue(label: "fledge.read.\(index)").async(group: group) { shared.read() }
        }
        group.wait()
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        if let failure = shared.state.withLock({ $0.failure }) { throw failure }
        return (pieces.reduce(0) { $0 + $1.range.count }, seconds)
    }

    /// Drops files from the page cache, so that what reads them next reads the disk.
    /// - Throws: `CheckpointError`.
    public static func dropFromCache(_ paths: [String]) throws {
        for path in paths { try FileReader(path: path, mode: .cached).dropFromCache() }
    }

    private final class Shared: Sendable {
        struct State {
            var next = 0
            var failure: (any Error)?
        }
        let readers: [FileReader]
        let pieces: [(file: Int, range: Range<Int>)]
        let state = Mutex(State())

        init(readers: [FileReader], pieces: [(file: Int, range: Range<Int>)]) {
            self.readers = readers
            self.pieces = pieces
        }

        func read() {
            let buffer = UnsafeMutableRawPointer.allocate(
                byteCount: FileReader.capacity(for: LoadPlan.readBytes), alignment: FileReader.alignment)
            defer { buffer.deallocate() }
            while true {
                let index = state.withLock { state in
                    defer { state.next += 1 }
                    return state.failure == nil ? state.next : pieces.count
                }
                guard index < pieces.count else { return }
                do {
                    _ = try readers[pieces[index].file].read(pieces[index].range, into: buffer)
                } catch {
                    state.withLock { $0.failure = error }
                }
            }
        }
    }
}

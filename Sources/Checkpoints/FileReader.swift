#if canImport(Musl)
    internal import Musl
#else
    internal import Glibc
#endif

/// How the weights' files are read.
public enum ReadMode: Sendable, Hashable {
    /// Through the page cache, and left there for the next process.
    case cached
    /// Through the page cache, each piece dropped from it after its use: the file never takes memory beside the weights.
    case cachedOnce
    /// Past the page cache (`O_DIRECT`); where the file system has no such thing, as ``cachedOnce``.
    case direct
}

/// A file that several threads read at once, by ranges.
final class FileReader: Sendable {
    /// What direct reads are aligned to: the largest block that disks have.
    static let alignment = 4096
    /// Bytes that a buffer needs for a range of `count` bytes.
    static func capacity(for count: Int) -> Int { count + 2 * alignment }

    let path: String
    let mode: ReadMode
    private let descriptor: Int32

    #if arch(arm) || arch(arm64)
        private static let directFlag: Int32 = 0o200000
    #else
        private static let directFlag: Int32 = 0o40000
    #endif

    /// - Throws: `CheckpointError` when the file cannot be opened.
    init(path: String, mode: ReadMode) throws {
        self.path = path
        if mode == .direct, let direct = Self.openDirect(path) {
            descriptor = direct
            self.mode = .direct
            return
        }
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw CheckpointError.system("cannot open", path) }
        self.mode = mode == .direct ? .cachedOnce : mode
        // Wider readahead; a file system that knows no such advice loses nothing.
        _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL)
    }

    deinit { close(descriptor) }

    /// A descriptor that direct reads were seen to work on; nil where opening or the first read is refused.
    private static func openDirect(_ path: String) -> Int32? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | directFlag)
        guard descriptor >= 0 else { return nil }
        let works = withUnsafeTemporaryAllocation(byteCount: alignment, alignment: alignment) {
            pread(descriptor, $0.baseAddress, alignment, 0) > 0
        }
        guard works else {
            close(descriptor)
            return nil
        }
        return descriptor
    }

    /// Reads `range` into `buffer`, which is aligned to ``alignment`` and holds ``capacity(for:)`` bytes.
    ///
    /// - Returns: where in the buffer the range's first byte lies: at the same distance from an aligned address as in the file.
    /// - Throws: `CheckpointError`: `truncated` when the file is shorter than it was when its header was read.
    func read(_ range: Range<Int>, into buffer: UnsafeMutableRawPointer) throws -> Int {
        let skip = range.lowerBound % Self.alignment
        guard mode == .direct else {
            try readCached(range, to: buffer + skip)
            return skip
        }
        let start = range.lowerBound - skip
        let wanted = range.upperBound - start
        let rounded = (wanted + Self.alignment - 1) / Self.alignment * Self.alignment
        var done = 0
        while done < wanted {
            let count = pread(descriptor, buffer + done, rounded - done, off_t(start + done))
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw CheckpointError.system("cannot read", path) }
            // What is left begins at a whole block again, unless the file ends here.
            guard done + count >= wanted || count >= Self.alignment else { throw truncated(start + done + count) }
            done += done + count >= wanted ? count : count / Self.alignment * Self.alignment
        }
        return skip
    }

    /// Reads `range` to `address` through the page cache; not for a ``ReadMode/direct`` file.
    func readCached(_ range: Range<Int>, to address: UnsafeMutableRawPointer) throws {
        precondition(mode != .direct, "a direct file takes aligned buffers only")
        var done = 0
        while done < range.count {
            let count = pread(descriptor, address + done, range.count - done, off_t(range.lowerBound + done))
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw CheckpointError.system("cannot read", path) }
            guard count > 0 else { throw truncated(range.lowerBound + done) }
            done += count
        }
        guard mode == .cachedOnce else { return }
        // Whole pages only are dropped; one shared with the next range is read again, which costs nothing that shows.
        let first = range.lowerBound / Self.alignment * Self.alignment
        let last = (range.upperBound + Self.alignment - 1) / Self.alignment * Self.alignment
        _ = posix_fadvise(descriptor, off_t(first), off_t(last - first), POSIX_FADV_DONTNEED)
    }

    /// Drops the whole file from the page cache, written pages first made clean.
    func dropFromCache() {
        _ = fdatasync(descriptor)
        _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
    }

    private func truncated(_ end: Int) -> CheckpointError {
        CheckpointError(
            .truncated, path, "ends at byte \(end), in the middle of a tensor: it was cut short while it was read",
            remedy: "fetch the file again")
    }
}

/// Bytes of memory that can be had without swapping; nil where the system does not say.
func availableMemory() -> Int? {
    guard let file = fopen("/proc/meminfo", "r") else { return nil }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, Int32(line.count), file) != nil {
        let text = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        guard text.hasPrefix("MemAvailable:") else { continue }
        return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 1024 }
    }
    return nil
}

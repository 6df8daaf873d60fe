#if canImport(Musl)
    internal import Musl
#else
    internal import Glibc
#endif

/// A file mapped into memory for as long as anything refers to it; tensors borrow from it through the reference.
///
/// The mapping is private: a tensor that borrows from it may be written, and the file never changes.
public final class MappedFile: Sendable {
    public let path: String
    private nonisolated(unsafe) let base: UnsafeMutableRawPointer?
    /// The file's size in bytes when it was opened.
    public let count: Int

    /// - Throws: `CheckpointError` when there is no regular file at `path` or it cannot be read.
    public init(path: String) throws {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ENOTDIR {
                throw CheckpointError(.notFound, path, "no such file", remedy: "check the path")
            }
            throw CheckpointError.system("cannot open", path)
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw CheckpointError.system("cannot stat", path) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw CheckpointError(.inputOutput, path, "is not a regular file")
        }
        self.path = path
        count = Int(status.st_size)
        guard count > 0 else {
            base = nil
            return
        }
        let flags = MAP_PRIVATE | MAP_NORESERVE
        guard let address = mmap(nil, count, PROT_READ | PROT_WRITE, flags, descriptor, 0), address != MAP_FAILED else {
            throw CheckpointError.system("cannot map", path)
        }
        base = address
    }

    deinit {
        if let base { munmap(base, count) }
    }

    /// A copy of all of a small file.
    static func contents(of path: String) throws -> [UInt8] {
        let file = try MappedFile(path: path)
        return withExtendedLifetime(file) { [UInt8](file.bytes) }
    }

    /// The whole file. Valid while this object lives.
    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

    /// `length` bytes from `offset`.
    ///
    /// - Throws: `CheckpointError.truncated` when they do not lie within the file.
    public func slice(_ offset: Int, _ length: Int, of what: @autoclosure () -> String) throws -> UnsafeRawBufferPointer
    {
        guard offset >= 0, length >= 0, offset <= count, length <= count - offset else {
            throw CheckpointError(
                .truncated, path, "\(what()) needs bytes \(offset) to \(offset)+\(length) of a file of \(count) bytes",
                remedy: "the file is cut short or damaged: fetch it again")
        }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + length)])
    }

    /// Memory for a tensor that borrows; the tensor must hold this object as its owner.
    func mutableAddress(at offset: Int) -> UnsafeMutableRawPointer? { base.map { $0 + offset } }

    /// Asks the kernel to read the range ahead of its use.
    public func willNeed(_ range: Range<Int>) {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let clamped = range.clamped(to: 0..<count)
        guard let base, !clamped.isEmpty else { return }
        let start = clamped.lowerBound / page * page
        _ = madvise(base + start, clamped.upperBound - start, MADV_WILLNEED)
    }

    /// The share of the file that is in the page cache, from 0 to 1; 1 where the system does not say.
    func residentShare() -> Double {
        guard let base, count > 0 else { return 1 }
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let window = 1 << 28
        var resident = 0
        var flags = [UInt8](repeating: 0, count: (min(window, count) + page - 1) / page)
        for start in stride(from: 0, to: count, by: window) {
            let pages = (min(window, count - start) + page - 1) / page
            guard mincore(base + start, min(window, count - start), &flags) == 0 else { return 1 }
            resident += flags[..<pages].reduce(0) { $0 + Int($1 & 1) }
        }
        return Double(resident * page) / Double(count)
    }

    /// Whether the file starts as a git-lfs pointer does.
    var isGitLFSPointer: Bool { bytes.starts(with: "version https://git-lfs".utf8) }

    func refuseGitLFSPointer() throws {
        guard isGitLFSPointer else { return }
        throw CheckpointError(
            .gitLFSPointer, path, "is a git-lfs pointer of \(count) bytes, not the file itself",
            remedy: "run 'git lfs pull' in its folder")
    }
}

extension CheckpointError {
    /// The failure that `errno` names.
    static func system(_ doing: String, _ path: String, error: Int32 = errno) -> CheckpointError {
        let reason = String(cString: strerror(error))
        if error == ENOSPC || error == EDQUOT {
            return CheckpointError(.diskFull, path, "\(doing): \(reason)", remedy: "free space on this disk")
        }
        return CheckpointError(error == ENOENT ? .notFound : .inputOutput, path, "\(doing): \(reason)")
    }
}

#if canImport(Musl)
    internal import Musl
#else
    internal import Glibc
#endif

/// What writing a checkpoint asks of a disk. The real one is ``POSIXFileSystem``; tests put one in front of it that fails.
public protocol FileSystem: Sendable {
    func createDirectory(_ path: String) throws
    /// Creates a file that must not exist yet.
    func createFile(_ path: String) throws -> any FileWriter
    /// Atomic on one file system.
    func rename(_ from: String, to: String) throws
    /// Removes a file, or a folder with what is in it; nothing there is no error.
    func remove(_ path: String) throws
    /// Makes the folder's entries durable.
    func syncDirectory(_ path: String) throws
    /// Bytes that this process may still write.
    func availableBytes(_ path: String) throws -> UInt64
}

/// A file that is being written.
public protocol FileWriter: AnyObject {
    /// Writes all of `bytes`.
    func write(_ bytes: UnsafeRawBufferPointer) throws
    /// Makes what was written durable.
    func sync() throws
    func close() throws
}

/// The disk itself.
public struct POSIXFileSystem: FileSystem {
    public init() {}

    /// Creates the folder and those above it; one that exists is no error.
    public func createDirectory(_ path: String) throws {
        if mkdir(path, 0o777) == 0 { return }
        if errno == EEXIST, isDirectory(path) { return }
        let parent = parentFolder(path)
        guard errno == ENOENT, parent != path else { throw CheckpointError.system("cannot create the folder", path) }
        try createDirectory(parent)
        guard mkdir(path, 0o777) == 0 || errno == EEXIST else {
            throw CheckpointError.system("cannot create the folder", path)
        }
    }

    public func createFile(_ path: String) throws -> any FileWriter { try POSIXFileWriter(path) }

    public func rename(_ from: String, to: String) throws {
        guard Self.systemRename(from, to) == 0 else { throw CheckpointError.system("cannot rename \(from) to", to) }
    }

    // Inside of the method of the same name the system's is not found.
    private static func systemRename(_ from: String, _ to: String) -> Int32 {
        renameat(AT_FDCWD, from, AT_FDCWD, to)
    }

    public func remove(_ path: String) throws {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            if errno == ENOENT { return }
            throw CheckpointError.system("cannot remove", path)
        }
        // lstat, not stat: a link to a folder is removed, never followed.
        guard status.st_mode & S_IFMT == S_IFDIR else {
            guard unlink(path) == 0 else { throw CheckpointError.system("cannot remove", path) }
            return
        }
        for name in try entries(of: path) { try remove(path + "/" + name) }
        guard rmdir(path) == 0 else { throw CheckpointError.system("cannot remove", path) }
    }

    public func syncDirectory(_ path: String) throws {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw CheckpointError.system("cannot open", path) }
        defer { close(descriptor) }
        // Some network file systems have no fsync for folders and say EINVAL.
        guard fsync(descriptor) == 0 || errno == EINVAL else { throw CheckpointError.system("cannot sync", path) }
    }

    public func availableBytes(_ path: String) throws -> UInt64 {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { throw CheckpointError.system("cannot ask for free space at", path) }
        return UInt64(status.f_bavail) * UInt64(status.f_frsize)
    }
}

private final class POSIXFileWriter: FileWriter {
    private let path: String
    private var descriptor: Int32

    init(_ path: String) throws {
        self.path = path
        descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw CheckpointError.system("cannot create", path) }
    }

    deinit { if descriptor >= 0 { _ = Self.systemClose(descriptor) } }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes
        while !rest.isEmpty {
            let written = Self.systemWrite(descriptor, rest.baseAddress, rest.count)
            if written < 0 {
                if errno == EINTR { continue }
                throw CheckpointError.system("cannot write to", path)
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[written...])
        }
    }

    func sync() throws {
        guard fsync(descriptor) == 0 else { throw CheckpointError.system("cannot sync", path) }
    }

    func close() throws {
        let closing = descriptor
        descriptor = -1
        guard Self.systemClose(closing) == 0 else { throw CheckpointError.system("cannot close", path) }
    }

    private static func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
        #if canImport(Musl)
            Musl.write(descriptor, bytes, count)
        #else
            Glibc.write(descriptor, bytes, count)
        #endif
    }

    private static func systemClose(_ descriptor: Int32) -> Int32 {
        #if canImport(Musl)
            Musl.close(descriptor)
        #else
            Glibc.close(descriptor)
        #endif
    }
}

/// The folder that holds `path`: "." for a bare name.
func parentFolder(_ path: String) -> String {
    var trimmed = Substring(path)
    while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
    guard let slash = trimmed.lastIndex(of: "/") else { return "." }
    return slash == trimmed.startIndex ? "/" : String(trimmed[..<slash])
}

/// The hidden name under which `path` is written: no user's own file is called that.
func temporaryName(for path: String) -> String { ".\(path.split(separator: "/").last ?? "").fledge-partial" }

/// The size and digest of a file as written.
struct WrittenFile: Sendable, Hashable {
    let name: String
    let size: Int
    let digest: String
}

/// Writes one file, hashing as it goes.
struct HashingWriter {
    private let writer: any FileWriter
    private let name: String
    private var hash = XXHash64()
    private(set) var size = 0
    /// Small enough that hashing leaves the bytes in the cache for the write, large enough that calls do not count.
    private static let chunk = 4 << 20

    init(_ fileSystem: any FileSystem, folder: String, name: String) throws {
        self.name = name
        writer = try fileSystem.createFile(folder + "/" + name)
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer) throws {
        var offset = 0
        while offset < bytes.count {
            let end = min(bytes.count, offset + Self.chunk)
            let piece = UnsafeRawBufferPointer(rebasing: bytes[offset..<end])
            hash.update(piece)
            try writer.write(piece)
            offset = end
        }
        size += bytes.count
    }

    mutating func write(_ bytes: [UInt8]) throws { try bytes.withUnsafeBytes { try write($0) } }

    /// Makes the file durable and closes it.
    func finish() throws -> WrittenFile {
        try writer.sync()
        try writer.close()
        return WrittenFile(name: name, size: size, digest: hash.hexadecimal)
    }
}

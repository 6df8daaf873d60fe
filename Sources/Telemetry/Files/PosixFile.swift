#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// An open file. Every failure names the path and the system's own words.
struct PosixFile: ~Copyable {
    enum Access {
        /// Writes go to the end; made when absent.
        case append
        /// For a new file or in place of what is there.
        case replace
        /// For a file that must not exist yet.
        case create
        case read
    }

    let path: String
    private let descriptor: Int32

    init(_ path: String, _ access: Access) throws(TelemetryError) {
        let flags: Int32 =
            switch access {
            case .append: O_RDWR | O_CREAT | O_APPEND
            case .replace: O_WRONLY | O_CREAT | O_TRUNC
            case .create: O_WRONLY | O_CREAT | O_EXCL
            case .read: O_RDONLY
            }
        let opened = retrying { open(path, flags | O_CLOEXEC, 0o644) }
        if opened < 0 { throw .system("cannot open", path: path) }
        self.path = path
        descriptor = opened
    }

    deinit { _ = close(descriptor) }

    /// Writes all the bytes, in one call unless the system takes fewer.
    func write(_ bytes: [UInt8]) throws(TelemetryError) {
        try writeAll(bytes, to: descriptor, path: path)
    }

    /// Makes the file's content survive a power cut.
    func sync() throws(TelemetryError) {
        // A pipe or a device has nothing to sync and says EINVAL.
        if fsync(descriptor) != 0, errno != EINVAL, errno != EROFS {
            throw .system("cannot flush to the disk", path: path)
        }
    }

    func truncate(to length: Int) throws(TelemetryError) {
        if retrying({ ftruncate(descriptor, off_t(length)) }) != 0 {
            throw .system("cannot truncate to \(length) bytes", path: path)
        }
    }

    /// Takes the file for this process until it is closed; false when another process has it.
    func lock() throws(TelemetryError) -> Bool {
        if retrying({ flock(descriptor, LOCK_EX | LOCK_NB) }) == 0 { return true }
        guard errno == EWOULDBLOCK else { throw .system("cannot lock", path: path) }
        return false
    }

    func size() throws(TelemetryError) -> Int {
        var status = stat()
        if fstat(descriptor, &status) != 0 { throw .system("cannot look at the file", path: path) }
        return Int(status.st_size)
    }

    /// The bytes of a range, as many of them as there are.
    func bytes(_ range: Range<Int>) throws(TelemetryError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: range.count)
        var filled = 0
        while filled < bytes.count {
            let count = bytes.withUnsafeMutableBytes { buffer in
                retrying {
                    pread(
                        descriptor, buffer.baseAddress! + filled, buffer.count - filled,
                        off_t(range.lowerBound + filled))
                }
            }
            if count < 0 { throw .system("cannot read", path: path) }
            if count == 0 { break }
            filled += count
        }
        bytes.removeSubrange(filled...)
        return bytes
    }

    /// The whole content from the start; empty when this is not a regular file (a pipe, a device).
    func content() throws(TelemetryError) -> [UInt8] {
        var status = stat()
        if fstat(descriptor, &status) != 0 { throw .system("cannot look at the file", path: path) }
        guard status.st_mode & S_IFMT == S_IFREG else { return [] }
        return try bytes(0..<Int(status.st_size))
    }

    /// The content of a file, or nil when there is none.
    static func read(_ path: String) throws(TelemetryError) -> [UInt8]? {
        do throws(TelemetryError) {
            return try PosixFile(path, .read).content()
        } catch {
            if error.errorNumber == ENOENT { return nil }
            throw error
        }
    }

    /// Replaces a file's content so that a reader, or a power cut, sees either the old or the new whole.
    static func replaceAtomically(_ path: String, with bytes: [UInt8]) throws(TelemetryError) {
        let temporary = "\(path).tmp-\(getpid())"
        do throws(TelemetryError) {
            let file = try PosixFile(temporary, .replace)
            try file.write(bytes)
            try file.sync()
        } catch {
            // Half a file helps nobody; the failure to write is the one to report.
            _ = unlink(temporary)
            throw error
        }
        if rename(temporary, path) != 0 {
            let error = TelemetryError.system("cannot rename \(temporary) to this", path: path)
            _ = unlink(temporary)
            throw error
        }
        try PosixFile(folder(of: path), .read).sync()
    }

    private static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}

/// Calls again while a signal interrupts.
func retrying<Result: SignedInteger>(_ call: () -> Result) -> Result {
    while true {
        let result = call()
        if result >= 0 || errno != EINTR { return result }
    }
}

func writeAll(_ bytes: [UInt8], to descriptor: Int32, path: String) throws(TelemetryError) {
    var written = 0
    while written < bytes.count {
        let count = bytes.withUnsafeBytes { buffer in
            retrying { write(descriptor, buffer.baseAddress! + written, buffer.count - written) }
        }
        if count < 0 { throw .system("cannot write \(bytes.count) bytes", path: path) }
        written += count
    }
}

extension TelemetryError {
    /// The failure of the system call just made, from `errno`.
    static func system(_ what: String, path: String) -> TelemetryError {
        let number = errno
        let remedy =
            switch number {
            case ENOSPC, EDQUOT: "; free some space, then resume the run"
            case EACCES, EPERM, EROFS: "; choose a folder that you may write to"
            default: ""
            }
        let reason = String(cString: strerror(number))
        return TelemetryError(.io, "\(what): \(reason) (errno \(number))\(remedy)", path: path, errorNumber: number)
    }
}

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Bytes put aside in a file without a name, which goes with the process however that ends. It lies in TMPDIR, else /tmp.
struct SpillFile: ~Copyable {
    private let file: OpenFile
    private let folder: String
    private var buffer: [UInt8] = []
    private var written: Int64 = 0
    private static let bufferSize = 1 << 20

    init() throws {
        folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var name = Array("\(folder)/fledge-rows-XXXXXX".utf8CString)
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else {
            throw DatasetError(
                .unreadable,
                "cannot make a temporary file in '\(folder)': \(OpenFile.systemMessage()); set TMPDIR to a folder that "
                    + "can be written")
        }
        unlink(name)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        file = OpenFile(path: folder, descriptor: descriptor)
        buffer.reserveCapacity(Self.bufferSize)
    }

    /// Returns where the bytes begin.
    mutating func append(_ bytes: UnsafeBufferPointer<UInt8>) throws -> Int64 {
        let offset = written + Int64(buffer.count)
        if buffer.count + bytes.count > Self.bufferSize { try flush() }
        if bytes.count > Self.bufferSize { try put(bytes) } else { buffer.append(contentsOf: bytes) }
        return offset
    }

    consuming func finish() throws -> OpenFile {
        try flush()
        return file
    }

    private mutating func flush() throws {
        let full = buffer
        try full.withUnsafeBufferPointer { try put($0) }
        buffer.removeAll(keepingCapacity: true)
    }

    private mutating func put(_ bytes: UnsafeBufferPointer<UInt8>) throws {
        var done = 0
        while done < bytes.count {
            let got = write(file.descriptor, bytes.baseAddress! + done, bytes.count - done)
            if got < 0 && errno == EINTR { continue }
            guard got > 0 else {
                throw DatasetError(
                    errno == ENOSPC || errno == EDQUOT ? .diskFull : .unreadable,
                    "cannot write the rows of a Parquet file to '\(folder)': \(OpenFile.systemMessage()); set TMPDIR to a "
                        + "folder with more space")
            }
            done += got
        }
        written += Int64(done)
    }
}

#if canImport(Musl)
    internal import Musl
#else
    internal import Glibc
#endif

/// An input as a file, for parsers that map one: in memory where the system allows.
final class TemporaryInput: @unchecked Sendable {
    private let descriptor: Int32
    var path: String { "/proc/self/fd/\(descriptor)" }

    init() throws {
        let folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
        var template = Array((folder + "/fledge-fuzz-XXXXXX").utf8CString)
        descriptor = mkstemp(&template)
        guard descriptor >= 0 else { throw POSIXFailure("mkstemp", errno) }
        // Nothing stays behind whatever becomes of the process; the descriptor still names the file.
        unlink(template)
    }

    deinit { close(descriptor) }

    func fill(_ bytes: [UInt8]) throws {
        guard ftruncate(descriptor, 0) == 0 else { throw POSIXFailure("ftruncate", errno) }
        var done = 0
        while done < bytes.count {
            let written = bytes.withUnsafeBytes {
                pwrite(descriptor, $0.baseAddress! + done, bytes.count - done, off_t(done))
            }
            guard written > 0 else { throw POSIXFailure("pwrite", errno) }
            done += written
        }
    }
}

/// A system call that failed: the harness's own trouble, not the parser's.
struct POSIXFailure: Error, CustomStringConvertible {
    let description: String
    init(_ call: String, _ error: Int32) { description = "\(call): \(String(cString: strerror(error)))" }
}

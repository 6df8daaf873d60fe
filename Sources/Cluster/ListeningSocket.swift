#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A TCP socket that listens at a free port. It is made before the ranks are, so that none can find the port taken.
final class ListeningSocket {
    private(set) var descriptor: Int32
    let port: Int

    /// - Throws: ``ClusterError`` with code `system`.
    init(host: String) throws {
        func failed(_ what: String) -> ClusterError {
            ClusterError(.system, "no socket for the ranks at \(host): \(what): \(String(cString: strerror(errno)))")
        }
        let opened = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard opened >= 0 else { throw failed("socket") }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound =
            inet_pton(AF_INET, host, &address.sin_addr) == 1
            && withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(opened, $0, size) == 0 }
            }
        guard bound, listen(opened, SOMAXCONN) == 0 else {
            let error = failed("bind")
            _ = Glibc.close(opened)
            throw error
        }
        var length = size
        _ = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(opened, $0, &length) }
        }
        descriptor = opened
        port = Int(UInt16(bigEndian: address.sin_port))
    }

    /// Here; the rank that inherited it has it still.
    func close() {
        if descriptor >= 0 { _ = Glibc.close(descriptor) }
        descriptor = -1
    }
    deinit { close() }
}

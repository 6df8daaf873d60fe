internal import CProcess

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A TCP connection that carries frames and never makes its thread wait: a length in four bytes, the greatest first, a letter, a body.
final class LinkConnection {
    struct Frame {
        var kind: UInt8
        var body: ArraySlice<UInt8>
    }

    let descriptor: Int32
    private let longest: Int
    private var incoming: [UInt8] = []
    private var outgoing: [UInt8] = []
    private(set) var isOpen = true
    /// When something came last; before that when it began.
    private(set) var lastHeard = ContinuousClock.now

    /// - Parameter longest: a longer frame closes the connection.
    init(_ descriptor: Int32, longest: Int) {
        self.descriptor = descriptor
        self.longest = longest
        var one: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &one, socklen_t(MemoryLayout<Int32>.size))
    }

    deinit { _ = Glibc.close(descriptor) }

    func close() {
        if isOpen { shutdown(descriptor, Int32(SHUT_RDWR)) }
        isOpen = false
    }

    var wantsToWrite: Bool { isOpen && !outgoing.isEmpty }

    /// Whether all that was sent has left this process: what comes after must not pile up behind a peer that reads nothing.
    var isIdle: Bool { outgoing.isEmpty }

    func send(_ kind: UInt8, _ body: [UInt8]) {
        guard isOpen else { return }
        let length = UInt32(body.count + 1)
        outgoing += [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: length >> $0) }
        outgoing.append(kind)
        outgoing += body
        flush()
    }

    func flush() {
        while isOpen, !outgoing.isEmpty {
            let count = outgoing.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
            }
            if count > 0 { outgoing.removeFirst(count) }
            if count < 0, errno == EINTR { continue }
            if count < 0, errno != EAGAIN { isOpen = false }
            if count <= 0 { return }
        }
    }

    /// The whole frames that have come.
    func frames() -> [Frame] {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while isOpen {
            let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            if count < 0, errno == EINTR { continue }
            if count < 0, errno == EAGAIN { break }
            guard count > 0 else {
                isOpen = false
                break
            }
            lastHeard = .now
            incoming += buffer[..<count]
            if incoming.count > longest + (1 << 17) { break }
        }
        var frames: [Frame] = []
        var start = 0
        while incoming.count - start >= 5 {
            let length = incoming[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
            guard length >= 1, length <= longest else {
                isOpen = false
                break
            }
            guard incoming.count - start >= 4 + length else { break }
            frames.append(Frame(kind: incoming[start + 4], body: incoming[(start + 5)..<(start + 4 + length)]))
            start += 4 + length
        }
        incoming.removeFirst(start)
        return frames
    }

    enum Attempt {
        case made(LinkConnection)
        /// Nobody listens there.
        case refused
        case failed
    }

    /// Connects, within the time.
    static func connect(_ host: String, _ port: Int, within milliseconds: Int32, longest: Int) -> Attempt {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, "\(port)", &hints, &found) == 0, let address = found?.pointee else { return .failed }
        defer { freeaddrinfo(found) }
        let descriptor = socket(
            address.ai_family, address.ai_socktype | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { return .failed }
        var failure: Int32 = 0
        if Glibc.connect(descriptor, address.ai_addr, address.ai_addrlen) != 0 {
            failure = errno
            if failure == EINPROGRESS {
                var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                failure = poll(&request, 1, milliseconds) == 1 ? 0 : ETIMEDOUT
                var size = socklen_t(MemoryLayout<Int32>.size)
                if failure == 0 { getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &failure, &size) }
            }
        }
        if failure == 0 { return .made(LinkConnection(descriptor, longest: longest)) }
        _ = Glibc.close(descriptor)
        return failure == ECONNREFUSED ? .refused : .failed
    }
}

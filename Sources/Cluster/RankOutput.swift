#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What comes out of a rank's pipe, cut into lines.
final class RankOutput {
    let stream: Launcher.Stream
    private let descriptor: Int32
    private var isOpen = true
    private var partial: [UInt8] = []
    /// The last lines, for a report.
    private(set) var tail: [String] = []
    private static let tailLength = 5
    /// A longer line comes out in pieces.
    private static let longestLine = 1 << 16

    /// - Parameter descriptor: that never blocks.
    init(_ descriptor: Int32, _ stream: Launcher.Stream) {
        self.descriptor = descriptor
        self.stream = stream
    }

    deinit { close(descriptor) }

    /// Waits until one of them has something to read, or the time is over.
    static func wait(_ outputs: [RankOutput], also other: Int32? = nil, milliseconds: Int32) {
        let descriptors = outputs.filter(\.isOpen).map(\.descriptor) + (other.map { [$0] } ?? [])
        var requests = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        _ = poll(&requests, nfds_t(requests.count), milliseconds)
    }

    /// The whole lines that have come.
    func lines() -> [String] {
        var lines: [String] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while isOpen {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            if count < 0, errno == EAGAIN { break }
            guard count > 0 else {
                isOpen = false
                break
            }
            for byte in buffer[..<count] {
                if byte == UInt8(ascii: "\n") || partial.count >= Self.longestLine {
                    lines.append(take())
                    if byte == UInt8(ascii: "\n") { continue }
                }
                partial.append(byte)
            }
        }
        return lines
    }

    /// What came last, without an end of line.
    func rest() -> String? { partial.isEmpty ? nil : take() }

    private func take() -> String {
        let line = String(decoding: partial, as: UTF8.self)
        partial = []
        tail.append(line)
        if tail.count > Self.tailLength { tail.removeFirst() }
        return line
    }
}

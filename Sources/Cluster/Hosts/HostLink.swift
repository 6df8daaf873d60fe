import Foundation
import CProcess
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Carries between hosts what their ranks show one another, so that a rank that is late or dead on another host is seen as one of the
/// own host is.
///
/// Rank 0's process is the hub. Of every other host one rank, the first that is alive, reports to it several times a second how all
/// ranks of its host do, and hears of the others; the next one takes over when it dies or stands still. A thread of its own does it:
/// neither a busy cooperative pool nor a blocked tensor thread keeps it from reporting.
public final class HostLink: Sendable {
    /// Where the hub listens; what a connection must know to be heard.
    public struct Meeting: Sendable, Hashable, Codable {
        public var host: String
        public var port: Int
        public var token: [UInt8]
    }

    /// The hub's end, before the others know of it.
    public final class Hub {
        public let meeting: Meeting
        let socket: ListeningSocket

        /// - Parameter address: of this host, as the others reach it.
        /// - Throws: ``ClusterError`` with code `system`.
        public init(address: String) throws {
            socket = try ListeningSocket(host: address)
            var random = SystemRandomNumberGenerator()
            meeting = Meeting(
                host: address, port: socket.port, token: (0..<32).map { _ in .random(in: 0...255, using: &random) })
        }
    }

    /// Both ends stay open as long as somebody could write: a pipe that nobody reads kills.
    private let wake: (reader: Int32, writer: Int32)
    private let isStopping = Mutex(false)
    private let ended = DispatchSemaphore(value: 0)

    /// - Parameters:
    ///   - hub: rank 0's.
    ///   - deadline: after which a rank that shows no life is given up.
    /// - Throws: ``ClusterError`` with code `system`.
    public init(
        _ map: HostMap, rank: Int, board: any SharedBoard, meeting: Meeting, hub: Hub? = nil, deadline: Duration
    ) throws {
        var ends: [Int32] = [0, 0]
        guard fledge_pipe(&ends) == 0 else {
            throw ClusterError(.system, "no pipe for the link between hosts: \(String(cString: strerror(errno)))")
        }
        wake = (ends[0], ends[1])
        let state = LinkState(map, rank: rank, board: board, meeting: meeting, deadline: deadline)
        let socket = hub?.socket
        let isStopped: @Sendable () -> Bool = { [weak self] in self?.isStopping.withLock { $0 } ?? true }
        let reader = ends[0], ended = ended
        nonisolated(unsafe) let body: any LinkLoop = socket.map { LinkHub(state, $0) } ?? LinkMember(state)
        let thread = Thread {
            body.run(wake: reader, isStopped: isStopped)
            ended.signal()
        }
        thread.stackSize = 1 << 20
        thread.start()
    }

    /// Sends a last report, which says how this rank ended, and closes. Takes a second at most.
    public func stop() {
        guard
            isStopping.withLock({ isStopping in
                defer { isStopping = true }
                return !isStopping
            })
        else { return }
        var byte: UInt8 = 0
        _ = write(wake.writer, &byte, 1)
        _ = ended.wait(timeout: .now() + 1.5)
    }

    deinit {
        stop()
        close(wake.writer)
        close(wake.reader)
    }
}

/// What both ends of the link know.
struct LinkState {
    let map: HostMap
    let rank: Int
    let host: Int
    let board: any SharedBoard
    let meeting: HostLink.Meeting
    let deadline: Duration
    /// Between reports.
    let interval: Duration

    init(_ map: HostMap, rank: Int, board: any SharedBoard, meeting: HostLink.Meeting, deadline: Duration) {
        self.map = map
        self.rank = rank
        host = map.host(of: rank)
        self.board = board
        self.meeting = meeting
        self.deadline = deadline
        // Of many hosts the hub hears less often, as far as the deadline allows.
        interval = min(max(deadline / 8, .milliseconds(10)), .milliseconds(map.hosts.count > 16 ? 1000 : 250))
    }

    /// How long a broken connection may take to be made anew.
    var grace: Duration { min(max(deadline / 4, .milliseconds(200)), .seconds(2)) }
    var longestFrame: Int { 1024 + map.ranks * 4200 }

    /// Letters of frames.
    enum Kind {
        static let hello = UInt8(ascii: "H"), reports = UInt8(ascii: "R"), goodbye = UInt8(ascii: "G")
    }

    /// Reports of the ranks of some hosts.
    func reports(of hosts: some Sequence<Int>) -> [UInt8] {
        var bytes: [UInt8] = []
        for host in hosts {
            for rank in map.hosts[host].ranks {
                let report = board.report(rank)
                bytes += Self.bytes(UInt32(rank)) + Self.bytes(UInt32(report.count)) + report
            }
        }
        return bytes
    }

    /// Takes reports of ranks that the sender may speak for; false where they are none.
    func take(_ body: ArraySlice<UInt8>, from hosts: Set<Int>) -> Bool {
        var rest = body
        while !rest.isEmpty {
            guard let rank = Self.number(&rest), let count = Self.number(&rest), count <= rest.count, rank < map.ranks,
                hosts.contains(map.host(of: rank))
            else { return false }
            do { try board.take(Array(rest.prefix(count)), of: rank) } catch { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }

    static func bytes(_ number: UInt32) -> [UInt8] { [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) } }

    static func number(_ bytes: inout ArraySlice<UInt8>) -> Int? {
        guard bytes.count >= 4 else { return nil }
        defer { bytes = bytes.dropFirst(4) }
        return bytes.prefix(4).reduce(0) { $0 << 8 | Int($1) }
    }
}

/// One end of the link, on its thread.
protocol LinkLoop: AnyObject {
    func run(wake: Int32, isStopped: () -> Bool)
}

extension LinkLoop {
    /// Waits until a descriptor can be read (or a connection written), or the time is over.
    func wait(_ descriptors: [Int32], _ connections: [LinkConnection], until time: ContinuousClock.Instant) {
        var requests = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        for connection in connections {
            let events = POLLIN | (connection.wantsToWrite ? POLLOUT : 0)
            requests.append(pollfd(fd: connection.descriptor, events: Int16(events), revents: 0))
        }
        let left = (time - .now) / .milliseconds(1)
        _ = poll(&requests, nfds_t(requests.count), Int32(max(0, min(left.rounded(.up), 1000))))
    }

    /// Waits until all is sent, a second at most.
    func drain(_ connections: [LinkConnection]) {
        let limit = ContinuousClock.now + .seconds(1)
        while connections.contains(where: \.wantsToWrite), ContinuousClock.now < limit {
            var requests = connections.filter(\.wantsToWrite).map {
                pollfd(fd: $0.descriptor, events: Int16(POLLOUT), revents: 0)
            }
            _ = poll(&requests, nfds_t(requests.count), 20)
            for connection in connections { connection.flush() }
        }
    }
}

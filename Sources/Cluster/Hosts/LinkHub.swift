#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Rank 0's end of the link: hears every host's reports and passes them on.
final class LinkHub: LinkLoop {
    private let state: LinkState
    private let socket: ListeningSocket
    /// Connections that have not said who they are, and the hosts'.
    private var strangers: [LinkConnection] = []
    private var members: [Int: LinkConnection] = [:]
    /// When a host that closed its connection is given up.
    private var givesUp: [Int: ContinuousClock.Instant] = [:]

    private static let mostStrangers = 256

    init(_ state: LinkState, _ socket: ListeningSocket) {
        self.state = state
        self.socket = socket
        _ = fcntl(socket.descriptor, F_SETFL, O_NONBLOCK)
    }

    func run(wake: Int32, isStopped: () -> Bool) {
        var next = ContinuousClock.now
        while !isStopped() {
            wait([wake, socket.descriptor], strangers + Array(members.values), until: next)
            accept()
            for stranger in strangers { greet(stranger) }
            for (host, connection) in members { hear(host, connection) }
            guard ContinuousClock.now >= next else { continue }
            next = .now + state.interval
            giveUp()
            for (host, connection) in members where connection.isIdle {
                connection.send(LinkState.Kind.reports, reports(for: host))
            }
        }
        for (host, connection) in members { connection.send(LinkState.Kind.reports, reports(for: host)) }
        for connection in members.values { connection.send(LinkState.Kind.goodbye, []) }
        drain(Array(members.values))
        for connection in members.values { connection.close() }
        socket.close()
    }

    private func reports(for host: Int) -> [UInt8] { state.reports(of: state.map.hosts.indices.filter { $0 != host }) }

    private func accept() {
        while true {
            let descriptor = Glibc.accept(socket.descriptor, nil, nil)
            guard descriptor >= 0 else { break }
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            strangers.append(LinkConnection(descriptor, longest: state.longestFrame))
        }
        strangers.removeAll { !$0.isOpen || $0.lastHeard < .now - .seconds(10) }
        if strangers.count > Self.mostStrangers { strangers.removeFirst(strangers.count - Self.mostStrangers) }
    }

    private func greet(_ connection: LinkConnection) {
        let frames = connection.frames()
        guard let hello = frames.first else { return }
        strangers.removeAll { $0 === connection }
        let token = hello.body.prefix(state.meeting.token.count)
        var rest = hello.body.dropFirst(token.count)
        // Every byte is looked at: how long it takes says nothing of where they differ.
        let difference = zip(token, state.meeting.token).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) }
        guard hello.kind == LinkState.Kind.hello, token.count == state.meeting.token.count, difference == 0,
            let host = LinkState.number(&rest), state.map.hosts.indices.contains(host), host != state.host
        else { return connection.close() }
        // The one before stands still, or its end has not been heard of yet.
        members[host]?.close()
        members[host] = connection
        givesUp[host] = nil
        take(Array(frames.dropFirst()), host, connection)
    }

    private func hear(_ host: Int, _ connection: LinkConnection) {
        connection.flush()
        take(connection.frames(), host, connection)
        guard !connection.isOpen else { return }
        members[host] = nil
        givesUp[host] = .now + state.grace
    }

    private func take(_ frames: [LinkConnection.Frame], _ host: Int, _ connection: LinkConnection) {
        for frame in frames where frame.kind == LinkState.Kind.reports {
            if !state.take(frame.body, from: [host]) { connection.close() }
        }
    }

    /// Nobody of the host has come back: all of it is gone.
    private func giveUp() {
        for (host, limit) in givesUp where limit < .now {
            givesUp[host] = nil
            for rank in state.map.hosts[host].ranks where !state.board.hasEnded(rank) { state.board.lose(rank) }
        }
    }
}

/// Another host's end of the link: every rank of the host has one, and the first that is alive speaks.
final class LinkMember: LinkLoop {
    private let state: LinkState
    private var connection: LinkConnection?
    private var isOver = false
    private var lastHeard = ContinuousClock.now

    init(_ state: LinkState) { self.state = state }

    func run(wake: Int32, isStopped: () -> Bool) {
        // The hub's own host sees its ranks itself.
        if state.host == 0 { return }
        var next = ContinuousClock.now
        while !isStopped() {
            wait([wake], connection.map { [$0] } ?? [], until: next)
            hear()
            guard ContinuousClock.now >= next else { continue }
            next = .now + state.interval
            look()
        }
        if speaks, connection == nil { connect() }
        connection?.send(LinkState.Kind.reports, state.reports(of: [state.host]))
        connection?.send(LinkState.Kind.goodbye, [])
        if let connection { drain([connection]) }
        connection?.close()
    }

    /// Whether it is this rank that reports for its host: those before it are dead, have ended or stand still.
    private var speaks: Bool {
        !state.map.hosts[state.host].ranks.prefix { $0 < state.rank }
            .contains { state.board.isAlive($0, within: state.deadline / 2) }
    }

    private func look() {
        guard !isOver else { return keep(besides: nil) }
        if connection == nil, speaks { connect() }
        guard let connection else { return }
        if connection.isIdle { connection.send(LinkState.Kind.reports, state.reports(of: [state.host])) }
        // The hub relays: while it is silent, it alone is to be suspected.
        if lastHeard < .now - max(state.interval * 3, .milliseconds(200)) { keep(besides: 0) }
    }

    private func keep(besides rank: Int?) {
        for (host, place) in state.map.hosts.enumerated() where host != state.host {
            for other in place.ranks where other != rank { state.board.keep(other) }
        }
    }

    private func hear() {
        guard let connection else { return }
        connection.flush()
        let others = Set(state.map.hosts.indices).subtracting([state.host])
        for frame in connection.frames() {
            lastHeard = .now
            switch frame.kind {
            case LinkState.Kind.reports: if !state.take(frame.body, from: others) { connection.close() }
            case LinkState.Kind.goodbye: isOver = true
            default: connection.close()
            }
        }
        guard !connection.isOpen else { return }
        self.connection = nil
        // Without the hub there is nothing more to hear; a rank that waits for one that has ended says so itself.
        if !isOver { connect() }
    }

    private func connect() {
        switch LinkConnection.connect(
            state.meeting.host, state.meeting.port, within: 1000, longest: state.longestFrame)
        {
        case .made(let connection):
            self.connection = connection
            lastHeard = .now
            connection.send(LinkState.Kind.hello, state.meeting.token + LinkState.bytes(UInt32(state.host)))
            connection.send(LinkState.Kind.reports, state.reports(of: [state.host]))
        case .refused:
            // Rank 0's process is gone, and its socket with it.
            if state.board.hasEnded(0) { isOver = true } else { state.board.lose(0) }
            keep(besides: 0)
        case .failed: keep(besides: 0)
        }
    }
}

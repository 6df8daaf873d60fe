import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Cluster

/// A board whose ranks say what a test makes them say.
private final class ToyBoard: SharedBoard {
    struct Slot {
        var text = "start"
        var isAlive = true
        var hasEnded = false
        var isLost = false
        var kept = 0
    }
    private let slots: Mutex<[Slot]>

    init(ranks: Int) { slots = Mutex(Array(repeating: Slot(), count: ranks)) }

    subscript(rank: Int) -> Slot {
        get { slots.withLock { $0[rank] } }
        set { slots.withLock { $0[rank] = newValue } }
    }
    func report(_ rank: Int) -> [UInt8] { Array(self[rank].text.utf8) }
    func take(_ report: [UInt8], of rank: Int) throws {
        let text = String(decoding: report, as: UTF8.self)
        if text == "nonsense" { throw ClusterError(.system, text) }
        self[rank].text = text
    }
    func lose(_ rank: Int) { self[rank].isLost = true }
    func keep(_ rank: Int) { self[rank].kept += 1 }
    func isAlive(_ rank: Int, within time: Duration) -> Bool { self[rank].isAlive }
    func hasEnded(_ rank: Int) -> Bool { self[rank].hasEnded }
}

/// Two hosts: ranks 0 and 1, and ranks 2 and 3.
private struct Hosts {
    let map = HostMap([
        .init(identity: "a", address: "127.0.0.2"), .init(identity: "a", address: "127.0.0.2"),
        .init(identity: "b", address: "127.0.0.3"), .init(identity: "b", address: "127.0.0.3"),
    ])
    let near = ToyBoard(ranks: 4), far = ToyBoard(ranks: 4)
    let meeting: HostLink.Meeting
    let deadline = Duration.seconds(2)
    var links: [Int: HostLink] = [:]

    init() throws {
        let hub = try HostLink.Hub(address: "127.0.0.2")
        meeting = hub.meeting
        links[0] = try HostLink(map, rank: 0, board: near, meeting: meeting, hub: hub, deadline: deadline)
    }

    /// A connection to the hub that has said nothing yet.
    func connected() -> LinkConnection? {
        guard case .made(let made) = LinkConnection.connect(meeting.host, meeting.port, within: 5000, longest: 1 << 20)
        else { return nil }
        return made
    }

    mutating func join(_ rank: Int) throws {
        links[rank] = try HostLink(
            map, rank: rank, board: rank < 2 ? near : far, meeting: meeting, deadline: deadline)
    }
}

@Suite struct HostLinkTests {
    @Test func ranksAreSortedByHost() {
        let map = HostMap([
            .init(identity: "a", address: "1"), .init(identity: "b", address: "2"), .init(identity: "a", address: "1"),
        ])
        #expect(map.hosts.map(\.ranks) == [[0, 2], [1]] && map.hosts.map(\.address) == ["1", "2"])
        #expect(map.host(of: 2) == 0 && map.host(of: 1) == 1 && map.ranks == 3)
    }

    @Test func reportsReachTheOtherHost() async throws {
        var hosts = try Hosts()
        for rank in 1...3 { try hosts.join(rank) }
        hosts.near[0].text = "zero"
        hosts.near[1].text = "one"
        hosts.far[2].text = "two"
        hosts.far[3].text = "three"
        let (near, far) = (hosts.near, hosts.far)
        #expect(await holds { near[2].text == "two" && near[3].text == "three" })
        #expect(await holds { far[0].text == "zero" && far[1].text == "one" })
        // The last word comes along too.
        hosts.far[3].text = "ends"
        hosts.far[2].isAlive = false
        hosts.links[3]?.stop()
        #expect(await holds { near[3].text == "ends" })
    }

    @Test func theNextRankSpeaksForAHostWhoseFirstIsDead() async throws {
        var hosts = try Hosts()
        try hosts.join(2)
        try hosts.join(3)
        let near = hosts.near
        hosts.far[3].text = "before"
        #expect(await holds { near[3].text == "before" })
        hosts.far[2].isAlive = false
        hosts.links[2] = nil
        hosts.far[3].text = "after"
        #expect(await holds { near[3].text == "after" })
        #expect(!near[3].isLost && !near[2].isLost)
    }

    @Test func aHostThatIsGoneIsLost() async throws {
        var hosts = try Hosts()
        try hosts.join(2)
        let (near, far) = (hosts.near, hosts.far)
        far[2].text = "there"
        #expect(await holds { near[2].text == "there" })
        near[3].hasEnded = true
        hosts.links[2] = nil
        #expect(await holds { near[2].isLost })
        #expect(!near[3].isLost && !near[1].isLost)
    }

    @Test func aHubThatIsGoneIsLostAndTheOthersAreNot() async throws {
        let board = ToyBoard(ranks: 4)
        var hosts = try Hosts()
        // Nobody listens there any more.
        hosts.links[0]?.stop()
        let link = try HostLink(
            hosts.map, rank: 2, board: board, meeting: hosts.meeting, deadline: .milliseconds(400))
        #expect(await holds { board[0].isLost && board[1].kept > 2 })
        #expect(!board[1].isLost && board[0].kept == 0)
        link.stop()
    }

    @Test func aHubThatEndsWellIsNotLost() async throws {
        var hosts = try Hosts()
        try hosts.join(2)
        let (near, far) = (hosts.near, hosts.far)
        near[0].text = "here"
        #expect(await holds { far[0].text == "here" })
        near[0].text = "left"
        hosts.links[0]?.stop()
        #expect(await holds { far[0].text == "left" && far[0].kept > 2 })
        #expect(!far[0].isLost)
    }

    /// Strangers, and what is no frame, change nothing and end nothing.
    @Test(arguments: [
        [UInt8](repeating: 0xFF, count: 64), [0, 0, 0, 0, 0], Array("GET / HTTP/1.1\r\n\r\n".utf8),
        [0, 0, 0, 38, 72] + [UInt8](repeating: 0, count: 37),
        // Reports before any hello.
        [0, 0, 0, 13, 82, 0, 0, 0, 2, 0, 0, 0, 4] + Array("evil".utf8),
    ])
    func strangersAreNotHeard(bytes: [UInt8]) async throws {
        var hosts = try Hosts()
        let stranger = try #require(hosts.connected())
        _ = bytes.withUnsafeBytes { write(stranger.descriptor, $0.baseAddress, $0.count) }
        try hosts.join(2)
        let (near, far) = (hosts.near, hosts.far)
        far[2].text = "there"
        #expect(await holds { near[2].text == "there" })
        #expect(near[0].text == "start")
    }

    /// One who knows the token but speaks for ranks of another host, or nonsense, is cut off.
    @Test(arguments: [(0, "x"), (1, "x"), (9, "x"), (2, "nonsense")])
    func whatAHostMayNotSayIsNotTaken(rank: Int, text: String) async throws {
        let hosts = try Hosts()
        let member = try #require(hosts.connected())
        member.send(LinkState.Kind.hello, hosts.meeting.token + LinkState.bytes(1))
        member.send(
            LinkState.Kind.reports,
            LinkState.bytes(UInt32(rank)) + LinkState.bytes(UInt32(text.utf8.count)) + Array(text.utf8))
        #expect(
            await holds {
                _ = member.frames()
                return !member.isOpen
            })
        #expect(hosts.near[0].text == "start" && hosts.near[2].text == "start")
    }
}

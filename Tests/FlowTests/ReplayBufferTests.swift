import Flow
import Foundation
import Testing

@Suite struct ReplayBufferTests {
    static func entry(_ id: Int, version: Int = 0, priority: Double = 0) -> ReplayBuffer.Entry {
        ReplayBuffer.Entry(id: id, version: version, priority: priority, trajectories: [])
    }

    static func buffer(
        capacity: Int = 100, staleness: Int = 10, uses: Int = 1, order: ReplayBuffer.Settings.Order = .oldest
    ) -> ReplayBuffer {
        ReplayBuffer(.init(capacity: capacity, maxStaleness: staleness, uses: uses, order: order))
    }

    @Test func `A group counts once, however often and in whatever order it comes`() {
        var buffer = Self.buffer()
        for id in [2, 0, 1, 5, 1, 2, 0, 5] { buffer.insert(Self.entry(id)) }
        #expect(buffer.entries.map(\.id) == [2, 0, 1, 5])
        let taken = buffer.take(4, at: 0)
        #expect(taken?.map(\.id) == [0, 1, 2, 5])
        let isNew = buffer.insert(Self.entry(1))
        #expect(!isNew && buffer.count == 0)
        #expect(buffer.hasSeen(5) && !buffer.hasSeen(3))
    }

    @Test func `Nothing is given until enough is there that is not too old`() {
        var buffer = Self.buffer(staleness: 1)
        buffer.insert(Self.entry(0, version: 0))
        buffer.insert(Self.entry(1, version: 1))
        let none = buffer.take(2, at: 2)
        #expect(none == nil)
        #expect(buffer.dropped == 1)
        buffer.insert(Self.entry(2, version: 2))
        let two = buffer.take(2, at: 2)
        #expect(two?.map(\.id) == [1, 2])
    }

    @Test(arguments: [
        (ReplayBuffer.Settings.Order.oldest, [1, 0], 2), (.newest, [2, 0], 1), (.priority, [0, 2], 1),
    ])
    func `Order decides what goes first, and what makes room`(
        _ order: ReplayBuffer.Settings.Order, _ taken: [Int], _ evicted: Int
    ) {
        let entries = [
            Self.entry(0, version: 2, priority: 9), Self.entry(1, version: 1, priority: 1),
            Self.entry(2, version: 3, priority: 5),
        ]
        var buffer = Self.buffer(order: order)
        for entry in entries { buffer.insert(entry) }
        let found = buffer.take(2, at: 3)
        #expect(found?.map(\.id) == taken)
        var small = Self.buffer(capacity: 2, order: order)
        for entry in entries { small.insert(entry) }
        #expect(small.evicted == 1 && !small.entries.contains { $0.id == evicted })
    }

    @Test func `A group may be used several times`() {
        var buffer = Self.buffer(uses: 2)
        buffer.insert(Self.entry(0))
        let first = buffer.take(1, at: 0), second = buffer.take(1, at: 0), third = buffer.take(1, at: 0)
        #expect(first?.count == 1 && second?.count == 1 && third == nil)
    }

    @Test func `What is saved goes on as if never stopped`() throws {
        var buffer = Self.buffer()
        for id in [4, 0, 2] { buffer.insert(Self.entry(id, version: id)) }
        _ = buffer.take(1, at: 4)
        var read = try JSONDecoder().decode(ReplayBuffer.self, from: JSONEncoder().encode(buffer))
        #expect(read == buffer)
        read.insert(Self.entry(0))
        #expect(read == buffer)
    }

    /// Whatever comes and goes, no group is taken twice and none is lost without a count.
    @Test(arguments: 0..<20) func `Groups are taken once or counted as lost`(_ seed: UInt64) {
        var generator = Generator(state: seed &+ 1)
        var buffer = Self.buffer(capacity: 6, staleness: 2)
        var taken: [Int] = [], version = 0, inserted: Set<Int> = []
        for _ in 0..<400 {
            switch generator.next() % 4 {
            case 0:
                version += 1
            case 1:
                taken += buffer.take(Int(generator.next() % 3) + 1, at: version)?.map(\.id) ?? []
            default:
                let id = Int(generator.next() % 60)
                buffer.insert(Self.entry(id, version: max(0, version - Int(generator.next() % 4))))
                inserted.insert(id)
            }
        }
        #expect(Set(taken).count == taken.count)
        #expect(taken.count + buffer.count + buffer.dropped + buffer.evicted == inserted.count)
    }

    struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }
    }
}

/// Groups of scored answers that wait to be learned from, each with the version of the weights that began it. A value: what is saved with
/// a checkpoint is what a resumed run goes on with.
public struct ReplayBuffer: Sendable, Hashable, Codable {
    public struct Settings: Sendable, Hashable, Codable {
        /// Which group is taken first.
        public enum Order: String, Sendable, Hashable, Codable, CaseIterable { case oldest, newest, priority }

        /// Groups that it holds at most; the one that would be taken last makes room.
        public var capacity: Int
        /// Versions that a group's weights may be behind those that learn from it.
        public var maxStaleness: Int
        /// How often a group may be taken.
        public var uses: Int
        public var order: Order

        public init(capacity: Int, maxStaleness: Int, uses: Int = 1, order: Order = .oldest) {
            precondition(capacity > 0 && maxStaleness >= 0 && uses > 0, "a buffer that can give nothing")
            self.capacity = capacity
            self.maxStaleness = maxStaleness
            self.uses = uses
            self.order = order
        }
    }

    public struct Entry: Sendable, Hashable, Codable {
        /// The group's number in the run: no other has it.
        public var id: Int
        /// The oldest weights that drew any of its tokens.
        public var version: Int
        public var priority: Double
        public var trajectories: [Trajectory]
        /// How often it was taken.
        public fileprivate(set) var taken = 0

        public init(id: Int, version: Int, priority: Double = 0, trajectories: [Trajectory]) {
            self.id = id
            self.version = version
            self.priority = priority
            self.trajectories = trajectories
        }
    }

    public let settings: Settings
    /// In order of arrival.
    public private(set) var entries: [Entry] = []
    /// Groups that were dropped because their weights were too old, and because there was no room.
    public private(set) var dropped = 0, evicted = 0
    /// Groups that have come are never taken in again: those below `seenBelow`, and these.
    private var seenBelow = 0
    private var seen: Set<Int> = []

    public init(_ settings: Settings) { self.settings = settings }

    public var count: Int { entries.count }

    /// Whether the group has come before, whatever became of it.
    public func hasSeen(_ id: Int) -> Bool { id < seenBelow || seen.contains(id) }

    /// Takes a group in; one that has come before is refused, so that none counts twice.
    /// - Returns: whether it was new.
    @discardableResult
    public mutating func insert(_ entry: Entry) -> Bool {
        guard !hasSeen(entry.id) else { return false }
        seen.insert(entry.id)
        while seen.remove(seenBelow) != nil { seenBelow += 1 }
        entries.append(entry)
        if entries.count > settings.capacity, let last = ranked.last {
            entries.remove(at: last)
            evicted += 1
        }
        return true
    }

    /// Gives up what has become too old for weights of `version`.
    /// - Returns: how many groups.
    @discardableResult
    public mutating func drop(olderThanFits version: Int) -> Int {
        let before = entries.count
        entries.removeAll { version - $0.version > settings.maxStaleness }
        dropped += before - entries.count
        return before - entries.count
    }

    /// The next `count` groups for weights of `version`; nil where fewer are there that are not too old.
    public mutating func take(_ count: Int, at version: Int) -> [Entry]? {
        drop(olderThanFits: version)
        guard count > 0, entries.count >= count else { return nil }
        return take(Array(ranked.prefix(count)))
    }

    /// The groups that `isWanted` asks for, in the order of their numbers.
    public mutating func take(where isWanted: (Entry) -> Bool) -> [Entry] {
        take(entries.indices.filter { isWanted(entries[$0]) }.sorted { entries[$0].id < entries[$1].id })
    }

    /// Gives up the groups that nobody wants.
    /// - Returns: how many.
    @discardableResult
    public mutating func remove(where isUnwanted: (Entry) -> Bool) -> Int {
        let before = entries.count
        entries.removeAll(where: isUnwanted)
        return before - entries.count
    }

    private mutating func take(_ places: [Int]) -> [Entry] {
        for place in places { entries[place].taken += 1 }
        let found = places.map { entries[$0] }
        entries.removeAll { $0.taken >= settings.uses }
        return found
    }

    /// Places in ``entries``, the one to be taken first before the others.
    private var ranked: [Int] {
        switch settings.order {
        case .oldest:
            entries.indices.sorted { (entries[$0].version, entries[$0].id) < (entries[$1].version, entries[$1].id) }
        case .newest:
            entries.indices.sorted { (entries[$0].version, entries[$0].id) > (entries[$1].version, entries[$1].id) }
        case .priority:
            entries.indices.sorted {
                (-entries[$0].priority, entries[$0].id) < (-entries[$1].priority, entries[$1].id)
            }
        }
    }
}

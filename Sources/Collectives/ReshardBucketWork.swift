internal import TensorCore

/// One rank's part in one bucket. What lies contiguous and has the type it travels as is sent from, and received to, where it is; the
/// rest, and what is small, goes by way of staging memory, all of it packed by few kernels.
final class ReshardBucketWork {
    let index: Int
    private(set) var sentBytes = 0, receivedBytes = 0, copiedBytes = 0, aliasedBytes = 0
    private(set) var messageCount = 0
    /// Targets, and how many elements of each this bucket brings.
    private(set) var filled: [(target: Int, count: Int)] = []
    var stagedBytes: Int { staging.byteCount }

    private let rank: Int
    private var staging = ReshardStaging()
    private var pending: [PendingOperation] = []
    private var unpacks: [(to: Tensor, from: ReshardStaging.Slot)] = []

    /// Starts the bucket: packs, and sends.
    init(
        _ index: Int, _ bucket: ReshardPlan.Bucket, _ resharder: Resharder, sources: [LocalShard], targets: [LocalShard]
    ) throws {
        self.index = index
        rank = resharder.rank
        let device = (targets.first ?? sources.first)?.tensor.device ?? .cpu
        // The group's tensors lie on one device: what is offloaded to the host goes by way of staging memory.
        func isReady(_ view: Tensor, _ dtype: DType) -> Bool {
            view.isContiguous && view.dtype == dtype && view.device == device
        }
        var copies = Copies()
        var packs: [(from: Tensor, to: ReshardStaging.Slot)] = []
        var sends: [Post] = [], receives: [Post] = []
        var small = SmallMessages(limit: resharder.plan.options.messageBytes)

        for move in bucket.moves where move.from == rank || move.to == rank {
            if move.to == rank { filled.append((move.wanted, move.box.count)) }
            if move.isLocal {
                let from = try sources[move.held].view(of: move.box), to = try targets[move.wanted].view(of: move.box)
                let bytes = to.byteCount
                if from.isSameMemory(as: to) {
                    aliasedBytes += bytes
                } else {
                    copiedBytes += bytes
                    copies.add(from, to)
                }
            } else if small.take(move) {
                continue
            } else if move.from == rank {
                sentBytes += move.byteCount
                let view = try sources[move.held].view(of: move.box)
                if isReady(view, move.dtype) {
                    sends.append(Post(peer: move.to, place: .memory(view)))
                } else {
                    let slot = staging.reserve(move.box.sizes, move.dtype)
                    packs.append((view, slot))
                    sends.append(Post(peer: move.to, place: .staged(slot)))
                }
            } else {
                receivedBytes += move.byteCount
                let view = try targets[move.wanted].view(of: move.box)
                if isReady(view, move.dtype) {
                    receives.append(Post(peer: move.from, place: .memory(view)))
                } else {
                    let slot = staging.reserve(move.box.sizes, move.dtype)
                    unpacks.append((view, slot))
                    receives.append(Post(peer: move.from, place: .staged(slot)))
                }
            }
        }
        // After the large ones, one message for each pair of ranks.
        for (pair, moves) in small.messages where pair.from == rank || pair.to == rank {
            let slots = moves.map { staging.reserve($0.box.sizes, $0.dtype, tight: $0 != moves.first) }
            let whole = staging.run(slots)
            if pair.from == rank {
                for (move, slot) in zip(moves, slots) {
                    packs.append((try sources[move.held].view(of: move.box), slot))
                }
                sentBytes += moves.reduce(0) { $0 + $1.byteCount }
                sends.append(Post(peer: pair.to, place: .staged(whole)))
            } else {
                for (move, slot) in zip(moves, slots) {
                    unpacks.append((try targets[move.wanted].view(of: move.box), slot))
                }
                receivedBytes += moves.reduce(0) { $0 + $1.byteCount }
                receives.append(Post(peer: pair.from, place: .staged(whole)))
            }
        }
        var gathers: [[Int]: [(from: Place, to: Place)]] = [:], order: [[Int]] = []
        for gather in bucket.gathers {
            guard let member = gather.ranks.firstIndex(of: rank) else { continue }
            let from = try sources[gather.held[member]].view(of: gather.part(member))
            let to = try targets[gather.wanted[member]].view(of: gather.box)
            filled.append((gather.wanted[member], gather.box.count))
            let part = gather.byteCount / gather.ranks.count
            sentBytes += part * (gather.ranks.count - 1)
            receivedBytes += part * (gather.ranks.count - 1)
            copiedBytes += part
            var input = Place.memory(from), output = Place.memory(to)
            if !isReady(from, gather.dtype) {
                let slot = staging.reserve(gather.part(member).sizes, gather.dtype)
                packs.append((from, slot))
                input = .staged(slot)
            }
            if !isReady(to, gather.dtype) {
                let slot = staging.reserve(gather.box.sizes, gather.dtype)
                unpacks.append((to, slot))
                output = .staged(slot)
            }
            if gathers[gather.ranks] == nil { order.append(gather.ranks) }
            gathers[gather.ranks, default: []].append((input, output))
        }

        try staging.allocate(on: device)
        for pack in packs { copies.add(pack.from, try staging.tensor(pack.to)) }
        try copies.run()
        for ranks in order {
            let pairs = gathers[ranks] ?? []
            pending.append(
                try resharder.group(of: ranks).startAllGather(
                    pairs.map { try tensor($0.from) }, into: pairs.map { try tensor($0.to) }))
            messageCount += pairs.count
        }
        if !sends.isEmpty || !receives.isEmpty, let group = resharder.group {
            pending.append(
                try group.startExchange(
                    sends: sends.map { try .init(tensor($0.place), peer: $0.peer) },
                    receives: receives.map { try .init(tensor($0.place), peer: $0.peer) }))
            messageCount += sends.count + receives.count
        }
    }

    /// Waits, and puts what arrived in staging memory where it belongs.
    func finish() throws {
        for operation in pending { try operation.wait() }
        var copies = Copies()
        for unpack in unpacks { copies.add(try staging.tensor(unpack.from), unpack.to) }
        try copies.run()
        pending.removeAll()
    }

    private func tensor(_ place: Place) throws -> Tensor {
        switch place {
        case .memory(let tensor): tensor
        case .staged(let slot): try staging.tensor(slot)
        }
    }

    private enum Place {
        case memory(Tensor)
        case staged(ReshardStaging.Slot)
    }

    private struct Post {
        let peer: Int
        let place: Place
    }

    private struct Copies {
        private var from: [Tensor] = [], to: [Tensor] = []
        mutating func add(_ source: Tensor, _ target: Tensor) {
            from.append(source)
            to.append(target)
        }
        func run() throws { try Tensor.copy(from, into: to) }
    }
}

/// Small moves between the same two ranks, which share a message. Sender and receiver find the same.
struct SmallMessages {
    struct Pair: Hashable {
        let from, to: Int
    }

    private let limit: Int
    private var byPair: [Pair: [ReshardPlan.Move]] = [:]
    private var order: [Pair] = []

    init(limit: Int) { self.limit = limit }

    mutating func take(_ move: ReshardPlan.Move) -> Bool {
        guard move.byteCount < limit else { return false }
        let pair = Pair(from: move.from, to: move.to)
        if byPair[pair] == nil { order.append(pair) }
        byPair[pair, default: []].append(move)
        return true
    }

    var messages: [(pair: Pair, moves: [ReshardPlan.Move])] { order.map { ($0, byPair[$0] ?? []) } }
}

/// One block of memory for all that a bucket packs.
struct ReshardStaging {
    struct Slot {
        let range: Range<Int>
        let sizes: [Int]
        let dtype: DType
    }

    private(set) var byteCount = 0
    private var memory: Tensor?
    /// Wide enough for every type, and for vector loads of kernels.
    private static let alignment = 16, blockAlignment = 256

    /// - Parameter tight: beside what was reserved before, as parts of one message are; else where a message may begin.
    mutating func reserve(_ sizes: [Int], _ dtype: DType, tight: Bool = false) -> Slot {
        let alignment = tight ? Self.alignment : Self.blockAlignment
        let start = (byteCount + alignment - 1) / alignment * alignment
        byteCount = start + sizes.reduce(1, *) * dtype.size
        return Slot(range: start..<byteCount, sizes: sizes, dtype: dtype)
    }

    /// All bytes of slots that were reserved one after the other, the first of them not tight.
    func run(_ slots: [Slot]) -> Slot {
        let range = slots[0].range.lowerBound..<slots[slots.count - 1].range.upperBound
        return Slot(range: range, sizes: [range.count], dtype: .uint8)
    }

    mutating func allocate(on device: Device) throws {
        if byteCount > 0 { memory = try Tensor.empty([byteCount], dtype: .uint8, device: device) }
    }

    func tensor(_ slot: Slot) throws -> Tensor {
        guard let memory else { preconditionFailure("a slot of staging memory that was not allocated") }
        let bytes = try memory.narrowed(0, slot.range)
        return slot.dtype == .uint8
            ? try bytes.reshaped(slot.sizes) : try bytes.viewed(as: slot.dtype).reshaped(slot.sizes)
    }
}

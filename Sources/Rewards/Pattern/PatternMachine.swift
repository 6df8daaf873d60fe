/// Pike's machine (R. Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009): all ways to match go
/// through the text side by side, in order of preference, at most one at each instruction.
struct PatternMachine {
    let program: PatternProgram
    let text: ContiguousArray<Unicode.Scalar>
    let whole: Bool

    /// The ways that are alive at one place in the text.
    private struct Ways {
        var counters: [Int] = []
        /// `slotCount` for each counter.
        var slots: [Int] = []
        /// Which instructions were reached at this place.
        var isReached: [Bool]

        init(count: Int) { isReached = [Bool](repeating: false, count: count) }

        mutating func clear() {
            counters.removeAll(keepingCapacity: true)
            slots.removeAll(keepingCapacity: true)
            for index in isReached.indices { isReached[index] = false }
        }
    }

    private enum Pending {
        case visit(Int)
        case restore(slot: Int, value: Int)
    }

    private var pending: [Pending] = []

    init(program: PatternProgram, text: ContiguousArray<Unicode.Scalar>, whole: Bool) {
        self.program = program
        self.text = text
        self.whole = whole
    }

    /// The slots of the preferred match: offsets in scalars, -1 for a group that took no part.
    mutating func run() -> [Int]? {
        var current = Ways(count: program.instructions.count)
        var next = current
        var best: [Int]?
        var fresh = [Int](repeating: -1, count: program.slotCount)
        for position in 0...text.count {
            if best == nil, position == 0 || !whole { follow(0, at: position, slots: &fresh, into: &current) }
            if current.counters.isEmpty && (best != nil || whole) { break }
            next.clear()
            for way in current.counters.indices {
                let counter = current.counters[way]
                var slots = Array(current.slots[way * program.slotCount..<(way + 1) * program.slotCount])
                if case .match = program.instructions[counter] {
                    if whole && position < text.count { continue }
                    best = slots
                    // The ways after this one are less preferred.
                    break
                }
                if position < text.count, consumes(program.instructions[counter], text[position]) {
                    follow(counter + 1, at: position + 1, slots: &slots, into: &next)
                }
            }
            swap(&current, &next)
        }
        return best
    }

    private func consumes(_ instruction: PatternProgram.Instruction, _ scalar: Unicode.Scalar) -> Bool {
        let flags = program.flags
        switch instruction {
        case .scalar(let wanted): return wanted == scalar || flags.ignoresCase && wanted == scalar.folded
        case .any: return flags.dotMatchesLineEnds || scalar != "\n"
        case .set(let set):
            if !flags.ignoresCase { return set.contains(scalar) }
            let plain = ScalarSet(ranges: set.ranges)
            return [scalar, scalar.folded, scalar.upper].contains(where: plain.contains) != set.isInverted
        default: return false
        }
    }

    /// Adds the instructions that consume a scalar and are reached from `counter` without consuming one.
    private mutating func follow(_ counter: Int, at position: Int, slots: inout [Int], into ways: inout Ways) {
        pending.append(.visit(counter))
        while let step = pending.popLast() {
            switch step {
            case .restore(let slot, let value): slots[slot] = value
            case .visit(let counter):
                if ways.isReached[counter] { continue }
                ways.isReached[counter] = true
                switch program.instructions[counter] {
                case .jump(let target): pending.append(.visit(target))
                case .split(let first, let second):
                    pending.append(.visit(second))
                    pending.append(.visit(first))
                case .save(let slot):
                    pending.append(.restore(slot: slot, value: slots[slot]))
                    slots[slot] = position
                    pending.append(.visit(counter + 1))
                case .assertion(let assertion):
                    if holds(assertion, at: position) { pending.append(.visit(counter + 1)) }
                case .scalar, .any, .set, .match:
                    ways.counters.append(counter)
                    ways.slots.append(contentsOf: slots)
                }
            }
        }
    }

    private func holds(_ assertion: PatternAssertion, at position: Int) -> Bool {
        switch assertion {
        case .start:
            return position == 0 || program.flags.anchorsMatchLines && text[position - 1] == "\n"
        case .end:
            // As in Python, also before a line end that ends the text.
            let isEnd = position == text.count || position == text.count - 1 && text[position] == "\n"
            return isEnd || program.flags.anchorsMatchLines && text[position] == "\n"
        case .wordBoundary: return isWord(position - 1) != isWord(position)
        case .noWordBoundary: return isWord(position - 1) == isWord(position)
        }
    }

    private func isWord(_ position: Int) -> Bool {
        text.indices.contains(position) && ScalarSet.word.contains(text[position])
    }
}

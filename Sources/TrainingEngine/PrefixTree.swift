/// What token sequences have in common at their beginnings: a tree of runs, each computed once for all sequences that go through it.
/// A group's prompt, a system prompt that groups share, and the turns that branches of a conversation have in common are its
/// inner runs, to any depth.
struct PrefixTree {
    /// Tokens `start..<end` of one sequence, the same in all that go through.
    struct Run {
        var sequence: Int
        var start, end: Int
        var parent: Int?
        var children: [Int] = []
        /// How many sequences end here, and for how many the prompt does.
        var ends = 0, promptEnds = 0

        var length: Int { end - start }
    }

    /// By depth and then by parent.
    private(set) var runs: [Run] = []
    /// The run that each sequence ends in.
    private(set) var lastRuns: [Int] = []

    /// A run that saves fewer tokens than this stays with each of its continuations: what it costs in attention is more.
    static let leastSaving = 8
    /// The same, as a share of all tokens.
    static let leastShareOfTokens = 1.0 / 64

    /// - Parameters:
    ///   - sequences: not empty.
    ///   - promptLengths: within the sequences; a prompt of more than one sequence is always shared.
    init(_ sequences: [[Int32]], promptLengths: [Int]) {
        var trie = Trie()
        for (sequence, tokens) in sequences.enumerated() {
            trie.insert(sequence, tokens, in: sequences)
        }
        // A sequence is all tokens of its path, so that any depth of it tells where its prompt ends.
        for (sequence, length) in promptLengths.enumerated() { trie.notePromptEnd(sequence, length) }
        let tokens = trie.runs.reduce(0) { $0 + $1.length }
        let least = max(Self.leastSaving, Int(Double(tokens) * Self.leastShareOfTokens))
        resolve(trie, least: least)
    }

    /// Every sequence apart.
    init(apart sequences: [[Int32]]) {
        for (index, tokens) in sequences.enumerated() {
            runs.append(Run(sequence: index, start: 0, end: tokens.count, ends: 1))
            lastRuns.append(index)
        }
    }

    /// Takes over the runs that are worth it, by depth and then by parent: attention then needs no gathering.
    private mutating func resolve(_ trie: Trie, least: Int) {
        func isKept(_ run: Run) -> Bool {
            run.children.isEmpty || run.ends > 0 || run.promptEnds > 1
                || run.length * (run.children.count - 1) >= least
        }
        // A run that is dissolved lies at the beginning of each of its children; a sequence never ends in one.
        var taken = [Int](repeating: -1, count: trie.runs.count)
        var level = trie.roots.map { (run: $0, start: 0, parent: Int?.none) }
        while !level.isEmpty {
            var next: [(run: Int, start: Int, parent: Int?)] = []
            var pending = Array(level.reversed())
            while let (index, start, parent) = pending.popLast() {
                let run = trie.runs[index]
                guard isKept(run) else {
                    pending += run.children.reversed().map { ($0, start, parent) }
                    continue
                }
                taken[index] = runs.count
                next += run.children.map { ($0, run.end, runs.count) }
                runs.append(
                    Run(
                        sequence: run.sequence, start: start, end: run.end, parent: parent, ends: run.ends,
                        promptEnds: run.promptEnds))
            }
            level = next
        }
        for (index, run) in runs.enumerated() { run.parent.map { runs[$0].children.append(index) } }
        lastRuns = trie.lastRuns.map { taken[$0] }
    }

    /// The runs of a sequence, last first.
    func path(_ sequence: Int) -> [Int] {
        var path: [Int] = [], next: Int? = lastRuns[sequence]
        while let index = next {
            path.append(index)
            next = runs[index].parent
        }
        return path
    }
}

/// The radix tree of sequences: every run ends where they part or where one ends.
private struct Trie {
    var runs: [PrefixTree.Run] = []
    var roots: [Int] = []
    var lastRuns: [Int] = []
    private var childOf: [Edge: Int] = [:]

    private struct Edge: Hashable {
        var parent: Int
        var token: Int32
    }

    mutating func insert(_ sequence: Int, _ tokens: [Int32], in sequences: [[Int32]]) {
        var parent = -1, position = 0
        while true {
            guard let child = childOf[Edge(parent: parent, token: tokens[position])] else {
                let leaf = add(sequence, position..<tokens.count, to: parent, token: tokens[position])
                return end(in: leaf)
            }
            let run = runs[child], own = sequences[run.sequence]
            var next = position + 1
            let limit = min(run.end, tokens.count)
            while next < limit, own[next] == tokens[next] { next += 1 }
            let shared = next < run.end ? split(child, at: next, in: sequences) : child
            if next == tokens.count { return end(in: shared) }
            parent = shared
            position = next
        }
    }

    mutating func notePromptEnd(_ sequence: Int, _ length: Int) {
        var run = lastRuns[sequence]
        while length <= runs[run].start, let parent = runs[run].parent { run = parent }
        runs[run].promptEnds += 1
    }

    private mutating func add(_ sequence: Int, _ range: Range<Int>, to parent: Int, token: Int32) -> Int {
        let index = runs.count
        runs.append(
            .init(
                sequence: sequence, start: range.lowerBound, end: range.upperBound, parent: parent < 0 ? nil : parent))
        if parent < 0 { roots.append(index) } else { runs[parent].children.append(index) }
        childOf[Edge(parent: parent, token: token)] = index
        return index
    }

    /// What lies before `position` becomes a run of its own, which is given back, and the rest its only child.
    private mutating func split(_ index: Int, at position: Int, in sequences: [[Int32]]) -> Int {
        let old = runs[index], upper = runs.count, own = sequences[old.sequence]
        runs.append(
            .init(sequence: old.sequence, start: old.start, end: position, parent: old.parent, children: [index]))
        runs[index].start = position
        runs[index].parent = upper
        func replace(_ siblings: inout [Int]) {
            for place in siblings.indices where siblings[place] == index { siblings[place] = upper }
        }
        if let parent = old.parent { replace(&runs[parent].children) } else { replace(&roots) }
        childOf[Edge(parent: old.parent ?? -1, token: own[old.start])] = upper
        childOf[Edge(parent: upper, token: own[position])] = index
        return upper
    }

    private mutating func end(in run: Int) {
        runs[run].ends += 1
        lastRuns.append(run)
    }
}

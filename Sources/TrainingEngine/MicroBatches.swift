/// Splits a batch into micro-batches.
public enum MicroBatches {
    /// Indices of `sequences` in micro-batches of at most `tokenBudget` computed tokens each, keeping answers to one prompt, and
    /// branches of one conversation, together where they fit. A sequence longer than the budget is a micro-batch of its own.
    public static func split(
        _ sequences: [TrainingSequence], indices: [Int], tokenBudget: Int, sharesPrefixes: Bool
    ) -> [[Int]] {
        var pending = Array(sideBySide(sequences, indices, mixing: sharesPrefixes).reversed())
        var result: [[Int]] = [], current: [Int] = [], tokens = 0
        func close() {
            // What was counted is the most that can be shared, and the pack leaves out what saves too little.
            while sharesPrefixes, current.count > 1, Pack(current.map { sequences[$0] }).tokenCount > tokenBudget {
                pending.append(current.removeLast())
            }
            result.append(current)
            current = []
        }
        while let index = pending.last {
            let length = sequences[index].computedCount
            // In this order no other sequence has more in common with this one than the last.
            let shared = sharesPrefixes ? current.last.map { common(sequences[$0], sequences[index]) } ?? 0 : 0
            if !current.isEmpty, tokens + length - shared > tokenBudget {
                close()
                continue
            }
            tokens = current.isEmpty ? length : tokens + length - shared
            current.append(index)
            pending.removeLast()
            if pending.isEmpty { close() }
        }
        return result
    }

    /// Indices in order of first appearance, but that answers to one prompt stand together and, where they are shared, also what
    /// begins alike.
    private static func sideBySide(_ sequences: [TrainingSequence], _ indices: [Int], mixing: Bool) -> [Int] {
        var order: [[Int32]] = [], groups: [[Int32]: [Int]] = [:]
        for index in indices {
            let prompt = sequences[index].prompt
            if groups[prompt] == nil { order.append(prompt) }
            groups[prompt, default: []].append(index)
        }
        let grouped = order.flatMap { groups[$0, default: []] }
        guard mixing, grouped.count > 1 else { return grouped }
        let tree = PrefixTree(
            grouped.map { sequences[$0].computed }, promptLengths: grouped.map { sequences[$0].prompt.count })
        // Runs stand in the order in which their first sequences came; a sequence goes where its branch does.
        var members = [[Int]](repeating: [], count: tree.runs.count)
        for (place, run) in tree.lastRuns.enumerated() { members[run].append(grouped[place]) }
        var result: [Int] = [], pending = Array(tree.runs.indices.filter { tree.runs[$0].parent == nil }.reversed())
        while let run = pending.popLast() {
            result += members[run]
            pending += tree.runs[run].children.reversed()
        }
        return result
    }

    private static func common(_ a: TrainingSequence, _ b: TrainingSequence) -> Int {
        let first = a.computed, second = b.computed
        let limit = min(first.count, second.count)
        var length = 0
        while length < limit, first[length] == second[length] { length += 1 }
        return length
    }
}

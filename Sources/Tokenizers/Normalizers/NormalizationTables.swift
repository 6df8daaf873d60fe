/// Unicode normalization by the tables of the version that `tokenizers` uses.
struct NormalizationTables: Sendable {
    static let shared = NormalizationTables()

    private let canonical: [UInt32: [UInt32]]
    private let compatibility: [UInt32: [UInt32]]
    private let compositions: [UInt64: UInt32]
    private let combiningClasses: [UInt32: UInt8]
    /// Scalars that no form composes with a neighbour, decomposes or moves: text of these alone is left as it is.
    private let inertComposed: ScalarSet
    private let inertDecomposed: ScalarSet
    private let inertComposedCompatibly: ScalarSet
    private let inertDecomposedCompatibly: ScalarSet

    private init() {
        func mappings(_ text: StaticString) -> [UInt32: [UInt32]] {
            var result: [UInt32: [UInt32]] = [:]
            NumberList.forEachGroup(text, radix: 16) { result[$0[0]] = Array($0.dropFirst()) }
            return result
        }
        canonical = mappings(CanonicalDecompositionData.mappings)
        compatibility = mappings(CompatibilityDecompositionData.mappings)
        var compositions: [UInt64: UInt32] = [:]
        var isMoved: [ClosedRange<UInt32>] = [0x1161...0x1175, 0x11A8...0x11C2]
        var composed: Set<UInt32> = []
        NumberList.forEachGroup(CompositionData.compositions, radix: 16) { group in
            compositions[UInt64(group[0]) << 32 | UInt64(group[1])] = group[2]
            isMoved.append(group[1]...group[1])
            composed.insert(group[2])
        }
        self.compositions = compositions
        var classes: [UInt32: UInt8] = [:]
        var next: UInt32 = 0
        NumberList.forEachGroup(CompositionData.combiningClasses, radix: 10) { run in
            if run[0] != 0 {
                for scalar in next..<next + run[1] { classes[scalar] = UInt8(run[0]) }
                isMoved.append(next...next + run[1] - 1)
            }
            next += run[1]
        }
        combiningClasses = classes
        let unstable = canonical.keys.filter { !composed.contains($0) }.map { $0...$0 }
        let compatible = compatibility.keys.map { $0...$0 }
        let decomposing = canonical.keys.map { $0...$0 } + [0xAC00...0xD7A3]
        inertComposed = ScalarSet(isMoved + unstable).inverted
        inertDecomposed = ScalarSet(isMoved + decomposing).inverted
        inertComposedCompatibly = ScalarSet(isMoved + unstable + compatible).inverted
        inertDecomposedCompatibly = ScalarSet(isMoved + decomposing + compatible).inverted
    }

    func combiningClass(_ scalar: UInt32) -> UInt8 {
        scalar < 0x300 ? 0 : combiningClasses[scalar] ?? 0
    }

    private struct Item {
        var scalar: UInt32
        var change: Int
        var combiningClass: UInt8
    }

    func normalize(_ text: inout AlignedText, composing: Bool, compatibly: Bool) {
        if text.isASCII { return }
        let inert =
            switch (composing, compatibly) {
            case (true, false): inertComposed
            case (true, true): inertComposedCompatibly
            case (false, false): inertDecomposed
            case (false, true): inertDecomposedCompatibly
            }
        // Only runs of scalars that are not inert change, each together with the inert one before it.
        var runs: [Range<Int>] = []
        var previous = 0
        var runStart = -1
        text.forEachScalar { scalar, position, _ in
            if inert.contains(scalar) {
                if runStart >= 0 { runs.append(runStart..<position) }
                runStart = -1
            } else if runStart < 0 {
                runStart = previous
            }
            previous = position
        }
        if runStart >= 0 { runs.append(runStart..<text.bytes.count) }
        if runs.isEmpty { return }
        var result = AlignedText.empty(like: text)
        var last = 0
        for run in runs {
            result.append(text, last..<run.lowerBound)
            var part = text.slice(run)
            normalizeWhole(&part, composing: composing, compatibly: compatibly)
            result.append(part, 0..<part.bytes.count)
            last = run.upperBound
        }
        result.append(text, last..<text.bytes.count)
        text = result
    }

    private func normalizeWhole(_ text: inout AlignedText, composing: Bool, compatibly: Bool) {
        var items: [Item] = []
        items.reserveCapacity(text.bytes.count)
        text.forEachScalar { scalar, _, _ in decompose(scalar, compatibly: compatibly, into: &items) }
        reorder(&items)
        if composing { items = compose(items) }
        text.transform(items.map { ScalarChange(scalar: $0.scalar, change: $0.change) })
    }

    private func decompose(_ scalar: UInt32, compatibly: Bool, into items: inout [Item]) {
        func add(_ scalars: [UInt32]) {
            for (index, part) in scalars.enumerated() {
                let change = index == 0 ? 0 : 1
                items.append(Item(scalar: part, change: change, combiningClass: combiningClass(part)))
            }
        }
        if scalar >= 0xA0 {
            if (0xAC00...0xD7A3).contains(scalar) {
                let index = scalar - 0xAC00
                let trail = index % 28
                let parts = [0x1100 + index / 588, 0x1161 + index % 588 / 28]
                return add(trail == 0 ? parts : parts + [0x11A7 + trail])
            }
            if compatibly, let parts = compatibility[scalar] { return add(parts) }
            if let parts = canonical[scalar] { return add(parts) }
        }
        items.append(Item(scalar: scalar, change: 0, combiningClass: combiningClass(scalar)))
    }

    /// Sorts each run of marks by combining class, equals in place.
    private func reorder(_ items: inout [Item]) {
        var index = 0
        while index < items.count {
            guard items[index].combiningClass != 0 else {
                index += 1
                continue
            }
            var end = index
            while end < items.count, items[end].combiningClass != 0 { end += 1 }
            if end - index > 1 {
                let sorted = items[index..<end].enumerated().sorted {
                    ($0.element.combiningClass, $0.offset) < ($1.element.combiningClass, $1.offset)
                }
                items.replaceSubrange(index..<end, with: sorted.map(\.element))
            }
            index = end
        }
    }

    private func pair(_ first: UInt32, _ second: UInt32) -> UInt32? {
        if (0x1100...0x1112).contains(first), (0x1161...0x1175).contains(second) {
            return 0xAC00 + ((first - 0x1100) * 21 + second - 0x1161) * 28
        }
        if (0xAC00...0xD7A3).contains(first), (first - 0xAC00) % 28 == 0, (0x11A8...0x11C2).contains(second) {
            return first + second - 0x11A7
        }
        return compositions[UInt64(first) << 32 | UInt64(second)]
    }

    private func compose(_ items: [Item]) -> [Item] {
        var output: [Item] = []
        output.reserveCapacity(items.count)
        var starter: Int?
        var lastClass: UInt8?
        for item in items {
            if let at = starter, lastClass == nil || lastClass! < item.combiningClass,
                let joined = pair(output[at].scalar, item.scalar)
            {
                output[at].scalar = joined
                output[at].change += item.change - 1
                continue
            }
            if item.combiningClass == 0 {
                starter = output.count
                lastClass = nil
            } else {
                lastClass = item.combiningClass
            }
            output.append(item)
        }
        return output
    }
}

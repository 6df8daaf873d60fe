/// A set of scalars as a two-stage bitmap: membership costs two loads whatever the set is.
struct ScalarSet: Sendable {
    /// Sorted, disjoint, non-adjacent closed ranges.
    let ranges: [ClosedRange<UInt32>]
    private let pageOf: [UInt16]
    private let pages: [UInt64]
    let ascii: (UInt64, UInt64)

    static let last: UInt32 = 0x10FFFF

    init(_ ranges: [ClosedRange<UInt32>]) {
        let sorted = Self.merged(ranges)
        self.ranges = sorted
        var pageOf = [UInt16](repeating: 0, count: 0x1100)
        // Page 0 is empty and page 1 is full; four words a page.
        var pages = [UInt64](repeating: 0, count: 4) + [UInt64](repeating: .max, count: 4)
        for range in sorted {
            var scalar = range.lowerBound
            while scalar <= range.upperBound {
                let page = Int(scalar >> 8)
                let end = min(range.upperBound, scalar | 0xFF)
                if scalar & 0xFF == 0, end & 0xFF == 0xFF {
                    pageOf[page] = 1
                } else {
                    if pageOf[page] == 0 {
                        pageOf[page] = UInt16(pages.count / 4)
                        pages.append(contentsOf: repeatElement(0, count: 4))
                    }
                    let base = Int(pageOf[page]) * 4
                    for member in scalar...end {
                        pages[base + Int(member & 0xFF) >> 6] |= 1 << UInt64(member & 63)
                    }
                }
                scalar = end + 1
            }
        }
        let first = Int(pageOf[0]) * 4
        ascii = (pages[first], pages[first + 1])
        self.pageOf = pageOf
        self.pages = pages
    }

    @inline(__always) func contains(_ scalar: UInt32) -> Bool {
        if scalar < 64 { return ascii.0 >> UInt64(scalar) & 1 != 0 }
        if scalar < 128 { return ascii.1 >> UInt64(scalar & 63) & 1 != 0 }
        guard scalar <= Self.last else { return false }
        let word = Int(pageOf[Int(scalar >> 8)]) * 4 + Int(scalar & 0xFF) >> 6
        return pages[word] >> UInt64(scalar & 63) & 1 != 0
    }

    func union(_ other: ScalarSet) -> ScalarSet { ScalarSet(ranges + other.ranges) }

    var inverted: ScalarSet {
        var result: [ClosedRange<UInt32>] = []
        var next: UInt32 = 0
        for range in ranges {
            if range.lowerBound > next { result.append(next...range.lowerBound - 1) }
            next = range.upperBound + 1
        }
        if next <= Self.last { result.append(next...Self.last) }
        return ScalarSet(result)
    }

    func intersection(_ other: ScalarSet) -> ScalarSet {
        inverted.union(other.inverted).inverted
    }

    private static func merged(_ ranges: [ClosedRange<UInt32>]) -> [ClosedRange<UInt32>] {
        var result: [ClosedRange<UInt32>] = []
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if let previous = result.last, range.lowerBound <= previous.upperBound &+ 1 {
                if range.upperBound > previous.upperBound {
                    result[result.count - 1] = previous.lowerBound...range.upperBound
                }
            } else {
                result.append(range)
            }
        }
        return result
    }
}

/// Reads the number lists of the generated Unicode tables.
enum NumberList {
    /// Calls `body` with each comma-separated group of numbers.
    static func forEachGroup(_ text: StaticString, radix: UInt32, _ body: ([UInt32]) -> Void) {
        let bytes = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
        var group: [UInt32] = []
        var value: UInt32 = 0
        var hasDigits = false
        func finishNumber() {
            if hasDigits { group.append(value) }
            value = 0
            hasDigits = false
        }
        for byte in bytes {
            switch byte {
            case 0x30...0x39: (value, hasDigits) = (value * radix + UInt32(byte - 0x30), true)
            case 0x41...0x46: (value, hasDigits) = (value * radix + UInt32(byte - 0x41 + 10), true)
            case 0x2C:
                finishNumber()
                body(group)
                group.removeAll(keepingCapacity: true)
            default: finishNumber()
            }
        }
        finishNumber()
        if !group.isEmpty { body(group) }
    }

    /// The set that a list of `gap length` pairs spells.
    static func set(_ text: StaticString) -> ScalarSet {
        var ranges: [ClosedRange<UInt32>] = []
        var next: UInt32 = 0
        forEachGroup(text, radix: 10) { pair in
            let start = next + pair[0]
            ranges.append(start...start + pair[1] - 1)
            next = start + pair[1]
        }
        return ScalarSet(ranges)
    }

    /// The ranges that a list of `value length` runs gives to each value.
    static func ranges(ofRuns text: StaticString, values: Int) -> [[ClosedRange<UInt32>]] {
        var result = [[ClosedRange<UInt32>]](repeating: [], count: values)
        var next: UInt32 = 0
        forEachGroup(text, radix: 10) { pair in
            result[Int(pair[0])].append(next...next + pair[1] - 1)
            next += pair[1]
        }
        return result
    }
}

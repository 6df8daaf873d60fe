/// Changes to JSON text that mostly leave it JSON: values of other types and sizes, members twice or gone, deep nesting,
/// odd strings.
struct JSONMutator {
    /// One value, or one key, by its place in the text.
    private struct Item {
        var range: Range<Int>
        /// The key and its value, for an object's member.
        var member: Range<Int>?
        /// The list or object that it is in.
        var parent: Int
    }

    private let text: [UInt8]
    private var values: [Item] = []
    private var strings: [Range<Int>] = []
    private var fewInOne: [Item] = []

    /// Reads as much as is needed to know where values are; text that is not JSON gives few or none.
    init(_ text: [UInt8]) {
        self.text = text
        var open: [(start: Int, member: Int?, number: Int)] = []
        var sizes = [0]
        var parents = [0]
        var position = 0
        var pendingKey: Int?
        while position < text.count {
            let start = position
            switch text[position] {
            case UInt8(ascii: "\""):
                position += 1
                while position < text.count, text[position] != UInt8(ascii: "\"") {
                    position += text[position] == UInt8(ascii: "\\") ? 2 : 1
                }
                position = min(position + 1, text.count)
                strings.append(start..<position)
                var next = position
                while next < text.count, text[next] <= 0x20 { next += 1 }
                if next < text.count, text[next] == UInt8(ascii: ":") {
                    pendingKey = start
                    position = next + 1
                } else {
                    add(start..<position, pendingKey, open.last?.number ?? 0, &sizes)
                    pendingKey = nil
                }
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                open.append((start, pendingKey, sizes.count))
                sizes.append(0)
                parents.append(open.count > 1 ? open[open.count - 2].number : 0)
                pendingKey = nil
                position += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                position += 1
                if let (start, member, _) = open.popLast() {
                    add(start..<position, member, open.last?.number ?? 0, &sizes)
                }
            case UInt8(ascii: ","), UInt8(ascii: ":"), 0...0x20: position += 1
            default:
                while position < text.count, !Self.ends(text[position]) { position += 1 }
                add(start..<position, pendingKey, open.last?.number ?? 0, &sizes)
                pendingKey = nil
            }
        }
        var isWide = [Bool](repeating: false, count: sizes.count)
        for number in sizes.indices.dropFirst() { isWide[number] = sizes[number] > 40 || isWide[parents[number]] }
        fewInOne = values.filter { !isWide[$0.parent] }
    }

    private static func ends(_ byte: UInt8) -> Bool {
        byte <= 0x20 || [0x2C, 0x3A, 0x5D, 0x7D, 0x5B, 0x7B, 0x22].contains(byte)
    }

    private mutating func add(_ range: Range<Int>, _ member: Int?, _ parent: Int, _ sizes: inout [Int]) {
        values.append(Item(range: range, member: member.map { $0..<range.upperBound }, parent: parent))
        sizes[parent] += 1
    }

    /// A value, as often as not one that is not among very many: a vocabulary would get nearly all changes.
    private func pick(_ random: inout FuzzRandom) -> Item {
        random.pick(fewInOne.isEmpty || random.chance(percent: 30) ? values : fewInOne)
    }

    private static let numbers = [
        "0", "-0", "1", "-1", "2", "3", "7", "255", "256", "65535", "65536", "2147483647", "2147483648", "-2147483648",
        "4294967295", "4294967296", "1e3", "4194304", "16777216", "1000000000", "72057594037927935",
        "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
        "18446744073709551615", "99999999999999999999999999", "1e308", "1e309", "-1e400", "1e-400", "0.1", "-0.5",
        "1.7976931348623157e308", "5e-324", "NaN", "Infinity", "-Infinity", "1e99999999999999999999", "00", "1.",
        "0x10",
    ]

    private static let scalars = ["null", "true", "false", "[]", "{}", "\"\"", "[null]", "{\"\":0}", "[[]]", "\"a\""]

    private static let strange = [
        "\\u0000", "\\ud800", "\\udc00", "\\ud83d\\ude00", "\\u00e9", "e\\u0301", "\\uFFFF", "\\u2581", "\\u0020",
        "\\n",
        "\\\\", "\\\"", "\\/", " ", "\u{1F468}\u{200D}\u{1F469}", "\u{FEFF}", "<0x41>", "##", "Ġ", "</w>", "(", ")",
        "[",
        "]", "(?=", "(?<!", "{1000}", "*", "+?", "|", "\\\\p{L}", "\\\\x{110000}", "^", "$", "A", "\u{0130}",
    ]

    /// The text changed once.
    func mutated(splicing other: [UInt8], _ random: inout FuzzRandom) -> [UInt8] {
        guard !values.isEmpty else { return text }
        let item = pick(&random)
        switch random.below(13) {
        case 0, 1: return replaced(item.range, random.pick(Self.numbers))
        case 2: return replaced(item.range, random.pick(Self.scalars))
        case 3:
            // Another value of this text in its place.
            return replaced(item.range, text[pick(&random).range])
        case 4:
            guard !other.isEmpty else { return text }
            let donor = JSONMutator(other)
            guard !donor.values.isEmpty else { return text }
            return replaced(item.range, other[donor.pick(&random).range])
        case 5:
            // A member or an element twice or many times.
            let unit = item.member ?? item.range
            let copies = random.pick([1, 1, 2, 10, 1000])
            guard unit.count * copies < 1 << 20 else { return text }
            return replaced(unit, Array((0...copies).map { _ in text[unit] }.joined(separator: [0x2C])))
        case 6:
            // A member or an element gone, with a comma beside it.
            var unit = item.member ?? item.range
            if unit.upperBound < text.count, text[unit.upperBound] == 0x2C {
                unit = unit.lowerBound..<unit.upperBound + 1
            } else if unit.lowerBound > 0, text[unit.lowerBound - 1] == 0x2C {
                unit = unit.lowerBound - 1..<unit.upperBound
            }
            return replaced(unit, [UInt8]())
        case 7:
            let depth = random.pick([1, 2, 10, 60, 70, 255, 300, 5000])
            let open = random.chance(percent: 70) ? "[" : "{\"a\":"
            let close = open == "[" ? "]" : "}"
            let wrapped = String(repeating: open, count: depth).utf8 + text[item.range]
            return replaced(item.range, Array(wrapped) + Array(String(repeating: close, count: depth).utf8))
        case 8, 9:
            guard !strings.isEmpty else { return text }
            let string = random.pick(strings)
            guard string.count >= 2 else { return text }
            let place = string.lowerBound + 1 + random.below(string.count - 1)
            let piece = random.pick(Self.strange)
            let times = random.chance(percent: 90) ? 1 : random.pick([5, 100, 5000])
            return replaced(place..<place, String(repeating: piece, count: times).utf8)
        case 10:
            guard strings.count > 1 else { return text }
            return replaced(random.pick(strings), text[random.pick(strings)])
        case 11:
            // An element into a list with itself: wrapped around what holds it.
            let outer = pick(&random)
            return replaced(item.range, [0x5B] + text[outer.range] + [0x2C] + text[item.range] + [0x5D])
        default:
            // Two values change places.
            let second = pick(&random)
            let (low, high) = item.range.lowerBound < second.range.lowerBound ? (item, second) : (second, item)
            guard low.range.upperBound <= high.range.lowerBound else { return text }
            return Array(text[..<low.range.lowerBound]) + text[high.range]
                + text[low.range.upperBound..<high.range.lowerBound] + text[low.range]
                + text[high.range.upperBound...]
        }
    }

    private func replaced(_ range: Range<Int>, _ content: String) -> [UInt8] { replaced(range, content.utf8) }

    private func replaced(_ range: Range<Int>, _ content: some Collection<UInt8>) -> [UInt8] {
        var result = text
        result.replaceSubrange(range, with: content)
        return result
    }
}

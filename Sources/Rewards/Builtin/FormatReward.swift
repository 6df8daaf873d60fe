/// 1 when the answer is made of the wanted tagged sections, each once, in order, none empty, with only white space
/// around them: `<think>…</think> <answer>…</answer>`.
public struct FormatReward: ItemReward {
    public let tags: [String]
    /// What an answer gets that is not of that form, times the share of the tags (opening and closing counted apart)
    /// that it holds exactly once.
    public let partial: Double

    /// - Throws: `RewardError.badSetting` for no tags, a tag that is not a word, or one named twice.
    public init(tags: [String] = ["think", "answer"], partial: Double = 0) throws {
        let areWords = tags.allSatisfy { tag in
            !tag.isEmpty
                && tag.unicodeScalars.allSatisfy {
                    $0.properties.isAlphabetic || "_-0123456789".unicodeScalars.contains($0)
                }
        }
        guard !tags.isEmpty, areWords, Set(tags).count == tags.count else {
            throw RewardError(.badSetting, "format tags must be different words, are: \(tags.joined(separator: ", "))")
        }
        self.tags = tags
        self.partial = partial
    }

    init(_ options: inout RewardOptions) throws {
        let tags = options.text("tags", default: "think,answer")
        try self.init(
            tags: tags.split(separator: ",").map { String($0.trimmed) },
            partial: try options.number("partial", default: 0))
    }

    public func score(_ item: RewardRequest) -> RewardOutcome {
        let text = item.response
        let marks = tags.flatMap { ["<\($0)>", "</\($0)>"] }
        let ranges = marks.map { text.utf8Ranges(of: $0) }
        let once = ranges.filter { $0.count == 1 }.count
        if once == marks.count, isWellFormed(Array(text.utf8), ranges.map { $0[0] }) { return .scored(1) }
        return .checked(partial * Double(once) / Double(marks.count))
    }

    private func isWellFormed(_ bytes: [UInt8], _ marks: [Range<Int>]) -> Bool {
        func isBlank(_ range: Range<Int>) -> Bool { String(decoding: bytes[range], as: UTF8.self).trimmed.isEmpty }
        var end = 0
        for (index, mark) in marks.enumerated() {
            guard mark.lowerBound >= end else { return false }
            let isClosing = index % 2 == 1
            guard isBlank(end..<mark.lowerBound) != isClosing else { return false }
            end = mark.upperBound
        }
        return isBlank(end..<bytes.count)
    }
}

extension String {
    /// Where a text stands in this one, as offsets into the UTF-8, without overlaps.
    fileprivate func utf8Ranges(of wanted: String) -> [Range<Int>] {
        let (bytes, wanted) = (Array(utf8), Array(wanted.utf8))
        var ranges: [Range<Int>] = []
        var start = 0
        while start + wanted.count <= bytes.count {
            if bytes[start] == wanted[0], bytes[start..<start + wanted.count].elementsEqual(wanted) {
                ranges.append(start..<start + wanted.count)
                start += wanted.count
            } else {
                start += 1
            }
        }
        return ranges
    }
}

/// What the processes of one run prove to one another that they belong to it. Made anew for each run, handed to workers through
/// their environment, sent with every call.
public struct RunToken: Sendable, Hashable {
    /// 64 hexadecimal digits.
    public let text: String

    /// Of 256 random bits from the system.
    public static func random() -> RunToken {
        var generator = SystemRandomNumberGenerator()
        return RunToken(
            text: (0..<4).map { _ in
                let part = String(generator.next() as UInt64, radix: 16)
                return String(repeating: "0", count: 16 - part.count) + part
            }.joined())
    }

    private init(text: String) { self.text = text }

    /// A token as it was handed on; nil for what cannot be one.
    public init?(_ text: String) {
        guard text.utf8.count >= 32, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
        self.text = text
    }

    /// Whether `other` is this token. Takes the same time wherever they differ.
    public func matches(_ other: String) -> Bool {
        let own = Array(text.utf8), theirs = Array(other.utf8)
        var difference = own.count ^ theirs.count
        for index in own.indices { difference |= Int(own[index] ^ (index < theirs.count ? theirs[index] : 0)) }
        return difference == 0
    }
}

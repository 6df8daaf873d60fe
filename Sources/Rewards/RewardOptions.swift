public import OrderedCollections

/// A reward's settings as they stand in a configuration: names and texts. Reading is strict: `finish` refuses what
/// nobody read.
public struct RewardOptions: Sendable {
    private let reward: String
    private let values: OrderedDictionary<String, String>
    private var known: [String] = []

    public init(reward: String, _ values: OrderedDictionary<String, String>) {
        self.reward = reward
        self.values = values
    }

    public mutating func text(_ name: String, default fallback: String) -> String {
        known.append(name)
        return values[name] ?? fallback
    }

    /// - Throws: `RewardError.badSetting` when the value is not a finite number.
    public mutating func number(_ name: String, default fallback: Double) throws -> Double {
        let text = text(name, default: String(fallback))
        guard let value = Double(text), value.isFinite else { throw bad(name, text, "a finite number") }
        return value
    }

    public mutating func integer(_ name: String, default fallback: Int) throws -> Int {
        let text = text(name, default: String(fallback))
        guard let value = Int(text) else { throw bad(name, text, "an integer") }
        return value
    }

    public mutating func flag(_ name: String, default fallback: Bool) throws -> Bool {
        let text = text(name, default: String(fallback))
        guard let value = Bool(text) else { throw bad(name, text, "true or false") }
        return value
    }

    /// One of an enumeration's values by its name.
    public mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(
        _ name: String, default fallback: Choice
    ) throws -> Choice {
        let text = text(name, default: fallback.rawValue)
        guard let value = Choice(rawValue: text) else {
            throw bad(name, text, "one of " + Choice.allCases.map(\.rawValue).joined(separator: ", "))
        }
        return value
    }

    /// - Throws: `RewardError.badSetting` that names a setting which this reward does not have.
    public func finish() throws {
        guard let unknown = values.keys.first(where: { !known.contains($0) }) else { return }
        let names = known.isEmpty ? "it has none" : "it has " + known.joined(separator: ", ")
        throw RewardError(.badSetting, "reward '\(reward)' has no setting '\(unknown)'; \(names)")
    }

    private func bad(_ name: String, _ text: String, _ wanted: String) -> RewardError {
        RewardError(.badSetting, "reward '\(reward)': \(name) must be \(wanted), is '\(text)'")
    }
}

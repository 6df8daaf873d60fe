/// Whose memory, of a device that roles share, serves the others but for its turn; it lies in the host's meanwhile.
public struct RestingRoles: Hashable, Sendable, Codable {
    /// The reference model's weights.
    public var reference = false
    /// The critic's weights and its optimizer's states.
    public var critic = false
    /// The states of the actor's optimizer; its weights stay.
    public var states = false

    public init(reference: Bool = false, critic: Bool = false, states: Bool = false) {
        (self.reference, self.critic, self.states) = (reference, critic, states)
    }

    /// For people, as they are in recipes and plans.
    public var names: [String] {
        (reference ? ["the reference model"] : []) + (critic ? ["the critic"] : [])
            + (states ? ["the actor's optimizer states"] : [])
    }

    /// What a start says of them; nil where nothing rests.
    func note(bytes: Int) -> String? {
        guard !names.isEmpty else { return nil }
        return "roles take turns with the device's memory: \(names.joined(separator: ", ")) "
            + "(\(PlanText.gib(bytes))) in the host's but for their turn"
    }
}

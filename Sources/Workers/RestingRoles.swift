import Collectives

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

    /// What rests where it does on any of the ranks, whose devices may have less room than this one's. All of them call it.
    func agreed(over mesh: DeviceMesh?) throws -> RestingRoles {
        guard let mesh, let group = try mesh.group(MeshAxis.all) else { return self }
        let all = try group.exchange(self, device: mesh.device)
        return RestingRoles(
            reference: all.contains(where: \.reference), critic: all.contains(where: \.critic),
            states: all.contains(where: \.states))
    }
}

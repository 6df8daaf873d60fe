/// `reference`: the model as it was before training.
public struct ReferenceSettings: Hashable, Sendable {
    /// Whether its weights lie in host memory between two scorings; nil: where the devices have no room for all.
    public let paramOffload: Bool?

    init(_ section: inout SectionReader) {
        paramOffload = section.optionalBool(
            "param_offload",
            doc:
                "Keep its weights in the host's memory while nobody asks it; null: on GPUs that have no room for them while the policy "
                + "learns (fledge plan says which).")
    }
}

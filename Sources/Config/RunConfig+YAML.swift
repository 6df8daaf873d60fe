extension RunConfig {
    /// Every setting with its value, as YAML that reads back as an equal configuration: what a run writes into its
    /// folder.
    public func resolvedYAML() -> String { DeclarationText.resolved(declarations) }

    /// A recipe with every setting, its documentation, what it accepts and its default: `recipes/example.yaml`.
    public static func exampleYAML(names: KnownNames = KnownNames()) -> String {
        DeclarationText.example(
            described(by: names),
            introduction:
                "Every setting of Fledge, each at its default, or at an example where it must be set. Written by the "
                + "program from its own declarations: do not edit. A recipe of yours needs only the lines that differ; "
                + "on the command line the same names, joined by dots, override it: fledge train my.yaml rollout.n=16 "
                + "actor.optim.lr=2e-6")
    }
}

import Checkpoints

extension ModelConfig {
    /// The experts of a model, their number given.
    ///
    /// - Parameter perToken: what the family takes where `num_experts_per_tok` is absent.
    /// - Throws: `CheckpointError`, ``ModelError``.
    func experts(count: Int, layers: [Int], perToken defaultPerToken: Int) throws -> ExpertShape {
        let perToken = try size("num_experts_per_tok", default: defaultPerToken)
        guard count <= 1 << 16, perToken <= count else {
            throw unsupported("\(perToken) of \(count) experts a token (num_experts_per_tok)")
        }
        let coefficient = try double("router_aux_loss_coef", default: 0.001)
        guard coefficient.isFinite, coefficient >= 0 else {
            throw unsupported("router_aux_loss_coef is \(coefficient)")
        }
        return ExpertShape(
            experts: count, expertsPerToken: perToken, layers: layers, balancingCoefficient: coefficient)
    }

    /// A number of something, from 1 to 2^24, which a family has a default for.
    func size(_ key: String, default other: Int) throws -> Int { has(key) ? try size(key) : other }

    /// The same, where two spellings are about.
    func size(_ key: String, or alias: String, default other: Int) throws -> Int {
        try size(has(key) ? key : alias, default: other)
    }

    /// A switch for which null means off, not the default.
    func flag(_ key: String, default other: Bool) throws -> Bool {
        try names(key) ? bool(key, default: false) : other
    }
}

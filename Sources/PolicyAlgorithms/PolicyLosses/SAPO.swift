internal import TensorCore

/// Soft adaptive policy optimisation (Gao et al. 2025): the ratio through a sigmoid gate around 1 in place of a clip, steeper for
/// negative advantages. Always aggregated seq-mean-token-mean, whatever mode is configured.
///
/// Source: verl `core_algos.compute_policy_loss_sapo`.
public struct SAPOLoss: PolicyLoss {
    public var tauPositive, tauNegative: Double
    public init(_ settings: PolicyLossSettings = PolicyLossSettings()) {
        tauPositive = settings.tauPositive
        tauNegative = settings.tauNegative
    }

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        var arguments = arguments
        arguments.aggregation.mode = .seqMeanTokenMean
        let logRatio = try arguments.logRatio
        let offset = try logRatio.exp().subtracting(1)
        let gate = try arguments.advantages.greater(than: 0)
            .select(Self.gate(offset, tauPositive), else: Self.gate(offset, tauNegative))
        return try arguments.result(gate.multiplied(by: arguments.advantages).negated()) { [arguments] in
            let zero = try Tensor.zeros([], device: logRatio.device)
            return [
                ("actor/pg_clipfrac", zero), ("actor/ppo_kl", try arguments.share(logRatio.negated())),
                ("actor/pg_clipfrac_lower", zero),
            ]
        }
    }

    /// Slope 1 at offset 0.
    private static func gate(_ offset: Tensor, _ tau: Double) throws(TorchError) -> Tensor {
        try offset.multiplied(by: tau).sigmoid().multiplied(by: 4 / tau)
    }
}

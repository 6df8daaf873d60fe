/// How a checkpoint's weights are packed into few bits, from `quantization_config` in `config.json`.
public struct PackedFormat: Sendable, Hashable {
    /// Who laid the codes out.
    public enum Method: String, Sendable, Hashable {
        /// GPTQ (Frantar et al. 2022), as AutoGPTQ and GPTQModel store it: eight inputs' codes a word, inputs in any order.
        case gptq
        /// AWQ (Lin et al. 2023), as AutoAWQ's `gemm` kernels want it: eight outputs' codes a word, interleaved.
        case awq
    }

    public let method: Method
    /// Bits of a code: 4, or 8 in GPTQ.
    public let bits: Int
    /// Inputs that share a scale and a zero; nil: all of them.
    public let group: Int?
    /// What the stored zeros lack: GPTQ's first format stores them less one.
    let zeroOffset: Int
    /// For messages.
    let path: String

    /// Codes in a 32-bit word.
    var perWord: Int { 32 / bits }

    /// "GPTQ, 4 bits, groups of 128".
    public var summary: String {
        "\(method.rawValue.uppercased()), \(bits) bits, " + (group.map { "groups of \($0)" } ?? "one group a row")
    }

    private static let supported = "gptq (4 or 8 bits) and awq (4 bits, version gemm)"

    /// - Returns: nil where the configuration has no `quantization_config`.
    /// - Throws: `CheckpointError`: `unsupported` for a method or variant that is not read here, `configuration` for a key that is
    ///   missing or wrong.
    public init?(_ config: ModelConfig) throws {
        guard config.has("quantization_config"), let settings = try config.nested("quantization_config") else {
            return nil
        }
        path = settings.path
        let name = try settings.optionalString("quant_method") ?? ""
        guard let method = Method(rawValue: name) else {
            throw CheckpointError(
                .unsupported, settings.path,
                name.isEmpty
                    ? "the weights are quantised, and 'quant_method' does not say how"
                    : "weights quantised by '\(name)' are not read here",
                remedy: "supported are \(Self.supported); or use the checkpoint that they were made from")
        }
        self.method = method
        func refuse(_ what: String) -> CheckpointError {
            CheckpointError(
                .unsupported, settings.path, "\(name) with \(what) is not read here",
                remedy: "supported are \(Self.supported); or use the checkpoint that they were made from")
        }
        // Early AWQ checkpoints abbreviate.
        guard let bits = try settings.optionalInt("bits") ?? settings.optionalInt("w_bit") else {
            throw CheckpointError(.configuration, settings.path, "\(name): 'bits' is missing; it should be an integer")
        }
        guard bits == 4 || (bits == 8 && method == .gptq) else { throw refuse("\(bits) bits") }
        self.bits = bits
        let group = try settings.optionalInt("group_size") ?? settings.optionalInt("q_group_size") ?? -1
        guard group == -1 || (1...(1 << 24)).contains(group) else { throw refuse("a group of \(group) inputs") }
        self.group = group == -1 ? nil : group
        switch method {
        case .gptq:
            let format = try settings.optionalString("checkpoint_format") ?? "gptq"
            guard ["gptq", "gptq_v2"].contains(format) else { throw refuse("checkpoint_format '\(format)'") }
            zeroOffset = format == "gptq_v2" ? 0 : 1
        case .awq:
            let version = try settings.optionalString("version") ?? "gemm"
            guard version.lowercased() == "gemm" else { throw refuse("version '\(version)'") }
            guard try settings.bool("zero_point", default: true) else { throw refuse("zero_point false") }
            zeroOffset = 0
        }
    }
}

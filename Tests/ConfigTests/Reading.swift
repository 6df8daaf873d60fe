import Testing

@testable import Config

/// The least that is a whole configuration; tests append to it, at line 8.
let minimal = """
    model:
      path: model
    data:
      train_files: train.jsonl
      val_files: [val.jsonl]
    reward:
      type: exact_match

    """

func read(_ yaml: String = minimal, _ overrides: String...) throws -> RunConfig {
    try RunConfig(yaml: yaml, file: "recipe.yaml", overrides: overrides)
}

/// What reading a configuration complains of; empty when it is whole.
func problems(_ yaml: String, _ overrides: [String] = [], names: KnownNames = KnownNames()) -> [Diagnostic] {
    do throws(ConfigError) {
        _ = try RunConfig(yaml: yaml, file: "recipe.yaml", overrides: overrides, names: names)
        return []
    } catch {
        return error.diagnostics
    }
}

func messages(_ yaml: String, _ overrides: String...) -> [String] {
    problems(yaml, overrides).map(\.description)
}

/// A generator that gives the same numbers in every run, so that a failing property can be seen again.
struct Repeatable: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

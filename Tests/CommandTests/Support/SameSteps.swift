import OrderedCollections
import Telemetry
import Testing

/// Expects what several ranks report to be what one process does, but for how the work was cut and the weights' very bits.
func expectSameSteps(_ found: [StepMetrics], _ expected: [StepMetrics], within tolerance: Double = 1e-5) throws {
    let ofTheCut = [
        "rollout/decode_steps", "rollout/prompt_tokens_shared", "rollout/weight_digest", "actor/micro_batches",
        "actor/computed_tokens", "critic/micro_batches", "critic/computed_tokens",
        "train/micro_batches", "train/computed_tokens",
    ]
    for (step, (found, expected)) in zip(found, expected).enumerated() {
        for (name, value) in expected.values where !name.dependsOnClock && !ofTheCut.contains(name.text) {
            let other = try #require(found.values[name], "\(name) of step \(step + 1)")
            // Differences of the two phases' numbers are rounding themselves.
            let isDifference = ["training/rollout_", "rewards/", "val/rewards/"].contains { name.text.hasPrefix($0) }
            let floor = isDifference ? 1 : 1e-2
            #expect(
                abs(other - value) <= tolerance * max(abs(value), floor),
                "\(name) of step \(step + 1): \(other), alone \(value)")
        }
    }
}

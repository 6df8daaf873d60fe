import ArgumentParser
import Config

struct RewardModel: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reward-model",
        abstract: "Train a reward model on pairs of a better and a worse answer.",
        discussion: """
            Rows are those of `fledge dpo`. A language model gets a new head of one number; what `fledge export` writes is a
            Hugging Face folder for sequence classification.

            EXAMPLES
              fledge data arithmetic data/arithmetic
              fledge reward-model recipes/reward-model.yaml
              fledge export --run runs/reward-model --to exported
            All settings with their defaults: recipes/example-reward-model.yaml.
            """)

    @OptionGroup var recipe: SupervisedRecipe

    func run() async throws { try await recipe.run(.rewardModel) }
}

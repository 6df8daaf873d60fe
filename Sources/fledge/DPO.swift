import ArgumentParser
import Config

struct DPO: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dpo",
        abstract: "Train a model on pairs of a better and a worse answer, without a reward model.",
        discussion: """
            Rows have a chosen and a rejected answer, after a prompt or what both begin with. The reference is the model as it
            begins, or with a LoRA adapter the model below it.

            EXAMPLES
              fledge data arithmetic data/arithmetic
              fledge dpo recipes/dpo.yaml
              fledge dpo my.yaml dpo.loss_type=ipo dpo.beta=0.5
            All settings with their defaults: recipes/example-dpo.yaml.
            """)

    @OptionGroup var recipe: SupervisedRecipe

    func run() async throws { try await recipe.run(.dpo) }
}

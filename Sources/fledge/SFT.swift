import ArgumentParser
import Config

struct SFT: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sft",
        abstract: "Fine-tune a model on conversations or on prompts with their completions.",
        discussion: """
            Rows have messages, or a prompt and a completion; learnt are the assistant's turns. The same recipe given again
            goes on where the last checkpoint was.

            EXAMPLES
              fledge data arithmetic data/arithmetic
              fledge sft recipes/sft.yaml
              fledge sft my.yaml train.optim.lr=1e-5 model.lora_rank=16
              fledge sft my.yaml trainer.n_gpus_per_node=4 train.fsdp_config.fsdp_size=-1
            All settings with their defaults: recipes/example-sft.yaml.
            """)

    @OptionGroup var recipe: SupervisedRecipe

    func run() async throws { try await recipe.run(.sft) }
}

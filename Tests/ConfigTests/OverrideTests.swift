import Testing

@testable import Config

@Suite struct OverrideTests {
    @Test func theCommandLineWins() throws {
        let yaml = minimal + "rollout: {n: 4, temperature: 0.5}\n"
        let config = try read(
            yaml, "rollout.n=16", "actor.optim.lr=2e-5", "data.val_files=[a.jsonl, b.jsonl]", "seed=7")
        #expect(config.rollout.n == 16)
        #expect(config.rollout.temperature == 0.5)
        #expect(config.actor.optim.lr == 2e-5)
        #expect(config.data.valFiles == ["a.jsonl", "b.jsonl"])
        #expect(config.seed == 7)
    }

    @Test func theLaterWins() throws {
        #expect(try read(minimal, "rollout.n=16", "rollout.n=2").rollout.n == 2)
        #expect(try read(minimal, "rollout.n=16", "rollout={n: 4}").rollout.n == 4)
    }

    @Test func aMappingIsMerged() throws {
        let config = try read(minimal + "rollout: {n: 4, top_k: 5}\n", "rollout={n: 3, val_kwargs: {do_sample: true}}")
        #expect(config.rollout.n == 3)
        #expect(config.rollout.topK == 5)
        #expect(config.rollout.valKwargs.doSample)
    }

    @Test func nullIsTheDefault() throws {
        let yaml = minimal + "rollout: {n: 4, top_k: 5}\n"
        #expect(try read(yaml, "rollout.n=null").rollout.n == 8)
        #expect(try read(yaml, "rollout.n=null").rollout.topK == 5)
        #expect(try read(yaml, "rollout=null").rollout.topK == -1)
        #expect(try read(yaml, "rollout=null", "rollout.n=2").rollout.n == 2)
        #expect(try read(yaml, "data.seed=3", "data.seed=null").data.seed == nil)
        // Of the few settings whose default is not null, null is a value.
        #expect(try read(yaml, "actor.grad_clip=null").actor.gradClip == nil)
    }

    @Test func aShellEatsQuotes() throws {
        #expect(try read(minimal, "experiment_name=7").experimentName == "7")
        #expect(try read(minimal, "data.system_prompt=true").data.systemPrompt == "true")
        #expect(try read(minimal, "data.system_prompt=''").data.systemPrompt == "")
        #expect(try read(minimal, "data.system_prompt=a=b").data.systemPrompt == "a=b")
    }

    @Test func weightsAreMerged() throws {
        let yaml = minimal.replacing("type: exact_match", with: "weights: {exact_match: 1}")
        let config = try read(yaml, "reward.weights.number_match=0.5")
        #expect(config.reward.weights.map { "\($0.key) \($0.value)" } == ["exact_match 1.0", "number_match 0.5"])
        #expect(config.reward.source == .weighted(config.reward.weights))
    }

    @Test(arguments: [
        ("rollout.tempertaure=0.7", "unknown key; did you mean rollout.temperature?"),
        ("rolout.top_p=0.7", "unknown key; did you mean rollout.top_p or rollout.val_kwargs.top_p?"),
        ("lr=1", "unknown key; did you mean actor.optim.lr or critic.optim.lr?"),
        ("rollout.tempertaure=null", "unknown key; did you mean rollout.temperature?"),
        ("rollout.n=0", "the integer 0 is out of range; give an integer from 1 to 65536"),
        ("rollout.n=", "no value; rollout.n=null is the default, rollout.n='\"\"' the empty text"),
        ("rollout.n.x=3", "expected an integer, got a mapping; give an integer from 1 to 65536"),
        ("rollout=3", "expected a section of settings, got the integer 3; write its settings below it, indented"),
        ("rollout.n", "not an override; write key=value, as in rollout.n=8"),
        ("=3", "not a setting's name; write key=value, as in rollout.n=8"),
        ("rollout..n=3", "not a setting's name; write key=value, as in rollout.n=8"),
        ("--rollout.n=3", "not a setting's name; write key=value, as in rollout.n=8"),
        ("+rollout.n=3", "Hydra's + and ~ are not supported; every setting exists: write key=value"),
        ("model.path=null", "required and not set; set it to text, as in models/SmolLM2-135M-Instruct"),
        ("actor_rollout_ref.rollout.n=3", "Fledge has no actor_rollout_ref level; write rollout.n"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode=gspo", "has another name here; write actor.policy_loss"),
        (
            "actor_rollout_ref.actor.fsdp_config.param_offload=true",
            "Fledge has no actor_rollout_ref level; write actor.fsdp_config.param_offload"
        ),
        (
            "trainer.logger=[console, wandb]",
            "wandb: not supported yet; give one or a list of console, jsonl, tensorboard or html"
        ),
    ])
    func refused(_ argument: String, _ message: String) {
        #expect(messages(minimal, argument) == ["command line: \(argument): \(message)"])
    }

    @Test func badYAMLInAValue() {
        let found = problems(minimal, ["rollout.stop=[a", "data.system_prompt={a: 1, a: 2}"])
        #expect(found.map(\.code) == [.syntax, .duplicateKey, .wrongType])
        #expect(found.allSatisfy { $0.file == "command line" && $0.line == nil })
    }

    @Test func verlsLevelInAFile() {
        let yaml = minimal + "actor_rollout_ref:\n  actor:\n    optim: {lr: 1e-6}\n  rollout: {name: vllm}\n  ref: {}\n"
        #expect(
            messages(yaml) == [
                "recipe.yaml:9:3: actor_rollout_ref.actor: Fledge has no actor_rollout_ref level; write actor",
                "recipe.yaml:11:3: actor_rollout_ref.rollout: Fledge has no actor_rollout_ref level; write rollout",
                "recipe.yaml:12:3: actor_rollout_ref.ref: not needed: log-probabilities are computed by the actor's token "
                    + "budget; remove it",
            ])
    }
}

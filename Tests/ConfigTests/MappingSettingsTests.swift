import OrderedCollections
import Testing

@testable import Config

@Suite struct MappingSettingsTests {
    private static let pools = minimal + "resource_pools: {train: 4, sample: 2}\n"

    @Test func rolesAreOnTheActorsPoolUnlessTheySay() throws {
        let config = try read(
            Self.pools + "roles: {rollout: sample}\ncritic: {enable: true}\nactor: {use_kl_loss: true}\n")
        let mapping = try #require(config.mapping)
        #expect(mapping.pools.map(\.name) == ["train", "sample"] && mapping.pools.map(\.ranks) == [0..<4, 4..<6])
        #expect(mapping.pools.map(\.roles) == [[.actor, .critic, .reference], [.rollout]])
        #expect(mapping.rankCount == 6 && config.ranksAsked == 6 && mapping.pool(of: 5)?.name == "sample")
        #expect(
            mapping.parts(.actor, .rollout) && !mapping.parts(.actor, .critic) && !mapping.parts(.actor, .rewardModel))
        let again = try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml")
        #expect(again == config && again.mapping == mapping)
        #expect(config.resolvedYAML().contains("resource_pools: {train: 4, sample: 2}"))
    }

    @Test func withoutPoolsOrWithOneAllDoEverything() throws {
        #expect(try read().mapping == nil && read().ranksAsked == nil)
        let one = try read(minimal + "resource_pools: {all: 3}\n")
        #expect(one.mapping == nil && one.ranksAsked == 3)
    }

    @Test(arguments: [
        ("", false), ("resource_pools: {train: 1, sample: 2}\nroles: {rollout: sample}\n", true),
        (
            "resource_pools: {train: 1, sample: 2}\nroles: {rollout: sample, reference: sample}\nactor: {use_kl_loss: true}\n",
            false
        ),
    ])
    func samplersAreStartedAnewWhereTheyAreAlone(pools: String, areAlone: Bool) throws {
        let config = try read(minimal + pools, "rollout.max_restarts=5")
        #expect((config.samplersAlone != nil) == areAlone && config.rollout.maxRestarts == 5)
        #expect(config.warnings.contains { "\($0)".contains("rollout.max_restarts") } == !areAlone)
        #expect(try read(minimal + pools).warnings.allSatisfy { !"\($0)".contains("rollout.max_restarts") })
    }

    @Test func theOrderOfPoolsIsThatOfRanks() throws {
        let config = try read(minimal + "resource_pools: {b: 1, a: 2}\nroles: {actor: a, rollout: b}\n")
        #expect(config.mapping?.pool(of: .actor)?.ranks == 1..<3)
        #expect(try read(minimal + "resource_pools: {a: 2, b: 1}\nroles: {actor: a, rollout: b}\n") != config)
    }

    @Test func poolsMayBeGivenOneByOne() throws {
        let config = try read(
            minimal, "resource_pools.actor=2", "resource_pools.samplers=1", "roles.actor=actor",
            "roles.rollout=samplers")
        #expect(config.resourcePools == ["actor": 2, "samplers": 1])
        #expect(config.resolvedYAML().contains("resource_pools: {actor: 2, samplers: 1}"))
    }

    @Test(arguments: [
        ("roles: {rollout: x}", ["recipe.yaml:", "roles.rollout = x", "resource_pools = {}", "give resource_pools"]),
        (
            "resource_pools: {a: 1, b: 1}\nroles: {rollout: c}",
            ["roles.rollout = c", "no pool 'c'", "name one of a, b"]
        ),
        ("resource_pools: {a: 1, b: 1}", ["resource_pools = {a: 1, b: 1} (recipe.yaml:8)", "no role is on pool 'b'"]),
        (
            "resource_pools: {a: 1, b: 1}\nroles: {critic: b}",
            ["roles.critic = b", "algorithm.adv_estimator = grpo", "there is no critic"]
        ),
        (
            "resource_pools: {a: 1, b: 1}\nroles: {reference: b}",
            ["roles.reference = b", "actor.use_kl_loss = false", "remove roles.reference"]
        ),
        (
            "resource_pools: {a: 1, b: 1}\nroles: {reward_model: b}",
            ["roles.reward_model = b", "reward.model.path = null"]
        ),
        (
            "resource_pools: {a: 1, b: 1}\nroles: {rollout: b}\ntrainer: {n_gpus_per_node: 3}",
            ["trainer.n_gpus_per_node = 3 (recipe.yaml:10)", "resource_pools = {a: 1, b: 1}", "make it 2"]
        ),
        (
            "resource_pools: {a: 1, b: 1}\nroles: {rollout: b}\nrollout: {n_gpus_per_node: 1}",
            ["rollout.n_gpus_per_node = 1", "resource_pools = {a: 1, b: 1}", "roles.rollout"]
        ),
        (
            "resource_pools: {a: 3, b: 1}\nroles: {rollout: b}\nactor: {megatron: {tensor_model_parallel_size: 2}}",
            [
                "resource_pools = {a: 3, b: 1}", "tensor_model_parallel_size = 2", "pool 'a' (actor) of 3",
                "multiple of 2",
            ]
        ),
        (
            "resource_pools: {a: 2, b: 1}\nroles: {rollout: b}\nrollout: {tensor_model_parallel_size: 2}",
            ["rollout.tensor_model_parallel_size = 2", "pool 'b' of 1"]
        ),
        (
            "resource_pools: {a: 4, b: 1}\nroles: {rollout: b}\nactor: {fsdp_config: {fsdp_size: 3}}",
            ["actor.fsdp_config.fsdp_size = 3", "the 4 that divide the batches of pool 'a'", "a divisor of 4"]
        ),
        (
            "resource_pools: {a: 1, b: 1}\nroles: {rollout: b, reference: b}\nactor: {use_kl_loss: true}\nmodel: {path: m, lora_rank: 4}",
            ["roles.reference = b", "model.lora_rank = 4", "what lies below the adapter"]
        ),
    ])
    func whatIsAtOddsIsToldWithPlaceAndRemedy(_ yaml: String, _ parts: [String]) throws {
        let text =
            yaml.hasSuffix("lora_rank: 4}")
            ? minimal.replacing("model:\n  path: model\n", with: "") + yaml + "\n" : minimal + yaml + "\n"
        let found = messages(text)
        #expect(found.count == 1, "\(found)")
        for part in parts { #expect(found.first?.contains(part) == true, "\(part) in \(found)") }
    }

    @Test(arguments: [
        "resource_pools: 3", "resource_pools: {a: 0}", "resource_pools: {a b: 1}", "resource_pools: {a: x}",
    ])
    func poolsAreNamesAndCounts(_ yaml: String) {
        #expect(messages(minimal + yaml + "\n").count == 1)
    }
}

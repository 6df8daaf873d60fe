import Models
import Testing

@testable import Workers

/// Which roles `fledge plan` puts on which devices.
@Suite struct MappingPlannerTests {
    private func work(critic: Bool = false, reference: Bool = false) -> PlanWork {
        var work = PlanWork()
        (work.prompts, work.samples, work.promptTokens, work.responseTokens) = (64, 8, 256, 1024)
        (work.miniBatch, work.trainsCritic, work.needsReference) = (32, critic, reference)
        return work
    }

    private func planner(
        _ shape: String, _ name: String, _ devices: Int, _ work: PlanWork, memory: String? = nil
    ) throws -> MappingPlanner {
        var device = try #require(PlanDevice(named: name))
        if let memory { device.memory = try #require(PlanDevice.bytes(memory)) }
        return MappingPlanner(
            model: try MemoryForecastTests.model(shape), work: work, device: device, devices: devices)
    }

    private static let cases: [(shape: String, device: String, devices: Int, critic: Bool)] = [
        ("qwen2.5-0.5b", "h200", 2, false), ("qwen2.5-0.5b", "h100", 4, true), ("qwen2-7b", "h200", 4, true),
        ("qwen2-7b", "h100", 8, false), ("qwen2-7b", "h100", 6, true), ("qwen2.5-0.5b", "h100", 16, false),
    ]

    @Test(arguments: cases) func whatIsProposedUsesAllDevicesAndFits(
        shape: String, device: String, devices: Int, critic: Bool
    ) throws {
        let planner = try planner(shape, device, devices, work(critic: critic, reference: true))
        let result = planner.plan(), chosen = try #require(result.chosen)
        #expect(chosen.devices == devices)
        #expect(chosen.pools.allSatisfy { $0.layout.devices == $0.devices })
        #expect(chosen.pools.allSatisfy { $0.peak <= MemoryForecast.usable(planner.device) })
        #expect(Set(chosen.pools.map(\.name)).count == chosen.pools.count)
        let roles = chosen.pools.flatMap(\.roles)
        #expect(roles.sorted() == (["actor", "reference", "rollout"] + (critic ? ["critic"] : [])).sorted())
        #expect(chosen.seconds > 0 && (0..<1).contains(chosen.idle))
        #expect(chosen.overlap == .synchronous, "weights of a step before are not for the planner to decide")
        // Each other kind is there, with why not.
        #expect(result.rejected.count >= 3 && result.rejected.allSatisfy { !$0.why.isEmpty })
        #expect(result.rejected.contains { $0.what.contains("one_step_off") })
    }

    @Test func oneDeviceHasEveryRole() throws {
        let result = try planner("qwen2.5-0.5b", "h200", 1, work()).plan()
        #expect(result.chosen?.pools.map(\.roles) == [["actor", "rollout"]] && result.rejected.isEmpty)
    }

    /// Nothing is proposed that has no room, and each kind says what it lacks.
    @Test func whatFitsNowhereIsSaid() throws {
        let planner = try planner("qwen2-7b", "h200", 2, work(critic: true, reference: true), memory: "4GB")
        let none = planner.plan()
        #expect(none.chosen == nil && none.rejected.count == 4)
        #expect(none.rejected.allSatisfy { $0.why.contains("room") }, "\(none.rejected)")
    }

    @Test func settingsNameEveryPoolAndRole() throws {
        var mapping = PlanMapping(pools: [], overlap: .oneStepOff, seconds: 2)
        var layout = PlanLayout()
        layout.fsdp = 2
        mapping.pools = [
            .init(
                name: "actor", roles: ["actor", "reference"], devices: 2, layout: layout, peak: 1, phase: "update",
                busy: 2,
                settings: layout.settings),
            .init(
                name: "samplers", roles: ["rollout"], devices: 1, layout: PlanLayout(), peak: 1, phase: "generate",
                busy: 1,
                settings: []),
        ]
        #expect(
            mapping.settings == [
                "'resource_pools={actor: 2, samplers: 1}'", "roles.rollout=samplers",
                "actor.fsdp_config.fsdp_size=-1",
                "async_training.mode=one_step_off",
            ])
        #expect(mapping.description == "actor+reference on 2 (fsdp=2 FULL_SHARD) | rollout on 1, one_step_off")
        #expect(abs(mapping.idle - 1.0 / 6) < 1e-12)
    }
}

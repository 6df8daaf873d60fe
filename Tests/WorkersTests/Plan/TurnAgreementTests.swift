import Collectives
import Config
import Synchronization
import TensorCore
import TestSupport
import Testing

@testable import Workers

/// Ranks that chose by what their own devices have room for do alike.
@Suite struct TurnAgreementTests {
    private func plan() throws -> TrainingPlan {
        let yaml = """
            model: {path: m}
            device: cpu
            data: {train_files: "builtin:arithmetic"}
            reward: {type: exact_match}
            """
        let config = try RunConfig(yaml: yaml, file: "r.yaml", names: TrainingRun.knownNames)
        return try RunPlan(config).training(totalSteps: 1, checkpoints: nil)
    }

    /// What each rank chose, what becomes of it on both.
    @Test(
        arguments: [
            (
                [RestingRoles(), RestingRoles(reference: true, critic: true)], [100, 60],
                RestingRoles(reference: true, critic: true), 60
            ),
            (
                [RestingRoles(states: true), RestingRoles(reference: true)], [nil, 60],
                .init(reference: true, states: true), nil
            ),
            ([RestingRoles(), RestingRoles()], [7, 7], RestingRoles(), 7),
        ] as [([RestingRoles], [Int?], RestingRoles, Int?)])
    func allDoAsTheOneWithTheLeastRoom(
        chosen: [RestingRoles], limits: [Int?], rests: RestingRoles, limit: Int?
    ) throws {
        let plan = try plan(), store = try RendezvousStore.local(), found = Mutex<[RestingRoles]>([])
        try onRanks(2) { rank in
            let mesh = DeviceMesh(MeshShape([.shard: 2]), rank: rank, store: store)
            var own = plan
            (own.rests, own.cacheLimit, own.restsByForecast) = (chosen[rank], limits[rank], true)
            let agreed = try own.agreed(over: mesh)
            #expect(agreed.cacheLimit == limit)
            found.withLock { $0.append(agreed.rests) }
            // What a recipe says is the same on all ranks, and needs no word between them.
            own.restsByForecast = false
            #expect(try own.agreed(over: mesh).rests == chosen[rank])
        }
        #expect(found.withLock { $0 } == [rests, rests])
    }
}

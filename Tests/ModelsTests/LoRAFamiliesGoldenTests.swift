import Checkpoints
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import Models

/// Adapters on every family of the registry that has a small checkpoint.
@Suite struct LoRAFamiliesGoldenTests {
    /// `all-linear`: the adapter beside the weights, and through the cache, gives what the dense merged model gives, and taking
    /// it back leaves no trace.
    @Test(arguments: ModelsGoldenTests.Fixture.all)
    func adaptsEveryLinearLayer(fixture: ModelsGoldenTests.Fixture) throws {
        let model = try ModelRegistry.load(ModelSource.open(fixture.folder.path))
        let base = try model.parameters.map { try $0.tensor.cloned() }
        let lora = try model.addRandomAdapter(LoRASettings(rank: 2, alpha: 1))
        #expect(lora.modules.contains { $0.hasSuffix(".o_proj") })
        #expect(!lora.modules.contains { $0.contains(".experts.") || $0.contains("lm_head") || $0.contains("embed") })
        let ids = (0..<11).map { Int64($0 * 5 % min(50, model.shape.vocabulary)) }
        try withNoGrad {
            let plain = try lora.disabled { try model.logits(ids) }
            let beside = try model.logits(ids)
            let scale = try beside.abs().max().item()
            #expect(try distance(beside, plain) > 1e-3 * scale)
            try model.mergeAdapter()
            let merged = try model.logits(ids)
            try model.unmergeAdapter()
            #expect(try distance(beside, merged) < 1e-4 * scale)
            for (before, parameter) in zip(base, model.parameters) { #expect(try parameter.tensor.equals(before)) }
            #expect(try model.logits(ids).equals(beside))
        }
        // Every A and B gets a gradient, and nothing else does.
        for parameter in lora.parameters { try parameter.tensor.setRequiresGrad() }
        try withGrad { try model.logits(ids).squared().mean().backward() }
        for parameter in lora.parameters {
            #expect(
                try #require(try parameter.tensor.grad(), "\(parameter.name)").abs().max().item() > 0,
                "\(parameter.name)")
        }
        for parameter in model.parameters { #expect(try parameter.tensor.grad() == nil) }
    }
}

import Collectives
import Models
import TensorCore

/// A model whose weights take memory only while it is read, filled from what all ranks hold of another layout.
final class ReshardedModel {
    let model: any CausalLanguageModel
    private var resharder: Resharder?

    /// - Parameter model: with memory, which is freed.
    init(_ model: any CausalLanguageModel) throws {
        self.model = model
        try empty()
    }

    /// Takes memory and fills it. Every rank of `mesh` calls it, always with shards of the same boxes.
    func fill(from shards: [LocalShard], _ mesh: DeviceMesh) throws -> ReshardReport {
        for parameter in model.parameters { _ = try parameter.tensor.allocateStorage(parameter.tensor.shape) }
        let targets = try withNoGrad { try model.parameters.flatMap { try $0.shards() } }
        let resharder =
            try self.resharder
            ?? Resharder(
                held: shards.map(\.spec), wanted: targets.map(\.spec), group: mesh.group(MeshAxis.all),
                device: model.device)
        self.resharder = resharder
        return try resharder.run(from: shards, into: targets)
    }

    func empty() throws { for parameter in model.parameters { try parameter.tensor.releaseStorage() } }
}

import Collectives
import Models
import TensorCore

/// Makes a rank's sum of squared gradients that of the whole model, counting what several ranks hold once.
struct NormCompletion {
    private let group: ProcessGroup?
    /// Ranks that hold the same of everything.
    private let copies: ProcessGroup?
    /// What another rank counts.
    private let counted: [ShardedParameter]

    init(_ trained: [ShardedParameter], mesh: DeviceMesh) throws {
        // Axes along which all is copied need no sum.
        let axes = MeshAxis.all.filter { axis in trained.contains { !$0.axes.copied.contains(axis) } }
        group = try mesh.group(axes)
        copies = try mesh.group(MeshAxis.all.filter { !axes.contains($0) })
        counted = trained.filter { member in
            axes.contains { member.axes.copied.contains($0) && mesh.coordinate($0) != 0 }
        }
    }

    /// - Parameter squares: float64 `[1]`, changed in place.
    func callAsFunction(_ squares: Tensor) throws(TorchError) {
        for member in counted {
            guard let grad = try member.gradient(), grad.count > 0 else { continue }
            try squares.add(grad.to(dtype: .float64).squared().sum(), scale: -1)
        }
        try group?.allReduce([squares])
        // Sums in other orders differ in their last bits, and copies of the weights would drift apart.
        try copies?.broadcast([squares], root: 0)
    }
}

import RolloutEngine
import TensorCore

/// A trainer's weights on their way to samplers of the same process, by the very tensors: nothing is copied but onto the receivers'
/// devices. The trainer must not step while one is read.
struct WeightHandOver: @unchecked Sendable {
    let version: Int
    let tensors: [RolloutEngine.NamedTensor]
    let digest: WeightDigest

    /// - Parameter tensors: of a device that has finished what it was to do.
    init(version: Int, _ tensors: [RolloutEngine.NamedTensor]) throws {
        self.version = version
        self.tensors = tensors
        var digest = WeightDigest()
        for (name, tensor) in tensors { try digest.add(name, tensor) }
        self.digest = digest
    }

    /// In parts of so many bytes.
    func buckets(bytes: Int) -> [[RolloutEngine.NamedTensor]] {
        var buckets: [[RolloutEngine.NamedTensor]] = [], size = 0
        for named in tensors {
            if buckets.isEmpty || size + named.tensor.byteCount > bytes {
                buckets.append([])
                size = 0
            }
            buckets[buckets.count - 1].append(named)
            size += named.tensor.byteCount
        }
        return buckets
    }
}

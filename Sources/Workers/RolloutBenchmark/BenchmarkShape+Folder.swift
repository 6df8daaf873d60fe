import Checkpoints
import Models
import RolloutCore
import TensorCore

extension BenchmarkShape {
    /// The checkpoint's tensors, as the family asks for them.
    private func tensors() throws -> [(name: String, shape: [Int])] {
        let listing = TensorListing()
        try ModelRegistry.check(config, architecture: architecture, weights: listing)
        return listing.tensors
    }

    /// Notes what is asked for; holds nothing.
    private final class TensorListing: WeightSource {
        var tensors: [(name: String, shape: [Int])] = []
        func problem(_ name: String, shape: [Int]) -> WeightProblem? {
            tensors.append((name, shape))
            return nil
        }
        func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
            throw WorkerError(.badSetting, "'\(name)' has no values: only its shape was asked for")
        }
    }

    /// Writes a folder of bfloat16 for measurements that read files; every tensor is the beginning of the same random bits.
    /// - Throws: `CheckpointError`, such as `diskFull`.
    public func write(to folder: String) throws {
        let shapes = try tensors()
        let largest = shapes.map { $0.shape.reduce(1, *) }.max() ?? 1
        let bits = try Tensor.empty([largest], dtype: .bfloat16)
        try bits.withUnsafeMutableBytes { bytes in
            // The first part is drawn, the rest copied from it.
            let drawn = min(bytes.count, 1 << 24) / 8 * 8
            for offset in stride(from: 0, to: drawn, by: 8) {
                bytes.storeBytes(of: SplitMix64.seed(1, UInt64(offset)), toByteOffset: offset, as: UInt64.self)
            }
            for offset in stride(from: drawn, to: bytes.count, by: max(8, drawn)) {
                let count = min(drawn, bytes.count - offset)
                bytes.baseAddress!.advanced(by: offset).copyMemory(from: bytes.baseAddress!, byteCount: count)
            }
        }
        try HuggingFaceExporter.write(
            tensors: shapes.map { name, shape in
                (name: name, tensor: try bits.narrowed(0, 0..<shape.reduce(1, *)).reshaped(shape))
            }, config: config, to: folder)
    }
}

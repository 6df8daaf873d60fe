import Models
import RolloutCore
public import TensorCore

/// What an update of the weights brought.
public struct WeightUpdate: Sendable, Hashable {
    public internal(set) var version: Int
    public internal(set) var tensors = 0, bytes = 0, buckets = 0
    /// Of what came, before it was converted to the model's type; nil when it was not asked for.
    public internal(set) var digest: WeightDigest?
    public internal(set) var milliseconds = 0.0
}

/// A digest of named tensors, whatever their order: the sender of weights makes it of what it sends, the receiver of what came.
/// Not cryptographic.
public struct WeightDigest: Sendable, Hashable, CustomStringConvertible {
    public private(set) var value: UInt64 = 0
    public init() {}

    /// Adds a tensor's name and bytes, read where it lies.
    public mutating func add(_ name: String, _ tensor: Tensor) throws(TorchError) {
        // FNV-1a of the name.
        let place = name.utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
        // A sum, so that order does not matter.
        value &+= SplitMix64.seed(place, try tensor.digest())
    }

    /// 16 hexadecimal digits.
    public var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

extension RolloutEngine {
    /// A tensor by its checkpoint's name.
    public typealias NamedTensor = (name: String, tensor: Tensor)

    /// Takes new weights from elsewhere, bucket by bucket, into the model's own tensors: their addresses stay, and so CUDA graphs
    /// do. Every tensor that training changes (`model.changingTensors()`: all of the checkpoint, or an adapter's matrices alone) has to
    /// come exactly once, in any order, in any buckets, of any floating-point type and on any device; of tensors that the model holds
    /// as one (`qkv`, `gate_up`) each part for itself. A bucket is checked whole before any of it is taken.
    ///
    /// When this throws after the first tensor was taken, the model holds a mixture, and the engine refuses to generate until an
    /// update has come whole; before, nothing has changed.
    ///
    /// - Parameters:
    ///   - version: of these weights; another than ``weightVersion``, which it becomes.
    ///   - digests: whether to make a digest of what comes, which takes a pass over it.
    /// - Throws: ``RolloutError`` `badUpdate` that names the tensors, `TorchError`.
    @discardableResult
    public func updateWeights(
        version: Int, from buckets: some Sequence<[NamedTensor]>, digests: Bool = true
    ) throws -> WeightUpdate {
        var iterator = buckets.makeIterator()
        return try updateWeights(version: version, digests: digests) { iterator.next() }
    }

    /// As ``updateWeights(version:from:digests:)``, from a source that may fail, nil being its end. What it throws is thrown on.
    @discardableResult
    public func updateWeights(
        version: Int, digests: Bool = true, nextBucket: () throws -> [NamedTensor]?
    ) throws -> WeightUpdate {
        guard version != weightVersion else {
            throw RolloutError(.badUpdate, "the weights are of version \(version) already; give the new ones another")
        }
        let start = ContinuousClock.now
        let targets = try model.changingTensors()
        var update = WeightUpdate(version: version)
        if digests { update.digest = WeightDigest() }
        var arrivals = WeightArrivals(targets, areAdapters: model.adapter != nil)
        while let bucket = try nextBucket() {
            let places = try arrivals.take(bucket)
            try withNoGrad {
                for (given, place) in zip(bucket, places) {
                    try update.digest?.add(given.name, given.tensor)
                    beginMixture(version)
                    try targets[place].tensor.copy(from: given.tensor)
                    update.tensors += 1
                    update.bytes += given.tensor.byteCount
                }
            }
            update.buckets += 1
        }
        try arrivals.checkComplete()
        try model.device.synchronize()
        brokenUpdate = nil
        weightVersion = version
        update.milliseconds = (ContinuousClock.now - start) / .milliseconds(1)
        return update
    }

    /// Takes new weights that `fill` writes into the model's own tensors, and gives the version of. When that throws, the engine refuses
    /// to generate until an update has come whole.
    public func replaceWeights(_ fill: () throws -> Int) throws {
        if brokenUpdate == nil {
            brokenUpdate = "an update broke off, and the weights are partly those of \(weightVersion)"
            model.unpackProjections()
            packedVersion = nil
        }
        let version = try fill()
        try model.device.synchronize()
        brokenUpdate = nil
        weightVersion = version
    }

    private func beginMixture(_ version: Int) {
        guard brokenUpdate == nil else { return }
        brokenUpdate = "an update to version \(version) broke off, and the weights are partly those of \(weightVersion)"
        // Copies would be of neither.
        model.unpackProjections()
        packedVersion = nil
    }

    /// - Throws: ``RolloutError`` `mixedWeights`.
    func checkWeights() throws(RolloutError) {
        if let brokenUpdate { throw RolloutError(.mixedWeights, brokenUpdate + "; send all of them again") }
    }
}

/// Which of a model's tensors have come.
private struct WeightArrivals {
    private let targets: [RolloutEngine.NamedTensor]
    private let places: [String: Int]
    private var hasCome: [Bool]
    /// Whether an adapter's matrices are all that comes.
    private let areAdapters: Bool

    init(_ targets: [RolloutEngine.NamedTensor], areAdapters: Bool) {
        self.targets = targets
        self.areAdapters = areAdapters
        places = Dictionary(uniqueKeysWithValues: targets.enumerated().map { ($1.name, $0) })
        hasCome = Array(repeating: false, count: targets.count)
    }

    /// Where each tensor of a bucket goes.
    /// - Throws: ``RolloutError`` `badUpdate` for all that is wrong with the bucket; then none of it counts as come.
    mutating func take(_ bucket: [RolloutEngine.NamedTensor]) throws(RolloutError) -> [Int] {
        var problems: [String] = [], found: [Int] = [], marked = hasCome
        for (name, tensor) in bucket {
            guard let place = places[name] else {
                problems.append("\(WeightProblem.leftOver(name))")
                continue
            }
            let wanted = targets[place].tensor
            if marked[place] {
                problems.append("'\(name)' came before")
            } else if tensor.shape != wanted.shape {
                problems.append("\(WeightProblem.shape(name, found: tensor.shape, wanted: wanted.shape))")
            } else if !tensor.dtype.isFloatingPoint {
                problems.append("\(WeightProblem.type(name, found: "\(tensor.dtype)"))")
            }
            marked[place] = true
            found.append(place)
        }
        guard problems.isEmpty else { throw error(problems) }
        hasCome = marked
        return found
    }

    func checkComplete() throws(RolloutError) {
        let missing = zip(targets, hasCome).filter { !$1 }.map { "\(WeightProblem.missing($0.0.name))" }
        guard missing.isEmpty else { throw error(missing) }
    }

    private func error(_ problems: [String]) -> RolloutError {
        let shown = problems.prefix(8).joined(separator: ", ")
        let more = problems.count > 8 ? ", and \(problems.count - 8) more" : ""
        let what = areAdapters ? "new weights of the adapter, below which nothing changes" : "new weights"
        return RolloutError(.badUpdate, "\(what): \(shown)\(more)")
    }
}

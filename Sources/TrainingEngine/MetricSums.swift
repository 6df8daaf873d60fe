import TensorCore

/// A batch's metrics, gathered from its micro-batches in order.
public struct MetricSums: Sendable {
    public var values: [(name: String, value: Double)] { entries.map { ($0.name, $0.value) } }
    private var entries: [(name: String, value: Double, isMaximum: Bool)] = []

    public init() {}

    /// Adds those of other micro-batches of the same batch.
    public mutating func merge(_ other: MetricSums) {
        for entry in other.entries { add(entry.name, entry.value, isMaximum: entry.isMaximum) }
    }

    public mutating func add(_ name: String, _ value: Double, isMaximum: Bool = false) {
        guard let index = entries.firstIndex(where: { $0.name == name }) else {
            entries.append((name, value, isMaximum))
            return
        }
        entries[index].value = isMaximum ? max(entries[index].value, value) : entries[index].value + value
    }
}

// MARK: - Between ranks

extension MetricSums {
    /// For another rank of the same program.
    func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        for entry in entries {
            let name = Array(entry.name.utf8)
            bytes.append(entry.isMaximum ? 1 : 0)
            withUnsafeBytes(of: entry.value.bitPattern.littleEndian) { bytes += $0 }
            withUnsafeBytes(of: UInt32(name.count).littleEndian) { bytes += $0 }
            bytes += name
        }
        return bytes
    }

    /// - Throws: ``TorchError``, `mismatch`, for what ``encoded()`` cannot have given.
    init(decoding bytes: [UInt8]) throws(TorchError) {
        self.init()
        var rest = bytes[...]
        while !rest.isEmpty {
            guard rest.count >= 13 else { throw Self.broken(bytes.count) }
            let isMaximum = rest.removeFirst() == 1
            let value = Self.integer(rest.prefix(8)), length = Int(Self.integer(rest.dropFirst(8).prefix(4)))
            rest = rest.dropFirst(12)
            guard rest.count >= length else { throw Self.broken(bytes.count) }
            let name = String(decoding: rest.prefix(length), as: UTF8.self)
            entries.append((name, Double(bitPattern: value), isMaximum))
            rest = rest.dropFirst(length)
        }
    }

    private static func integer(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private static func broken(_ count: Int) -> TorchError {
        TorchError(code: .mismatch, operation: "metrics of another rank", message: "\(count) bytes are no metrics")
    }
}

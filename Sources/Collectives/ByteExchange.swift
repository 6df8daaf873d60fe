internal import Foundation
public import TensorCore

extension ProcessGroup {
    /// Every rank's bytes, as many as each has, in the order of the ranks.
    /// - Parameter device: where the group's tensors lie.
    public func exchange(bytes own: [UInt8], device: Device) throws(TorchError) -> [[UInt8]] {
        let lengths = try gathered([Int64(own.count)], device: device).map(Int.init),
            longest = max(1, lengths.max() ?? 0)
        let padded = own + [UInt8](repeating: 0, count: longest - own.count)
        let bytes = try gathered(padded, device: device)
        return lengths.enumerated().map { Array(bytes[$0 * longest..<$0 * longest + $1]) }
    }

    /// Every rank's value, in the order of the ranks.
    public func exchange<Value: Codable>(_ own: Value, device: Device) throws -> [Value] {
        // A top-level number or string is no JSON of old: wrapped in an array, anything is.
        try exchange(bytes: Array(JSONEncoder().encode([own])), device: device).map { bytes in
            try JSONDecoder().decode([Value].self, from: Data(bytes))[0]
        }
    }
}

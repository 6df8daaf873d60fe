internal import Foundation
public import TensorCore

extension ProcessGroup {
    /// Every rank's bytes, as many as each has, in the order of the ranks.
    /// - Parameter device: where the group's tensors lie.
    public func exchange(bytes own: [UInt8], device: Device) throws -> [[UInt8]] {
        let counts = try Tensor.zeros([size], dtype: .int64, device: device)
        try allGather([Tensor([Int64(own.count)], device: device)], into: [counts])
        let lengths = try counts.values(Int64.self).map(Int.init), longest = max(1, lengths.max() ?? 0)
        let padded = own + [UInt8](repeating: 0, count: longest - own.count)
        let all = try Tensor.zeros([size * longest], dtype: .uint8, device: device)
        try allGather([Tensor(padded, device: device)], into: [all])
        let bytes = try all.values(UInt8.self)
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

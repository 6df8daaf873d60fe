import Foundation
import Testing

/// A folder for one test, removed with what is in it at the end.
final class TemporaryFolder {
    let path: String

    init() throws {
        let url = FileManager.default.temporaryDirectory.appending(path: "fledge-checkpoints-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Writes `bytes` under `name` and gives back the path.
    @discardableResult
    func write(_ bytes: [UInt8], _ name: String) throws -> String {
        let file = path + "/" + name
        try Data(bytes).write(to: URL(fileURLWithPath: file))
        return file
    }

    @discardableResult
    func write(_ text: String, _ name: String) throws -> String { try write(Array(text.utf8), name) }
}

func bytes(of path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

/// Numbers that are the same in every run.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A few bytes changed, a piece cut off, or a piece repeated, mostly near the front, where headers are.
    mutating func mutate(_ original: [UInt8]) -> [UInt8] {
        var bytes = original
        for _ in 0..<Int.random(in: 1...4, using: &self) {
            guard !bytes.isEmpty else { break }
            let reach = Bool.random(using: &self) ? min(bytes.count, 64) : bytes.count
            let at = Int.random(in: 0..<reach, using: &self)
            switch Int.random(in: 0..<8, using: &self) {
            case 0: bytes.removeSubrange(at...)
            case 1: bytes.remove(at: at)
            case 2: bytes.insert(contentsOf: bytes[at..<min(bytes.count, at + 9)], at: at)
            case 3: for index in at..<min(bytes.count, at + 8) { bytes[index] = 0xFF }
            case 4: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &self)
            case 5: bytes[at] = UInt8(ascii: "9")
            default: bytes[at] = UInt8.random(in: .min ... .max, using: &self)
            }
        }
        return bytes
    }
}

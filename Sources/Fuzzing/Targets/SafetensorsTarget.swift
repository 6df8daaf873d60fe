internal import Checkpoints
internal import TensorCore

/// A safetensors file: the header, and every tensor's bytes.
public struct SafetensorsTarget: FuzzTarget {
    public static let name = "safetensors"
    public static let fileSuffixes = [".safetensors"]
    private let file: TemporaryInput

    public init() throws { file = try TemporaryInput() }

    public func seeds() throws -> [[UInt8]] {
        func file(_ header: String, data: Int) -> [UInt8] {
            var json = Array(header.utf8)
            while json.count % 8 != 0 { json.append(0x20) }
            return Self.withLength(json) + (0..<data).map { UInt8(truncatingIfNeeded: $0 &* 37) }
        }
        let types = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"]
        let sizes = [8, 4, 2, 2, 8, 4, 2, 1, 1, 1, 1, 1]
        var offset = 0
        let entries = zip(types, sizes).map { type, size in
            defer { offset += 6 * size }
            return
                "\"t.\(type)\":{\"dtype\":\"\(type)\",\"shape\":[2,3],\"data_offsets\":[\(offset),\(offset + 6 * size)]}"
        }
        return [
            file("{\"__metadata__\":{\"format\":\"pt\"}," + entries.joined(separator: ",") + "}", data: offset),
            file(
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                    + "\"b\":{\"dtype\":\"BF16\",\"shape\":[0,3],\"data_offsets\":[4,4]},"
                    + "\"c\":{\"dtype\":\"U8\",\"shape\":[1,1,1,5],\"data_offsets\":[4,9]}}", data: 9),
            file("{}", data: 0),
        ]
    }

    /// The file itself if it is small, else its first tensors.
    public func seeds(fromFile path: String) throws -> [[UInt8]] {
        let file = try SafetensorsFile(path: path)
        var tensors: [(name: String, tensor: Tensor)] = []
        var bytes = 0
        for name in file.tensorNames {
            let tensor = try file.tensor(named: name)
            guard bytes + tensor.byteCount <= 1 << 15 else { continue }
            bytes += tensor.byteCount
            tensors.append((name, tensor))
        }
        let folder = try TemporaryFolder()
        try SafetensorsWriter.write(tensors, metadata: file.metadata, to: folder.path + "/seed.safetensors")
        return [try FileBytes.read(folder.path + "/seed.safetensors")]
    }

    private static func withLength(_ json: [UInt8]) -> [UInt8] {
        withUnsafeBytes(of: UInt64(json.count).littleEndian) { Array($0) } + json
    }

    public func mutate(_ input: inout [UInt8], splicing other: [UInt8], _ random: inout FuzzRandom) {
        guard random.chance(percent: 70), let (header, data) = Self.split(input), let theirs = Self.split(other) else {
            return ByteMutator.mutate(&input, splicing: other, &random)
        }
        var changed = Array(header)
        if random.chance(percent: 80) {
            changed = JSONMutator(changed).mutated(splicing: Array(theirs.header), &random)
        } else {
            ByteMutator.mutate(&changed, splicing: Array(theirs.header), &random)
        }
        // The length is mostly made right again, so that the header itself is read.
        input = (random.chance(percent: 95) ? Self.withLength(changed) : Array(input.prefix(8)) + changed) + data
    }

    private static func split(_ file: [UInt8]) -> (header: ArraySlice<UInt8>, data: ArraySlice<UInt8>)? {
        guard file.count >= 8 else { return nil }
        let length = file.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
        guard length <= UInt64(file.count - 8) else { return nil }
        return (file[8..<8 + Int(length)], file[(8 + Int(length))...])
    }

    public func run(_ input: [UInt8]) throws {
        try file.fill(input)
        let weights = try SafetensorsFile(path: file.path)
        for name in weights.tensorNames {
            let entry = try weights.entry(named: name)
            let tensor = try weights.tensor(named: name)
            try require(
                tensor.shape == entry.shape && tensor.dtype == entry.dtype, "'\(name)' is not as its entry says")
            try require(tensor.byteCount == entry.range.count, "'\(name)' has other bytes than its entry says")
            let sum = try tensor.withUnsafeBytes { $0.reduce(into: UInt64(0)) { $0 &+= UInt64($1) } }
            let expected = input[entry.range].reduce(into: UInt64(0)) { $0 &+= UInt64($1) }
            try require(sum == expected, "'\(name)' does not hold the file's bytes")
        }
    }
}

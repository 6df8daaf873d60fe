internal import Foundation

/// What the inputs of a run are made from.
public struct FuzzCorpus: Sendable {
    public let inputs: [[UInt8]]
    /// Large inputs come up seldom, so that most of the time goes into many small ones.
    private let cumulativeWeights: [Double]

    /// - Parameters:
    ///   - paths: files, or folders that are searched for files whose names end as the target's do.
    ///   - largestFile: bytes; larger files of a folder are left out, unless the target cuts them itself.
    /// - Throws: what reading a file throws; a path that is not there.
    public init(for target: some FuzzTarget, paths: [String] = [], largestFile: Int = 1 << 20) throws {
        var inputs = try target.seeds()
        for path in paths {
            for file in try Self.files(path, suffixes: type(of: target).fileSuffixes) {
                for seed in try target.seeds(fromFile: file) where seed.count <= largestFile { inputs.append(seed) }
            }
        }
        self.inputs = inputs
        var total = 0.0
        cumulativeWeights = inputs.map { input in
            total += 1 / (1 + Double(input.count) / 8192)
            return total
        }
    }

    /// In the order of their names, so that a seed gives the same inputs on every machine that has the same files.
    private static func files(_ path: String, suffixes: [String]) throws -> [String] {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            throw CocoaError(.fileNoSuchFile, userInfo: [NSFilePathErrorKey: path])
        }
        guard isFolder.boolValue else { return [path] }
        let names = FileManager.default.enumerator(atPath: path)?.compactMap { $0 as? String } ?? []
        return names.filter { name in suffixes.contains { name.hasSuffix($0) } }
            .sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
            .map { path + "/" + $0 }
    }

    func pick(_ random: inout FuzzRandom) -> [UInt8] {
        guard let total = cumulativeWeights.last else { return [] }
        let place = total * Double(random.next() >> 11) / Double(1 << 53)
        return inputs[cumulativeWeights.firstIndex { place < $0 } ?? 0]
    }
}

/// Whole files, in and out.
public enum FileBytes {
    public static func read(_ path: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    public static func write(_ bytes: [UInt8], to path: String) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }
}

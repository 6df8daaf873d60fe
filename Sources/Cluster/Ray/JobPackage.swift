public import Foundation

/// The files that a job needs, as Ray takes a working folder.
public struct JobPackage: Sendable {
    private var archive = ZipArchive()
    /// Relative paths, in the order of the archive.
    public private(set) var paths: [String] = []

    /// What Ray's own client sends at most.
    public static let mostBytes = 500 << 20

    public init() {}

    /// Takes a file, or all files of a folder but hidden ones.
    /// - Parameters:
    ///   - path: relative to `root`, or absolute within it.
    ///   - root: the folder that becomes the job's working folder.
    /// - Throws: ``ClusterError`` with code `badPackage`.
    public mutating func add(_ path: String, of root: URL) throws(ClusterError) {
        let root = root.standardizedFileURL.resolvingSymlinksInPath()
        let whole = path.hasPrefix("/") ? path : root.path + "/" + path
        let url = URL(fileURLWithPath: whole).standardizedFileURL.resolvingSymlinksInPath()
        let prefix = root.path.hasSuffix("/") ? root.path : root.path + "/"
        guard url.path.hasPrefix(prefix) || url.path == root.path else {
            throw ClusterError(
                .badPackage,
                "\(path) is not within \(root.path), which becomes the job's folder; name it by an absolute path that all "
                    + "nodes see, or start from a folder that holds it")
        }
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) else {
            throw ClusterError(.badPackage, "\(path): there is no such file")
        }
        guard isFolder.boolValue else { return try add(file: url, as: String(url.path.dropFirst(prefix.count))) }
        let names: [String]
        do { names = try FileManager.default.contentsOfDirectory(atPath: url.path) } catch {
            throw ClusterError(.badPackage, "\(path): \(error)")
        }
        for name in names.sorted() where !name.hasPrefix(".") && name != "__pycache__" {
            try add(url.appending(path: name).path, of: root)
        }
    }

    private mutating func add(file: URL, as name: String) throws(ClusterError) {
        if paths.contains(name) { return }
        let data: Data
        do { data = try Data(contentsOf: file) } catch { throw ClusterError(.badPackage, "\(name): \(error)") }
        guard archive.byteCount + data.count <= Self.mostBytes else {
            throw ClusterError(
                .badPackage,
                "with \(name) the job's files are more than \(Self.mostBytes >> 20) MiB; put large ones where all nodes see them"
            )
        }
        try archive.add(name, Array(data), isExecutable: FileManager.default.isExecutableFile(atPath: file.path))
        paths.append(name)
    }

    /// Adds text that is no file.
    public mutating func add(text: String, as name: String) throws(ClusterError) {
        try archive.add(name, Array(text.utf8))
        paths.append(name)
    }

    public var bytes: [UInt8] { archive.bytes }

    /// `_ray_pkg_….zip`, by the content: FNV-1a of 128 bits.
    static func name(of bytes: [UInt8]) -> String {
        var hash: UInt128 = 0x6C62_272E_07BB_0142_62B8_2175_6295_C58D
        for byte in bytes { hash = (hash ^ UInt128(byte)) &* 0x0000_0000_0100_0000_0000_0000_0000_013B }
        let text = String(hash, radix: 16)
        return "_ray_pkg_\(String(repeating: "0", count: 32 - text.count) + text).zip"
    }
}

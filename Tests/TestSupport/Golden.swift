public import Foundation

/// Where the expected outputs made with the peers live: `FLEDGE_GOLDEN_DIR`, else `../shared/golden`.
public enum Golden {
    /// The root folder, or nil (after saying so on standard error, once per suite) when there is none on this machine.
    public static func directory(_ area: String) -> URL? {
        let named = ProcessInfo.processInfo.environment["FLEDGE_GOLDEN_DIR"]
        let root =
            named.map { URL(fileURLWithPath: $0, isDirectory: true) }
            ?? packageRoot.deletingLastPathComponent().appending(path: "shared/golden", directoryHint: .isDirectory)
        let folder = root.appending(path: area, directoryHint: .isDirectory)
        if FileManager.default.fileExists(atPath: folder.path) { return folder }
        let remedy = "set FLEDGE_GOLDEN_DIR to the folder that holds '\(area)'"
        FileHandle.standardError.write(Data("SKIPPED golden suite '\(area)': no \(folder.path); \(remedy)\n".utf8))
        return nil
    }

    /// The files of an area with the given extension, sorted by name; empty when the area is absent.
    public static func files(_ area: String, withExtension pathExtension: String) -> [URL] {
        guard let folder = directory(area) else { return [] }
        let all = (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
        return all.filter { $0.pathExtension == pathExtension }.sorted { $0.path < $1.path }
    }

    public static let packageRoot = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
}

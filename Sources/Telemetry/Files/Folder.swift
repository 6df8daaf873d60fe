#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The few things a run needs of folders.
enum Folder {
    /// Makes a folder and those above it.
    static func create(_ path: String) throws(TelemetryError) {
        var end = path.startIndex
        while end < path.endIndex {
            let from = path.index(after: end)
            end = path[from...].firstIndex(of: "/") ?? path.endIndex
            let part = String(path[..<end])
            if mkdir(part, 0o755) != 0, errno != EEXIST { throw .system("cannot make the folder", path: part) }
        }
        if !exists(path) { throw TelemetryError(.io, "is in the way: not a folder", path: path, errorNumber: ENOTDIR) }
    }

    static func exists(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// When a file was last written, in seconds since 1970; nil when there is none.
    static func modificationTime(_ path: String) -> Double? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        #if canImport(Darwin)
            let time = status.st_mtimespec
        #else
            let time = status.st_mtim
        #endif
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// The names in a folder, sorted by their bytes.
    static func names(_ path: String) throws(TelemetryError) -> [String] {
        guard let stream = opendir(path) else { throw .system("cannot list the folder", path: path) }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: $0.pointee)) {
                    String(cString: $0)
                }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }
}

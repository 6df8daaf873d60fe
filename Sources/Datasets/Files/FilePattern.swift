#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A file's name, or a pattern of the shell for several (`data/*.parquet`, `part-[0-9].jsonl`).
public enum FilePattern {
    /// The files that a pattern means, sorted by their bytes. A name without `*`, `?` and `[`, or of a file that is there,
    /// means itself, whether or not there is such a file.
    /// - Throws: `DatasetError.noMatch` when a pattern matches nothing.
    public static func files(_ pattern: String) throws -> [String] {
        guard pattern.utf8.contains(where: { "*?[".utf8.contains($0) }), access(pattern, F_OK) != 0 else {
            return [pattern]
        }
        let found = matches(pattern)
        guard !found.isEmpty else {
            throw DatasetError(.noMatch, "'\(pattern)' matches no file")
        }
        return found.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }

    static func matches(_ pattern: String) -> [String] {
        var result = glob_t()
        defer { globfree(&result) }
        guard glob(pattern, GLOB_NOSORT, nil, &result) == 0 else { return [] }
        return (0..<Int(result.gl_pathc)).compactMap { index in
            result.gl_pathv[index].map { String(cString: $0) }
        }
    }
}

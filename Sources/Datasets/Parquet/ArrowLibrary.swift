internal import CArrow

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Arrow's C++ library, out of an installed `pyarrow`, with the small library that gives it a C interface. Both are opened
/// when the first Parquet file is named, and never before.
public struct ArrowLibrary: Sendable {
    /// Arrow's version, as `26.0.1`.
    public let version: String
    // A table of constants inside a library that is never closed.
    nonisolated(unsafe) let api: UnsafePointer<fp_api>

    /// Where the two libraries are.
    struct Place: Hashable {
        /// The folder `pyarrow`.
        var pyarrow: String
        /// What the names of its libraries end with: `2600` for version 26.0.
        var soVersion: String
        /// The library with the C interface.
        var bridge: String
    }

    private static let shared: Result<ArrowLibrary, DatasetError> = Result { () throws(DatasetError) in
        try ArrowLibrary(locate())
    }

    /// The library, opened at the first call.
    /// - Throws: `DatasetError.arrowMissing` with the remedy.
    public static func load() throws(DatasetError) -> ArrowLibrary { try shared.get() }

    /// Whether it can be opened, for tests; opens nothing.
    public static var isSetUp: Bool { (try? locate()) != nil }

    static let remedy =
        "run scripts/setup --parquet, or set FLEDGE_ARROW to the folder 'pyarrow' of a site-packages that holds pyarrow"

    static func locate(
        variable: (String) -> String? = { name in getenv(name).map { String(cString: $0) } },
        executable: String? = realpath("/proc/self/exe")
    ) throws(DatasetError) -> Place {
        let around = executable.map(foldersAround) ?? []
        let setUp = around.map { "\($0)/.deps/parquet" }
        let beside = around.first.map { [$0] } ?? []
        let pyarrow: String
        if let named = variable("FLEDGE_ARROW"), !named.isEmpty {
            pyarrow = named
        } else {
            let torch = variable("FLEDGE_TORCH").map { ["\($0)/../pyarrow"] } ?? []
            let candidates = setUp.map { "\($0)/pyarrow" } + torch
            guard let found = candidates.first(where: { access($0, F_OK) == 0 }) else {
                throw DatasetError(
                    .arrowMissing,
                    "Parquet is read through Arrow's C++ library, which is not on this machine: \(remedy)")
            }
            pyarrow = found
        }
        let prefix = "\(pyarrow)/libparquet.so."
        let versions = FilePattern.matches(prefix + "*").map { $0.utf8.dropFirst(prefix.utf8.count) }
            .filter { $0.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } }.map { String($0) ?? "" }
        guard let soVersion = versions.max(), !soVersion.isEmpty else {
            throw DatasetError(.arrowMissing, "'\(pyarrow)' holds no libparquet.so: \(remedy)")
        }
        let bridges = (beside + setUp).map { "\($0)/libfledge-parquet.so." }
        guard let bridge = bridges.map({ $0 + soVersion }).first(where: { access($0, R_OK) == 0 }) else {
            let built = bridges.flatMap { prefix in FilePattern.matches(prefix + "*").map { $0.dropFirst(prefix.count) }
            }
            let message =
                built.isEmpty
                ? "Fledge's Parquet reader was not built: run scripts/setup --parquet"
                : "Fledge's Parquet reader was built for Arrow \(major(built[0])), and '\(pyarrow)' is Arrow "
                    + "\(major(soVersion)): pip install 'pyarrow==\(major(built[0])).*' there, or build it anew with "
                    + "FLEDGE_ARROW=\(pyarrow) scripts/setup --parquet"
            throw DatasetError(.arrowMissing, message)
        }
        return Place(pyarrow: pyarrow, soVersion: soVersion, bridge: bridge)
    }

    /// `26` of `2600`.
    private static func major(_ soVersion: some StringProtocol) -> String {
        soVersion.count > 2 ? String(soVersion.dropLast(2)) : String(soVersion)
    }

    /// The folder of the executable and some around it: a build's executable lies within its checkout.
    private static func foldersAround(_ executable: String) -> [String] {
        var folders: [String] = []
        var path = executable[...]
        while folders.count < 6, let slash = path.lastIndex(of: "/"), slash > path.startIndex {
            path = path[..<slash]
            folders.append(String(path))
        }
        return folders
    }

    private static func realpath(_ path: String) -> String? {
        guard let resolved = Glibc.realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    private init(_ place: Place) throws(DatasetError) {
        // By path and in this order: the later ones then find the earlier by name.
        for library in ["libarrow", "libparquet"] {
            _ = try Self.open("\(place.pyarrow)/\(library).so.\(place.soVersion)")
        }
        let bridge = try Self.open(place.bridge)
        guard let symbol = dlsym(bridge, FP_ENTRY),
            let entry = unsafeBitCast(symbol, to: fp_entry?.self), let api = entry()
        else { throw DatasetError(.arrowMissing, "'\(place.bridge)' is not Fledge's Parquet reader: \(Self.remedy)") }
        guard api.pointee.interface == FP_INTERFACE else {
            throw DatasetError(
                .arrowMissing, "'\(place.bridge)' is of another version of Fledge: run scripts/setup --parquet")
        }
        let built = String(cString: api.pointee.built_for!)
        version = String(cString: api.pointee.loaded()!)
        guard built.prefix(while: { $0 != "." }) == version.prefix(while: { $0 != "." }) else {
            throw DatasetError(
                .arrowMissing,
                "'\(place.bridge)' was built for Arrow \(built), and '\(place.pyarrow)' is \(version): run "
                    + "FLEDGE_ARROW=\(place.pyarrow) scripts/setup --parquet")
        }
        self.api = api
    }

    private static func open(_ path: String) throws(DatasetError) -> UnsafeMutableRawPointer {
        guard let handle = dlopen(path, RTLD_NOW | RTLD_LOCAL) else {
            let reason = dlerror().map { String(cString: $0) } ?? "no reason given"
            throw DatasetError(.arrowMissing, "cannot open '\(path)': \(reason); \(remedy)")
        }
        return handle
    }

    /// Makes one call of the C interface.
    /// - Throws: `DatasetError.unreadable` with Arrow's own words, which begin with `context`.
    func call(
        _ context: @autoclosure () -> String,
        _ body: (UnsafePointer<fp_api>, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Int32
    ) throws {
        var message: UnsafeMutablePointer<CChar>?
        guard body(api, &message) != 0 else { return }
        defer { free(message) }
        let words = message.map { String(cString: $0) } ?? "no reason given"
        throw DatasetError(.unreadable, "\(context()): \(words)")
    }
}

import Foundation
import OrderedCollections

/// What reading any kind of configuration has in common: the file, the overrides, the sections, unknown keys, the checks.
enum ConfigReading {
    /// Reads YAML text with overrides laid over it.
    ///
    /// - Parameters:
    ///   - peers: the settings of other programs that unknown keys may be.
    ///   - make: reads the sections.
    ///   - check: notes in the ledger which settings are at odds.
    /// - Throws: `ConfigError` with every problem found.
    static func read<Value>(
        yaml: String, file: String, overrides: [String], names: KnownNames, peers: PeerTable,
        _ make: (inout SectionReader) -> Value, check: (Value, Ledger) -> Void
    ) throws(ConfigError) -> (value: Value, ledger: Ledger) {
        let (read, syntax) = YAMLReader.read(file: yaml, named: file)
        let top = Place.file(file, line: 1, column: 1)
        var problems = syntax
        let recipe = read ?? ConfigNode(content: .mapping([:]), place: top)
        let root = Overrides.apply(overrides, to: recipe, problems: &problems)
        let ledger = Ledger(names, peers: peers, top: top)
        var reader = SectionReader(root, ledger: ledger)
        let value = make(&reader)
        reader.finish()
        let unknown = UnknownKeys(ledger).judge(ledger.unknown)
        check(value, ledger)
        // Without its text, all that a file should have set would be called missing.
        let isReadable = read != nil || syntax.isEmpty
        problems += unknown + ledger.problems.filter { isReadable || $0.argument != nil }
        if !problems.isEmpty { throw ConfigError(problems) }
        return (value, ledger)
    }

    /// The text of a file and its name for messages.
    /// - Throws: `ConfigError` when it cannot be read, is too large or is not UTF-8.
    static func text(of file: URL) throws(ConfigError) -> (yaml: String, name: String) {
        let name = file.relativePath
        func refuse(_ message: String, _ remedy: String?) -> ConfigError {
            let place = Place.file(name, line: 1, column: 1)
            return ConfigError([Diagnostic(.unreadableFile, at: place, "", message, remedy: remedy)])
        }
        let data: Data
        do {
            let handle = try FileHandle(forReadingFrom: file)
            defer { try? handle.close() }
            // One more than is allowed is enough to tell.
            data = try handle.read(upToCount: YAMLReader.maximumBytes + 1) ?? Data()
        } catch {
            throw refuse("cannot be read: \(error.localizedDescription)", "check the path")
        }
        guard data.count <= YAMLReader.maximumBytes else {
            throw refuse("more than \(YAMLReader.maximumBytes) bytes", "a configuration is a small YAML file")
        }
        guard let yaml = String(validating: data, as: UTF8.self) else {
            throw refuse("not UTF-8 text", "save it as UTF-8")
        }
        return (yaml, name)
    }

    /// Every setting at its default, and the required ones at their examples, unchecked.
    static func described<Value>(
        by names: KnownNames, peers: PeerTable, _ make: (inout SectionReader) -> Value
    ) -> [Declaration] {
        let empty = ConfigNode(content: .mapping([:]), place: .file("", line: 1, column: 1))
        let ledger = Ledger(names, peers: peers, top: empty.place)
        var reader = SectionReader(empty, ledger: ledger)
        _ = make(&reader)
        return ledger.declarations
    }
}

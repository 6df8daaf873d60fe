import Foundation
import Subprocess

/// A small disk in memory, to be filled up; mounting it needs rights that not every machine gives.
enum SmallDisk {
    static func mount(_ folder: String, size: String) async throws -> Bool {
        try await tool("mount", ["-t", "tmpfs", "-o", "size=\(size)", "tmpfs", folder])
    }

    static func unmount(_ folder: String) async throws -> Bool { try await tool("umount", [folder]) }

    static func noteSkipped(_ test: String) {
        FileHandle.standardError.write(Data("SKIPPED \(test): mounting a small disk is not permitted\n".utf8))
    }

    private static func tool(_ name: String, _ arguments: [String]) async throws -> Bool {
        do {
            let result = try await Subprocess.run(
                .name(name), arguments: Arguments(arguments), output: .discarded, error: .discarded)
            return result.terminationStatus.isSuccess
        } catch is SubprocessError { return false }
    }
}

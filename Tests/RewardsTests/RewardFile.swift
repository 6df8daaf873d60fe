import Foundation
import Rewards

/// A Python file in a folder of its own, which goes with this object.
final class RewardFile: Sendable {
    let folder: URL
    var path: String { folder.appending(path: "reward.py").path }

    init(_ source: String) throws {
        folder = FileManager.default.temporaryDirectory.appending(path: "fledge-reward-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try Data(source.utf8).write(to: folder.appending(path: "reward.py"))
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    /// Runs a body with a started reward, and ends its workers.
    func run<Result: Sendable>(
        _ configure: (inout PythonRewardConfiguration) -> Void = { _ in },
        _ body: (PythonReward) async throws -> Result
    ) async throws -> Result {
        var configuration = PythonRewardConfiguration(file: path)
        configuration.workers = 1
        configure(&configuration)
        let reward = try await PythonReward(configuration)
        do {
            let result = try await body(reward)
            await reward.shutdown()
            return result
        } catch {
            await reward.shutdown()
            throw error
        }
    }

    /// The error that starting gives.
    func startError(_ configure: (inout PythonRewardConfiguration) -> Void = { _ in }) async -> RewardError? {
        do {
            try await run(configure) { _ in }
            return nil
        } catch {
            return error as? RewardError
        }
    }

    /// Waits until the reward wrote a file into its folder (by renaming it there) and returns its text.
    func text(of name: String) async throws -> String {
        let file = folder.appending(path: name)
        while !FileManager.default.fileExists(atPath: file.path) { try await Task.sleep(for: .milliseconds(5)) }
        return try String(contentsOf: file, encoding: .utf8)
    }
}

/// Items whose answers are the given texts.
func items(_ responses: [String], groundTruth: String = "") -> [RewardRequest] {
    responses.enumerated().map { RewardRequest(id: $0.offset, response: $0.element, groundTruth: groundTruth) }
}

/// Whether a process runs: it exists and is not a zombie.
func isRunning(_ process: Int) -> Bool {
    guard let status = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8) else { return false }
    let state = status.split(separator: ")").last?.split(separator: " ").first
    return state != "Z" && state != "X"
}

import Foundation
import Testing

@testable import Config

/// Recipes from strangers: an error each, and no hang, no crash.
@Suite struct HostileTests {
    @Test func aliasBombs() {
        var bomb = "a0: &a0 [x, x]\n"
        for level in 1..<40 { bomb += "a\(level): &a\(level) [*a\(level - 1), *a\(level - 1)]\n" }
        #expect(problems(bomb).map(\.code) == [.tooLarge])
        // In a key, which is hashed as soon as it is read.
        #expect(problems(bomb + "? *a39\n: 1\n").map(\.code) == [.tooLarge])
    }

    @Test func manyValuesByFewAliases() {
        let list = "[" + Array(repeating: "x", count: 200).joined(separator: ", ") + "]"
        var bomb = "a0: &a0 \(list)\n"
        for level in 1..<6 { bomb += "a\(level): &a\(level) [*a\(level - 1), *a\(level - 1), *a\(level - 1)]\n" }
        #expect(problems(bomb).map(\.code) == [.tooLarge])
    }

    @Test func aliasesInReasonWork() throws {
        let config = try read(minimal + "seed: &seed 7\ntrainer: {log_samples: *seed}\n")
        #expect(config.trainer.logSamples == 7)
    }

    @Test func starsInTextAreNoAliases() throws {
        let stars = Array(repeating: "*word & &word2 *other", count: 40).joined(separator: " ")
        #expect(try read(minimal, "data.system_prompt='\(stars)'").data.systemPrompt == stars)
    }

    @Test(arguments: ["[", "{a: ", "- ", "? "])
    func deepNesting(_ opening: String) {
        #expect(problems(String(repeating: opening, count: 20_000)).map(\.code) == [.syntax])
        #expect(
            problems("rollout: " + String(repeating: "[", count: 100) + String(repeating: "]", count: 100)).map(\.code)
                == [.tooLarge])
    }

    @Test func tooMuchText() {
        #expect(problems(minimal + String(repeating: "# comment\n", count: 30_000)).map(\.code) == [.tooLarge])
    }

    @Test func manyDuplicates() {
        let found = problems(minimal + String(repeating: "seed: 1\n", count: 50))
        #expect(found.map(\.code) == Array(repeating: .duplicateKey, count: 1))
        let tooMany = problems(minimal + String(repeating: "seed: 1\n", count: 300))
        #expect(tooMany.map(\.code) == [.duplicateKey])
    }

    @Test(arguments: [
        "\"\\x73eed\": 1\nseed: 2\n", "&k seed: 1\nseed: 2\n", "? seed\n: 1\nseed: 2\n", "'seed': 1\nseed: 2\n",
        "é: 1\né: 2\n",
    ])
    func duplicatesInDisguise(_ yaml: String) {
        #expect(problems(minimal + yaml).contains { $0.code == .duplicateKey })
    }

    @Test func everyCutOfARecipeIsReadOrRefused() {
        let yaml = minimal + "rollout: {n: 4, stop: [\"a\\n\", 'b']}\nactor: &a\n  optim:\n    betas: [0.9, 0.95] # é\n"
        for count in 0...yaml.unicodeScalars.count {
            _ = problems(String(yaml.unicodeScalars.prefix(count)))
        }
    }

    @Test(arguments: 0..<4) func noiseIsRefused(_ seed: UInt64) {
        var random = Repeatable(seed: seed)
        let pieces = [
            "rollout", ":", " ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "\"", "'", "n", "3", "&a", "*a", "|", ">",
            "?", "!", "#", "%", "\u{0}", "---", "...",
        ]
        for _ in 0..<200 {
            let text = (0..<Int.random(in: 1...40, using: &random)).map { _ in pieces.randomElement(using: &random)! }
                .joined()
            #expect(!problems(text).isEmpty)
        }
    }

    @Test func files() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "fledge-config-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func codes(_ file: URL) -> [ConfigError.Code] {
            do throws(ConfigError) {
                _ = try RunConfig(contentsOf: file)
                return []
            } catch {
                return error.diagnostics.map(\.code)
            }
        }
        let file = folder.appending(path: "recipe.yaml")
        #expect(codes(file) == [.unreadableFile])
        #expect(codes(folder) == [.unreadableFile])
        try Data([0x61, 0x3A, 0x20, 0xFF, 0xFE]).write(to: file)
        #expect(codes(file) == [.unreadableFile])
        try Data(count: 1 << 20).write(to: file)
        #expect(codes(file) == [.unreadableFile])
        try Data(minimal.utf8).write(to: file)
        #expect(codes(file) == [])
    }
}

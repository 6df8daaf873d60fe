import Foundation
import Testing

@testable import Fuzzing

/// A fixed number of inputs for each target, always the same ones; `make fuzz` runs for as long as one likes.
@Suite struct FuzzingTests {
    private func run(_ name: String, seed: UInt64 = 1) throws -> FuzzRun {
        let target = try #require(try FuzzTargets.named(name))
        return FuzzRun(target: target, seed: seed, corpus: try FuzzCorpus(for: target))
    }

    @Test(arguments: FuzzTargets.names)
    func seedsAreAccepted(_ name: String) throws {
        let run = try run(name)
        for input in run.corpus.inputs {
            #expect(run.outcome(of: input) == .accepted, "\(String(decoding: input.prefix(200), as: UTF8.self))")
        }
    }

    @Test(arguments: [("safetensors", 1000), ("gguf", 200), ("tokenizer", 200), ("template", 120), ("config", 300)])
    func damagedInputsEndInErrors(_ name: String, _ count: Int) throws {
        let run = try run(name)
        var codes: [String: Int] = [:]
        var accepted = 0
        for number in 0..<count {
            switch run.outcome(of: run.input(number)) {
            case .accepted: accepted += 1
            case .refused(let code): codes[code, default: 0] += 1
            case .broken(let what): Issue.record("input \(number): \(what)")
            }
        }
        // Inputs that are all taken, or all refused alike, would test nothing.
        #expect(accepted > count / 100 && codes.count > 2, "\(accepted) accepted, \(codes)")
        #expect(codes.keys.allSatisfy { $0.contains("Error.") }, "an error of another kind: \(codes)")
    }

    @Test(arguments: FuzzTargets.names)
    func inputsDependOnSeedAndNumberAlone(_ name: String) throws {
        let (first, again, other) = (try run(name), try run(name), try run(name, seed: 2))
        let numbers = 40..<60
        #expect(numbers.map(first.input) == numbers.map(again.input))
        #expect(numbers.map(first.input) != numbers.map(other.input))
        #expect(Set(numbers.map(first.input)).count > 10)
    }

    @Test func targetsCoverTheFormats() {
        #expect(Set(FuzzTargets.names).isSuperset(of: ["safetensors", "gguf", "tokenizer", "template", "config"]))
    }
}

/// The program, on a target that does what no parser may.
@Suite struct HarnessTests {
    private struct Failure: Decodable {
        let kind: String
        let input: Int
        let file: String
        let isReproducible: Bool
    }

    private struct Summary: Decodable {
        let executions: Int
        let accepted: Int
        let crashes: Int
        let hangs: Int
        let broken: Int
        let codes: [String: Int]
        let failures: [Failure]
    }

    private static var program: URL {
        // Test bundles lie beside the programs.
        let bundle = CommandLine.arguments.first { $0.hasSuffix(".xctest") }.map { URL(fileURLWithPath: $0) }
        let folder = (bundle ?? URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath())
            .deletingLastPathComponent()
        return folder.appending(path: "fledge-fuzz")
    }

    private func fuzz(_ arguments: [String]) throws -> (code: Int32, output: Data) {
        let process = Process()
        process.executableURL = Self.program
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, output)
    }

    @Test func noticesCrashesHangsAndMemory() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "fledge-fuzz-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let (code, output) = try fuzz([
            "misbehaving", "--count", "10", "--seconds", "600", "--deadline", "8", "--memory-mb", "300", "--output",
            folder,
        ])
        #expect(code == 1)
        let summary = try JSONDecoder().decode(Summary.self, from: output)
        #expect(summary.failures.map(\.input) == [1, 2, 3, 4, 5])
        #expect(summary.failures.map(\.isReproducible) == [true, true, true, true, true])
        #expect(summary.failures.map { String($0.kind.prefix(4)) } == ["cras", "hang", "cras", "cras", "brok"])
        #expect(summary.crashes == 3 && summary.hangs == 1 && summary.broken == 1)
        #expect(summary.executions == 5 && summary.accepted == 4)
        #expect(summary.codes == ["POSIXFailure": 1])
        for failure in summary.failures {
            let kept = try FileBytes.read(failure.file)
            #expect(kept == [UInt8(failure.input)])
        }
        // A kept input can be run again, alone.
        let again = try fuzz(["misbehaving", "--input", summary.failures[4].file])
        #expect(again.code == 1)
    }
}

import Datasets
import Foundation
import Testing

@testable import Workers

/// The file that a batch writes, without a model.
@Suite struct BatchOutputTests {
    final class Folder: Sendable {
        let path: String
        init() throws {
            path = FileManager.default.temporaryDirectory.appending(path: "batch-\(UUID().uuidString)").path
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        }
        deinit { try? FileManager.default.removeItem(atPath: path) }

        var settings: BatchSettings { BatchSettings(input: "in.jsonl", output: path + "/out.jsonl") }
        var text: String {
            String(decoding: FileManager.default.contents(atPath: settings.output) ?? Data(), as: UTF8.self)
        }
    }

    private func manifest(_ lines: Int, temperature: String = "1.0") -> BatchManifest {
        BatchManifest(members: [
            .init(name: "format", value: .number("1")), .init(name: "lines", value: .number("\(lines)")),
            .init(name: "temperature", value: .number(temperature)),
        ])
    }

    private func line(_ index: Int) -> String { "{\"index\":\(index),\"samples\":[]}\n" }
    private func bytes(_ index: Int) -> [UInt8] { Array(line(index).utf8) }

    @Test func orderedLinesWaitForThoseBefore() throws {
        let folder = try Folder()
        var settings = folder.settings
        settings.isOrdered = true
        let output = try BatchOutput(settings, manifest(7))
        try output.skip([0, 3, 6])
        for (index, expected) in [(4, []), (2, []), (1, [1, 2, 4]), (5, [1, 2, 4, 5])] {
            try output.add(bytes(index), at: index)
            #expect(folder.text == expected.map(line).joined())
        }
        #expect(output.doneCount == 4)
    }

    @Test func unorderedLinesAreWrittenAsTheyCome() throws {
        let folder = try Folder()
        let output = try BatchOutput(folder.settings, manifest(3))
        try output.skip([])
        for index in [2, 0] { try output.add(bytes(index), at: index) }
        #expect(folder.text == line(2) + line(0))
        #expect(output.isDone == [true, false, true])
    }

    @Test func goesOnWithWhatIsThere() throws {
        let folder = try Folder()
        do {
            let output = try BatchOutput(folder.settings, manifest(3))
            try output.skip([])
            try output.add(bytes(2), at: 2)
        }
        do {
            let output = try BatchOutput(folder.settings, manifest(3))
            #expect(output.isDone == [false, false, true] && output.doneCount == 1 && output.tornBytes == 0)
        }
        #expect(throws: BatchError.self) { try BatchOutput(folder.settings, manifest(3, temperature: "0.5")) }
        var anew = folder.settings
        anew.overwrites = true
        #expect(try BatchOutput(anew, manifest(3, temperature: "0.5")).doneCount == 0)
        #expect(folder.text.isEmpty)
        // What an empty output was to be made with binds nobody.
        #expect(try BatchOutput(folder.settings, manifest(3)).doneCount == 0)
    }

    @Test(arguments: [
        ("{\"index\":3,\"samples\":[]}\n", "is no line"), ("{\"index\":0}\n", "is no line"), ("[1]\n", "not an object"),
        ("{\"index\":1,\"samples\":[]}\n{\"index\":1,\"samples\":[]}\n", "a second time"),
        ("{\"index\":1,\"samples\":[]}\n{\"index\":0,\"samples\":[]}\n", "out of order"),
    ])
    func damageIsNamed(_ text: String, _ part: String) throws {
        let folder = try Folder()
        var settings = folder.settings
        settings.isOrdered = true
        try Data(text.utf8).write(to: URL(fileURLWithPath: settings.output))
        try Data(manifest(3).text.utf8).write(to: URL(fileURLWithPath: BatchManifest.path(output: settings.output)))
        let error = #expect(throws: BatchError.self) { try BatchOutput(settings, manifest(3)) }
        #expect(error?.code == .damagedOutput)
        #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
        #expect(folder.text == text)
    }

    @Test func orderedOutputWithAGapIsDamaged() throws {
        let folder = try Folder()
        var settings = folder.settings
        settings.isOrdered = true
        try Data((line(0) + line(2)).utf8).write(to: URL(fileURLWithPath: settings.output))
        try Data(manifest(3).text.utf8).write(to: URL(fileURLWithPath: BatchManifest.path(output: settings.output)))
        do {
            let output = try BatchOutput(settings, manifest(3))
            #expect(throws: BatchError.self) { try output.skip([]) }
        }
        try BatchOutput(settings, manifest(3)).skip([1])
    }
}

import Foundation
import Models
import TestSupport
import Testing
import Workers

@Suite struct InspectionGoldenTests {
    /// Folders of every family: what can be run is found usable but for the tokenizer that the folders lack; the rest is named.
    @Test func describesEveryFamily() throws {
        guard let folder = Golden.directory("models") else { return }
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() {
            let path = folder.path + "/" + name
            guard FileManager.default.fileExists(atPath: path + "/config.json") else { continue }
            let inspection = ModelInspector.inspect(path)
            let architecture = try #require(inspection.architecture)
            let errors = inspection.findings.filter { $0.severity == .error && $0.topic != "tokenizer" }
            #expect(errors.isEmpty == (ModelRegistry.families[architecture] != nil), "\(name): \(inspection.report)")
            #expect(inspection.weights.parts.total > 0 && inspection.weights.parts[.other] == 0, "\(name)")
            #expect(inspection.rope != nil && inspection.attention != nil && inspection.memory.count == 12, "\(name)")
        }
    }
}

import Foundation
import Testing
import Tokenizers

@testable import Workers

/// What `generation_config.json` decides where a user says nothing.
@Suite struct SamplingDefaultsTests {
    private func file(_ text: String) throws -> GenerationDefaults {
        let folder = FileManager.default.temporaryDirectory.appending(path: "fledge-defaults-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(text.utf8).write(to: folder.appending(path: "generation_config.json"))
        return try SamplingDefaults.file(ofModelAt: folder.path)
    }

    @Test func theFileFillsWhatIsOpen() throws {
        let file = try file(
            #"{"do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.1}"#)
        let open = SamplingDefaults(file: file)
        #expect(open.temperature == 0.6 && open.topP == 0.95 && open.topK == 20 && open.repetitionPenalty == 1.1)
        #expect(open.minP == 0)
        #expect(open.taken == ["temperature 0.6", "top_k 20", "top_p 0.95", "repetition_penalty 1.1"])
        let given = SamplingDefaults(temperature: 0, topK: 0, repetitionPenalty: 1, file: file)
        #expect(given.temperature == 0 && given.topK == 0 && given.repetitionPenalty == 1 && given.topP == 0.95)
        #expect(given.taken == ["top_p 0.95"])
    }

    @Test(arguments: [
        (#"{}"#, 0.0), (#"{"do_sample": true}"#, 1), (#"{"do_sample": false, "temperature": 0.7}"#, 0),
        (#"{"temperature": 0.7}"#, 0.7), (#"{"do_sample": true, "temperature": 0.7}"#, 0.7),
    ])
    func whetherTheFileSamples(_ text: String, _ temperature: Double) throws {
        let open = SamplingDefaults(file: try file(text))
        #expect(open.temperature == temperature)
        #expect(open.taken.isEmpty == (temperature == 0))
        #expect(SamplingDefaults(temperature: 0.3, file: try file(text)).temperature == 0.3)
    }

    @Test func aModelWithoutTheFileDecidesNothing() throws {
        let none = SamplingDefaults(file: try SamplingDefaults.file(ofModelAt: "/nowhere/model.gguf"))
        #expect(none == SamplingDefaults(file: GenerationDefaults()))
        #expect(none.temperature == 0 && none.topP == 1 && none.taken.isEmpty)
    }

    @Test func aDamagedFileIsNamed() {
        let error = #expect(throws: TokenizerError.self) { try file(#"{"temperature": "hot"}"#) }
        #expect(error.map { "\($0)" }?.contains("temperature") == true)
    }
}

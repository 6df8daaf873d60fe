import Checkpoints
import OrderedCollections
import Testing

@Suite struct ModelConfigTests {
    private func config(_ text: String) throws -> ModelConfig {
        let folder = try TemporaryFolder()
        return try ModelConfig(path: folder.write(text, "config.json"))
    }

    @Test func keepsOrderUnknownKeysAndKindsOfNumbers() throws {
        let text = """
            {
              "zeta": 1,
              "rms_norm_eps": 1e-05,
              "rope_theta": 100000.0,
              "big": 9007199254740993,
              "text": "a\\"\\n\\u00e9\\ud83d\\ude00/",
              "none": null,
              "list": [],
              "alpha": {
                "inner": [
                  true,
                  -2
                ]
              }
            }

            """
        let config = try config(text)
        #expect(try config.int("big") == 9_007_199_254_740_993)
        #expect(try config.double("rms_norm_eps") == 1e-5)
        #expect(try config.string("text") == "a\"\n\u{e9}\u{1F600}/")
        #expect(!config.has("none"))
        #expect(config.text == text.replacing("\\u00e9\\ud83d\\ude00", with: "\u{e9}\u{1F600}"))
        #expect(try self.config(config.text).object == config.object)
    }

    @Test func saysWhatIsMissingOrOfTheWrongType() throws {
        let config = try config(#"{"hidden_size": "many", "eos_token_id": [1, 2], "x": 1.5}"#)
        #expect(throws: CheckpointError.self) { try config.int("hidden_size") }
        #expect(throws: CheckpointError.self) { try config.int("hidden_size", default: 3) }
        #expect(throws: CheckpointError.self) { try config.int("x") }
        #expect(throws: CheckpointError.self) { try config.int("absent") }
        #expect(try config.int("absent", default: 3) == 3)
        #expect(try config.ints("eos_token_id") == [1, 2])
    }

    @Test(arguments: [
        "", "{", "[", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "[1 2]", "\"\\x\"", "\"\\ud800\"", "\"abc", "01x", "+1",
        "--1", "nul",
        "{} {}", "\"\u{1}\"", String(repeating: "[", count: 100_000),
    ])
    func refusesBadJSON(_ text: String) throws {
        #expect { try config(text) } throws: { ($0 as? CheckpointError)?.code == .malformed }
    }

    @Test func readsRopeInBothSpellings() throws {
        let new = try config(
            #"{"rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0}}"#
        ).rope()
        let old = try config(#"{"rope_theta": 500000, "rope_scaling": {"type": "llama3", "factor": 8}}"#).rope()
        for rope in [new, old] {
            #expect(rope.theta == 500000)
            #expect(rope.type == "llama3")
            #expect(try rope.parameters.double("factor") == 8)
        }
        let byLayer = try config(
            """
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}}
            """)
        #expect(try byLayer.rope(layerType: "full_attention").type == "linear")
        #expect(try byLayer.rope(layerType: "sliding_attention").theta == 1e4)
        #expect(throws: CheckpointError.self) { try byLayer.rope() }
        let gemma = try config(
            #"{"rope_theta": 1e6, "rope_local_base_freq": 10000, "rope_scaling": {"rope_type": "linear", "factor": 8}}"#
        )
        #expect(try gemma.rope(layerType: "sliding_attention").theta == 10000)
        #expect(try gemma.rope(layerType: "sliding_attention").type == "default")
        #expect(try gemma.rope(layerType: "full_attention").theta == 1e6)
        let plain = try config(#"{"rope_scaling": null}"#).rope()
        #expect(plain.theta == 10000 && plain.type == "default" && plain.partialRotaryFactor == 1)
    }
}

@Suite struct XXHash64Tests {
    @Test(arguments: [
        ("", "ef46db3751d8e999"), ("a", "d24ec4f1a98c6e5b"), ("abc", "44bc2cf5ad770999"),
        ("Nobody inspects the spammish repetition", "fbcea83c8a378bf1"),
    ])
    func equalsThePublishedValues(_ text: String, _ digest: String) {
        var hash = XXHash64()
        hash.update(text)
        #expect(hash.hexadecimal == digest)
    }

    @Test func doesNotDependOnHowTheInputIsCut() {
        let input = (0..<1000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        var whole = XXHash64()
        input.withUnsafeBytes { whole.update($0) }
        for size in [1, 3, 31, 32, 33, 100] {
            var pieces = XXHash64()
            for start in stride(from: 0, to: input.count, by: size) {
                Array(input[start..<min(input.count, start + size)]).withUnsafeBytes { pieces.update($0) }
            }
            #expect(pieces.value == whole.value)
        }
    }
}

import Foundation
import TestSupport
import Testing

@testable import Config

@Suite struct RoundTripTests {
    static let recipes = Golden.packageRoot.appending(path: "recipes", directoryHint: .isDirectory)

    /// `FLEDGE_WRITE_EXAMPLE=1` writes it anew.
    @Test func theExampleIsUpToDate() throws {
        let file = Self.recipes.appending(path: "example.yaml")
        let text = RunConfig.exampleYAML()
        if ProcessInfo.processInfo.environment["FLEDGE_WRITE_EXAMPLE"] != nil {
            try Data(text.utf8).write(to: file)
        }
        let found = try String(contentsOf: file, encoding: .utf8)
        #expect(
            found == text, "run FLEDGE_WRITE_EXAMPLE=1 swift test --filter theExampleIsUpToDate and commit the file")
    }

    @Test(arguments: ["example.yaml", "quickstart.yaml", "lora.yaml", "calculator.yaml", "ray.yaml"])
    func recipesAreWhole(_ name: String) throws {
        let config = try RunConfig(contentsOf: Self.recipes.appending(path: name))
        #expect(config.warnings.isEmpty)
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
    }

    @Test func theExampleHasTheDefaults() throws {
        let example = try RunConfig(yaml: RunConfig.exampleYAML(), file: "example.yaml")
        let bare = try RunConfig(
            yaml: "", file: "-",
            overrides: [
                "model.path=models/SmolLM2-135M-Instruct", "data.train_files=builtin:arithmetic",
                "reward.type=exact_match",
            ])
        #expect(example == bare)
        #expect(example.resolvedYAML() == bare.resolvedYAML())
    }

    @Test func sectionsComeAfterTheSettingsBesideThem() {
        let all = RunConfig.described(by: KnownNames())
        for (index, declaration) in all.enumerated() where declaration.isSection {
            let later = all[index...].first { !$0.isSection && $0.path.dropLast() == declaration.path.dropLast() }
            #expect(later == nil, "\(later?.keyPath ?? "") comes after section \(declaration.keyPath)")
        }
    }

    /// Each documented default, alone and as an override, is the default.
    @Test func everyDefaultParses() throws {
        let base = try read()
        for declaration in RunConfig.described(by: KnownNames()) {
            guard case .setting(_, _, let fallback, let example, let isRequired) = declaration.role, !isRequired else {
                continue
            }
            #expect(!declaration.doc.isEmpty)
            if declaration.keyPath == "reward.type" || declaration.keyPath == "data.val_files" { continue }
            #expect(try read(minimal, "\(declaration.keyPath)=\(fallback)") == base, "\(declaration.keyPath)")
            #expect(fallback == example, "\(declaration.keyPath)")
        }
    }

    /// A name changed in any place of the example is refused, where it stands.
    @Test(arguments: 0..<8) func anUnknownKeyAlwaysFails(_ seed: UInt64) throws {
        var random = Repeatable(seed: seed)
        let lines = RunConfig.exampleYAML().split(separator: "\n", omittingEmptySubsequences: false)
        let keys = lines.indices.filter { !lines[$0].isEmpty && !lines[$0].drop { $0 == " " }.hasPrefix("#") }
        for _ in 0..<12 {
            var changed = lines.map(String.init)
            let line = try #require(keys.randomElement(using: &random))
            let indent = lines[line].prefix { $0 == " " }
            let letters = (0..<Int.random(in: 1...12, using: &random)).map { _ in
                "abcdefghijklmnopqrstuvwxyz_".randomElement(using: &random)!
            }
            let key = "q" + String(letters) + "_q"
            changed.insert("\(indent)\(key): \(Int.random(in: 0...9, using: &random))", at: line)
            let found = problems(changed.joined(separator: "\n"))
            #expect(found.map(\.code) == [.unknownKey], "\(key)")
            #expect(found.first?.line == line + 1)
            #expect(found.first?.column == indent.count + 1)
        }
    }

    /// Any text goes through the resolved YAML unchanged.
    @Test(arguments: 0..<16) func anyTextIsWrittenAndReadBack(_ seed: UInt64) throws {
        var random = Repeatable(seed: seed)
        let pool: [Unicode.Scalar] = [
            "a", "Z", "0", " ", "\n", "\t", "\r", "\"", "'", "\\", "#", ":", "-", "?", "{", "}", "[", "]", ",", "&",
            "*", "!", "|",
            ">", "%", "@", "`", "~", "\u{0}", "\u{7}", "\u{1B}", "\u{7F}", "\u{85}", "\u{A0}", "\u{E9}", "\u{301}",
            "\u{2028}",
            "\u{FEFF}", "\u{FFFE}", "\u{FFFF}", "\u{E000}", "\u{1F44D}", "\u{10FFFF}", "\u{D7FF}", "\u{200B}",
        ]
        for _ in 0..<20 {
            func text() -> String {
                var out = String.UnicodeScalarView()
                for _ in 0..<Int.random(in: 1...12, using: &random) { out.append(pool.randomElement(using: &random)!) }
                // Foundation takes a leading U+FEFF, even of one scalar within a YAML text, for a byte-order mark.
                while out.first == "\u{FEFF}" { out.removeFirst() }
                if out.isEmpty { out.append("x") }
                return String(out)
            }
            let (prompt, user, stop) = (text(), text(), text())
            let yaml = minimal + "rollout: {stop: [\(YAMLText.quoted(stop)), \(YAMLText.string(user))]}\n"
            let config = try RunConfig(
                yaml: yaml, file: "recipe.yaml",
                overrides: [
                    "data.system_prompt=\(YAMLText.string(prompt))",
                    "data.few_shot=[{user: \(YAMLText.string(user)), assistant: \(YAMLText.quoted(stop))}]",
                ])
            #expect(config.data.systemPrompt.map { Array($0.unicodeScalars) } == Array(prompt.unicodeScalars))
            #expect(
                config.rollout.stop.map { Array($0.unicodeScalars) } == [stop, user].map { Array($0.unicodeScalars) })
            #expect(config.data.fewShot.first.map { Array($0.user.unicodeScalars) } == Array(user.unicodeScalars))
            let resolved = config.resolvedYAML()
            let again = try RunConfig(yaml: resolved, file: "resolved.yaml")
            #expect(again == config)
            #expect(again.resolvedYAML() == resolved)
        }
    }

    @Test(arguments: [
        "yes", "no", "null", "true", "1", "1e-6", "~", "", "a b", "- a", ".inf", "0x1", "builtin:arithmetic", "a:b",
        "é",
    ])
    func wordsThatLookLikeSomethingElse(_ word: String) throws {
        let config = try read(
            minimal,
            "data.system_prompt=\(YAMLText.quoted(word))")
        #expect(config.data.systemPrompt == word)
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
    }

    @Test(arguments: 0..<4) func anyNumberIsWrittenAndReadBack(_ seed: UInt64) throws {
        var random = Repeatable(seed: seed)
        for _ in 0..<50 {
            let exponent = Double.random(in: -300...300, using: &random)
            let value = Double.random(in: 1...10, using: &random) * (10 as Double).exponentiated(exponent)
            let text = YAMLText.number(value)
            #expect(ConfigNode.Scalar(text: text, isPlain: true).value == .number(value), "\(text)")
        }
        #expect(YAMLText.number(1e-6) == "1e-6")
        #expect(YAMLText.number(1e20) == "1e20")
        #expect(YAMLText.number(0.001) == "0.001")
    }
}

extension Double {
    fileprivate func exponentiated(_ exponent: Double) -> Double { pow(self, exponent) }
}

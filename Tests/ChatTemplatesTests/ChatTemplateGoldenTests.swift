import ChatTemplates
import Foundation
import TestSupport
import Testing

/// Real templates against transformers 5.23 with Jinja2 3.1.6.
@Suite struct ChatTemplateGoldenTests {
    static let caseFiles: [URL] = {
        guard let folder = Golden.directory("chat_templates")?.appending(path: "cases") else { return [] }
        let all = (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
        return all.filter { $0.pathExtension == "jsonl" }.sorted { $0.path < $1.path }
    }()

    @Test(arguments: caseFiles) func rendersAsTransformers(_ url: URL) throws {
        let name = url.deletingPathExtension().lastPathComponent
        let folder = url.deletingLastPathComponent().deletingLastPathComponent()
        let source = try Data(contentsOf: folder.appending(path: "templates/\(name).jinja"))
        let template = try ChatTemplate(String(decoding: source, as: UTF8.self))
        let cases = try GoldenCase.lines(url)
        #expect(!cases.isEmpty)
        for golden in cases { check(golden, template) }
    }

    private func check(_ golden: GoldenCase, _ template: ChatTemplate) {
        let place = "\(golden.file)/\(golden.name)"
        let messages = golden.array("messages")?.map(\.withReasoningAliases) ?? []
        if let effective = golden.array("effective_messages") {
            #expect(messages == effective, "\(place): the messages that the template sees differ")
        }
        do {
            let rendered = try template.render(
                messages: messages, tools: golden.record["tools"] ?? .null, variables: golden.variables("kwargs"),
                clock: { GoldenCase.time })
            if let error = golden.errorMessage {
                Issue.record("\(place): rendered, though it should fail with \(error)")
                return
            }
            #expect(sameBytes(rendered.text, golden.record["rendered"]?.string), "\(place)")
            if let spans = golden.array("generation_spans") {
                let ours: [TemplateValue] = rendered.generationSpansInCodePoints.map {
                    [.int(Int64($0.lowerBound)), .int(Int64($0.upperBound))]
                }
                #expect(ours == spans, "\(place): generation spans differ")
                #expect(rendered.unplacedGenerations == 0, "\(place)")
            }
        } catch let error {
            guard let expected = golden.errorKind else {
                Issue.record("\(place): \(error)")
                return
            }
            #expect(error.line != nil, "\(place): no place in \(error)")
            // Which of the other kinds it is does not matter, only that rendering fails.
            let isRaised = error.code == .raised
            #expect(isRaised == (expected == "raise_exception"), "\(place): \(error), not \(golden.errorMessage ?? "")")
            if expected == "raise_exception" { #expect(sameBytes(error.message, golden.errorMessage), "\(place)") }
        }
    }
}

/// One language feature a line, against Jinja2 3.1.6.
@Suite struct JinjaLanguageGoldenTests {
    @Test func agreesWithJinja2() throws {
        guard let folder = Golden.directory("chat_templates") else { return }
        let cases = try GoldenCase.lines(folder.appending(path: "jinja_language.jsonl"))
        #expect(!cases.isEmpty)
        for golden in cases { check(golden) }
    }

    private func check(_ golden: GoldenCase) {
        let source = golden.record["template"]?.string ?? ""
        let place = "\(golden.name) \(source)"
        do {
            let rendered = try ChatTemplate(source)
                .render(variables: golden.variables("context"), clock: { GoldenCase.time }).text
            if let error = golden.errorMessage {
                Issue.record("\(place): rendered \(rendered), though it should fail with \(error)")
                return
            }
            #expect(sameBytes(rendered, golden.record["output"]?.string), "\(place): \(rendered)")
        } catch let error {
            guard let expected = golden.errorKind else {
                Issue.record("\(place): \(error)")
                return
            }
            // Which of the other kinds it is does not matter, only that rendering fails.
            let isRaised = error.code == .raised
            #expect(isRaised == (expected == "raise_exception"), "\(place): \(error), not \(golden.errorMessage ?? "")")
        }
    }
}

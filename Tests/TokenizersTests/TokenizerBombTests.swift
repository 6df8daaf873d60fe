import Foundation
import Testing

@testable import Tokenizers

/// Files that are made to crash, to hang or to fill the memory.
@Suite struct TokenizerBombTests {
    private func error(_ body: () throws -> Void) -> TokenizerError? {
        do {
            try body()
            return nil
        } catch {
            return error as? TokenizerError
        }
    }

    // MARK: Patterns

    @Test(arguments: [
        "a" + String(repeating: "?", count: 100_000), "(?:a" + String(repeating: "{1}", count: 50_000) + ")",
        String(repeating: "(?:", count: 90) + "a" + String(repeating: "+++++++++++)", count: 90),
        String(repeating: "(", count: 100_000),
    ])
    func refusesPatternsThatNestTooDeep(_ pattern: String) {
        #expect(error { _ = try Pattern(pattern) }?.code == .invalidPattern)
    }

    @Test func refusesRepetitionsOfNothingThatMultiply() {
        #expect(error { _ = try Pattern("(?:){1000}{1000}{1000}{1000}") }?.code == .invalidPattern)
        #expect(error { _ = try Pattern("(?:(?:(?:){999}){999}){999}") }?.code == .invalidPattern)
    }

    // MARK: Post-processors

    private func tokenizer(postProcessor: String) throws -> Tokenizer {
        try Tokenizer(
            jsonData: Data(TinyTokenizers.byteLevelJSON(extra: "\"post_processor\": \(postProcessor),").utf8))
    }

    @Test func refusesNegativeIDsOfSpecialTokens() {
        let template = """
            {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [],
             "special_tokens": {"x": {"id": "x", "ids": [-9], "tokens": ["x"]}}}
            """
        #expect(error { _ = try tokenizer(postProcessor: template) }?.code == .invalidField)
        let bert = #"{"type": "BertProcessing", "sep": ["s", -1], "cls": ["c", 2]}"#
        #expect(error { _ = try tokenizer(postProcessor: bert) }?.code == .invalidField)
    }
}

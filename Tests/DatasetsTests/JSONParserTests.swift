import Datasets
import Testing

@Suite struct JSONParserTests {
    @Test(arguments: [
        ("null", "null"), (" true ", "true"), ("-0.50e+10", "-0.50e+10"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        (#"[1, [], {"b": 2, "a": {}}]"#, #"[1,[],{"b":2,"a":{}}]"#),
        (#""a\"\\\/\b\f\n\r\t\u0041\ud83d\ude00é""#, #""a\"\\/\u0008\u000c\n\r\tA😀é""#),
        (#"{"a":1,"a":2}"#, #"{"a":1,"a":2}"#),
    ])
    func keepsEverything(text: String, written: String) throws {
        let value = try JSONParser.parse(text)
        #expect(value.text == written)
        #expect(try JSONParser.parse(value.text) == value)
    }

    @Test(arguments: [
        "", "tru", "nul", "NaN", "Infinity", "-", "01", "1.", "1e", ".5", "+1", "[1,]", "[1 2]", "{\"a\"}", "{a:1}",
        "{\"a\":1,}", "\"abc", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"",
        "\"a\u{1}\"", "1 2", "[", "{\"a\":", "\"\\",
    ])
    func refusesWhatIsNotJSON(text: String) {
        #expect(throws: JSONParser.Failure.self) { try JSONParser.parse(text) }
    }

    @Test func refusesInvalidUTF8() {
        let bytes: [UInt8] = [0x22, 0xC3, 0x28, 0x22]
        #expect(throws: JSONParser.Failure.self) { try bytes.withUnsafeBufferPointer { try JSONParser.parse($0) } }
    }

    @Test func boundsTheDepth() throws {
        let limit = JSONParser.maximumDepth
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        _ = try JSONParser.parse(nested(limit))
        #expect(throws: JSONParser.Failure.self) { try JSONParser.parse(nested(limit + 1)) }
        #expect(throws: JSONParser.Failure.self) { try JSONParser.parse(String(repeating: "[", count: 1_000_000)) }
    }

    @Test func namesAreComparedByBytesAndTheLastOneWins() throws {
        guard case .object(let object) = try JSONParser.parse("{\"e\u{301}\":1,\"\u{E9}\":2,\"x\":3,\"x\":4}") else {
            Issue.record("not an object")
            return
        }
        #expect(object["e\u{301}"] == .number("1"))
        #expect(object["\u{E9}"] == .number("2"))
        #expect(object["x"] == .number("4"))
        #expect(object["y"] == nil)
    }
}

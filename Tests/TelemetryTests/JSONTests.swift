import OrderedCollections
import Testing

@testable import Telemetry

@Suite struct JSONTests {
    @Test(arguments: [
        (0.1, "0.1"), (1, "1.0"), (-0.0, "-0.0"), (1e-5, "1e-05"), (1e300, "1e+300"),
        (.leastNonzeroMagnitude, "5e-324"),
        (0.1 + 0.2, "0.30000000000000004"), (.nan, "\"NaN\""), (.infinity, "\"Infinity\""),
        (-.infinity, "\"-Infinity\""),
    ])
    func writesDoublesInShortestForm(_ value: Double, _ expected: String) {
        var writer = JSONWriter()
        writer.value(value)
        #expect(writer.text == expected)
    }

    @Test func doublesComeBackToTheSameBits() throws {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            let value = Double(bitPattern: generator.next())
            guard value.isFinite else { continue }
            var writer = JSONWriter()
            writer.value(value)
            let back = try #require(JSONValue(parsing: writer.bytes).double)
            #expect(back.bitPattern == value.bitPattern, "\(writer.text)")
        }
    }

    @Test func escapesWhatJSONRequires() throws {
        let text = "a\"b\\c\n\r\t\u{1}\u{7F}é漢😀</script>\u{2028}"
        var writer = JSONWriter()
        writer.value(text)
        #expect(
            writer.text == "\"a\\\"b\\\\c\\n\\r\\t\\u0001\\u007fé漢😀</script>\u{2028}\"")
        #expect(try JSONValue(parsing: writer.bytes).string == text)

        var embedded = JSONWriter(style: .embeddable)
        embedded.value(text)
        #expect(!embedded.text.contains("<") && !embedded.text.contains(">"))
        #expect(try JSONValue(parsing: embedded.bytes).string == text)
    }

    @Test func writesNestedContainers() throws {
        func write(_ style: JSONWriter.Style) -> String {
            var writer = JSONWriter(style: style)
            writer.object {
                $0.key("a")
                $0.array {
                    $0.value(1)
                    $0.object { _ in }
                    $0.null()
                }
                $0.key("b")
                $0.value(true)
            }
            return writer.text
        }
        #expect(write(.compact) == #"{"a":[1,{},null],"b":true}"#)
        #expect(write(.pretty) == "{\n  \"a\": [\n    1,\n    {},\n    null\n  ],\n  \"b\": true\n}")
    }

    @Test(arguments: [
        (#""\u00e9\ud83d\ude00""#, "é😀"), (#""\/\b\f""#, "/\u{8}\u{C}"), (#""""#, ""),
    ])
    func readsEscapes(_ json: String, _ expected: String) throws {
        #expect(try JSONValue(parsing: Array(json.utf8)).string == expected)
    }

    @Test func keepsTheOrderOfMembers() throws {
        let json = #"{"z":1,"a":[true,false,null,-2.5e3],"m":{"x":"y"}}"#
        let value = try JSONValue(parsing: Array(json.utf8))
        #expect(value.object?.keys.elements == ["z", "a", "m"])
        var writer = JSONWriter()
        value.write(to: &writer)
        #expect(writer.text == #"{"z":1,"a":[true,false,null,-2500],"m":{"x":"y"}}"#)
    }

    @Test(arguments: [
        "", "{", "[1,]", "{\"a\":1,}", "01", "1.", ".5", "+1", "nul", "\"a", "\"\\x\"", "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\u{1}\"", "1 2", "{\"a\":1,\"a\":2}", "1e999", "NaN", "{1:2}", String(repeating: "[", count: 100_000),
    ])
    func refusesWhatIsNotJSON(_ json: String) {
        #expect { try JSONValue(parsing: Array(json.utf8), path: "x.json") } throws: { error in
            let error = error as? TelemetryError
            return error?.code == .malformed && error?.path == "x.json" && error?.message.contains("byte") == true
        }
    }

    @Test func refusesBadUTF8() {
        #expect(throws: TelemetryError.self) { try JSONValue(parsing: [0x22, 0xFF, 0x22]) }
    }
}

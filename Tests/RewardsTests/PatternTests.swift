import Rewards
import Testing

@Suite struct PatternTests {
    /// Each expectation is what Python's `re.search` gives: the whole match and its groups.
    @Test(
        arguments: [
            ("abc", "xabcx", ["abc"]), ("a|ab", "ab", ["a"]), ("(a|ab)(c|bcd)", "abcd", ["abcd", "a", "bcd"]),
            ("a*", "baaa", [""]), ("a+?", "aaa", ["a"]), ("a{2,3}", "aaaa", ["aaa"]), ("a{2,3}?", "aaaa", ["aa"]),
            ("a{2}", "aaa", ["aa"]), ("a{2,}", "aaaa", ["aaaa"]), ("x{0}y", "y", ["y"]), ("a{,2}", "a{,2}", ["a{,2}"]),
            ("a{x}", "a{x}", ["a{x}"]), ("(a)|(b)", "b", ["b", nil, "b"]), ("(a*)*b", "aab", ["aab", "aa"]),
            ("(?:ab)+", "ababa", ["abab"]), ("[a-c]+", "xxabcd", ["abc"]), ("[^a-c]+", "abxyc", ["xy"]),
            ("[]a]+", "x]a]", ["]a]"]), ("[a\\-z]+", "b-z", ["-z"]), ("[\\d.]+", "v1.25!", ["1.25"]),
            ("[a-]+", "x-a", ["-a"]),
            ("\\bcat\\b", "concat cat", ["cat"]), ("\\Bcat", "cat concat", ["cat"]), ("^a", "ba", nil),
            ("a$", "ba\n", ["a"]),
            ("(?m)^b$", "a\nb\nc", ["b"]), ("(?i)HeLLo É", "hello é", ["hello é"]), ("(?i)[A-C]+", "xabC", ["abC"]),
            ("(?i)[^a]+", "aAb", ["b"]), (".+", "a\nb", ["a"]), ("(?s).+", "a\nb", ["a\nb"]), ("\\w+", "é_a9", ["_a9"]),
            ("\\S+", "\t a\u{B}b", ["a"]), ("\\x41\\u00e9", "Aé", ["Aé"]), ("\\.\\*\\\\", "a.*\\", [".*\\"]),
            ("", "abc", [""]), ("()", "abc", ["", ""]), ("(?is)<a>(.*?)</A>", "<A>\n</a></a>", ["<A>\n</a>", "\n"]),
            ("#### (-?[0-9.,]+)", "so\n#### -1,234.5", ["#### -1,234.5", "-1,234.5"]), ("a||b", "b", [""]),
            ("😀+", "x😀😀", ["😀😀"]), ("e\u{301}", "e\u{301}", ["e\u{301}"]), ("\u{E9}", "e\u{301}", nil),
        ] as [(String, String, [String?]?)])
    func matchesAsPythonDoes(pattern: String, text: String, expected: [String?]?) throws {
        let match = try Pattern(pattern).firstMatch(in: text)
        #expect(match?.groups.map { $0.map(String.init) } == expected)
    }

    @Test(arguments: [
        ("a|ab", "ab", true), ("a*", "aab", false), ("(a+)(b?)", "aa", true), ("a+?", "aaa", true), ("^a$", "a", true),
        ("", "", true), ("", "a", false), (".*", "a\n", false),
    ])
    func theWholeTextCanBeWanted(pattern: String, text: String, isMatch: Bool) throws {
        #expect(try (Pattern(pattern).wholeMatch(in: text) != nil) == isMatch)
    }

    @Test(arguments: [
        ("(", "')' is missing"), (")", "')' without '('"), ("[a", "']' is missing"), ("*a", "nothing to repeat"),
        ("a**", "nothing to repeat"), ("a++", "possessive"), ("(a)\\1", "back-references"), ("(?=a)", "look-around"),
        ("(?<n>a)", "named groups"), ("a(?i)b", "only supported"), ("(?x)a", "flag 'x'"), ("[z-a]", "swapped"),
        ("a{3,2}", "swapped"), ("a{1001}", "above 1000"), ("\\q", "not supported"), ("a\\", "'\\' at the end"),
        ("\\x4", "hexadecimal"), ("\\ud800", "no scalar"), ("[a-\\d]", "ends in a class"), ("\\Z", "use ^ and $"),
    ])
    func whatCannotBeReadIsNamed(pattern: String, message: String) throws {
        let error = try #require(throws: RewardError.self) { try Pattern(pattern) }
        #expect(error.code == .badPattern)
        #expect(error.message.contains(message), "\(error.message)")
    }

    @Test func hostilePatternsAreRefusedOrLinear() throws {
        #expect(throws: RewardError.self) { try Pattern("((a{1000}){1000}){1000}") }
        #expect(throws: RewardError.self) { try Pattern(String(repeating: "(", count: 100_000)) }
        let text = String(repeating: "a", count: 2000)
        // A backtracking engine takes 2^2000 steps for each of these.
        for pattern in ["(a+)+$b", "(a|a)*b", "(a*)*b", "(.*a){20}b", "^(([a-z])+.)+[A-Z]([a-z])+$"] {
            #expect(try Pattern(pattern).firstMatch(in: text) == nil)
        }
    }

    @Test func tooMuchWorkIsAnError() throws {
        let pattern = try Pattern("(a{1000}){10}b")
        #expect(throws: Pattern.TooMuchWork.self) { try pattern.firstMatch(in: String(repeating: "a", count: 100_000)) }
    }
}

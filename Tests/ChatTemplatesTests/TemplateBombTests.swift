import Testing

@testable import ChatTemplates

/// Templates whose single operations go over much that is there already, which the counting of steps must see.
@Suite struct TemplateBombTests {
    private func outcome(_ source: String) -> TemplateError.Code? {
        do {
            // Smaller than the defaults, so that a debug build gets there soon.
            let limits = TemplateLimits(steps: 300_000, outputBytes: 8 << 20, allocatedBytes: 256 << 20)
            _ = try ChatTemplate(source, limits: limits).render(variables: [:])
            return nil
        } catch {
            return error.code
        }
    }

    /// A thousand times is far within the limit of steps, if each time did not go over so much.
    @Test(arguments: [
        "{% set t = s == u %}", "{% set t = s < u %}", "{% set t = s.find('x') %}", "{% set t = s.count('ax') %}",
        "{% set t = s.split('x') %}", "{% set t = s | length %}", "{% set t = s[90000] %}", "{% set t = {s: 1} %}",
        "{% set t = d[s] %}", "{% set t = s in d %}", "{% set t = d.get(s) %}", "{% set t = s | int %}",
        "{% set t = s.startswith(u) %}", "{% set t = s.isupper() %}", "{% set t = s is equalto u %}",
        "{% set t = 'x' in s %}", "{% set t = s in [u, u, u] %}", "{% set t = [s, s] | unique | list %}",
        "{% set t = l == m %}", "{% set t = 'x' in l %}", "{% set t = l.index(1) %}", "{% set t = l.count('x') %}",
    ])
    func stepsCountWhatOneOperationGoesOver(_ body: String) {
        let text = "{% set s = 'a' * 99999 %}{% set u = 'a' * 99999 %}{% set d = {u: 1} %}"
        let lists = "{% set l = range(9, 2000) | list + [1] %}{% set m = range(9, 2000) | list + [1] %}"
        let loops = "{% for i in range(1000) %}\(body){% endfor %}"
        #expect(outcome(text + lists + loops) == .limit)
    }

    /// Lists that hold the list before twice have 2^100 elements, in little memory.
    @Test(arguments: ["a == b", "[a, b] | unique | list", "a in [b]", "a < b", "a is equalto b"])
    func comparingSharedListsEnds(_ expression: String) {
        let source = """
            {% set n = namespace(a=[1], b=[1]) %}{% for i in range(100) %}{% set n.a = [n.a, n.a] %}
            {% set n.b = [n.b, n.b] %}{% endfor %}{% set a = n.a %}{% set b = n.b %}{{ \(expression) }}
            """
        #expect(outcome(source) == .limit || expression.contains("unique"))
    }

    @Test func searchingForALongPartEnds() {
        #expect(outcome("{{ ('a' * 4000000).find('a' * 2000000 ~ 'b') }}") == .limit)
        #expect(outcome("{{ ('a' * 2000000 ~ 'b') in 'a' * 4000000 }}") == .limit)
        #expect(outcome("{{ ('a' * 4000000) | replace('a' * 2000000 ~ 'b', '') }}") == .limit)
    }

    @Test func manyKeywordsAreRefused() {
        let keywords = (0..<30_000).map { "a\($0)=1" }.joined(separator: ",")
        #expect(outcome("{{ dict(\(keywords)) }}") == .limit)
    }

    @Test(arguments: [
        "{{ [1, 2, 3] | slice(9223372036854775807) | list }}",
        "{{ [1, 2, 3] | batch(9223372036854775807, 'x') | list }}",
        "{{ 'abc' | truncate(9223372036854775807, true, 'x', 9223372036854775807) }}",
        "{{ [1, 2][::least] }}{{ [1, 2][least:] }}{{ [1, 2][:least] }}{{ 'ab'[least] }}",
        "{{ range(least, least) | list }}",
        "{{ range(0, least, -1) | length }}", "{{ range(least, 9223372036854775807, 9223372036854775807) | list }}",
        "{{ range(9223372036854775807, least, least) | list }}", "{{ range(3)[least] }}{{ range(10)[::least] | list }}",
        "{{ 'a' * least }}{{ [1] * least }}", "{{ least | abs }}", "{{ least // -1 }}",
        "{{ least % -1 }}{{ least * -1 }}",
        "{{ [1] | batch(least, 0) | list }}", "{{ [1] | slice(least) | list }}", "{{ 'a b' | wordwrap(least) }}",
        "{{ 'abcdef' | truncate(least, true, 'x', least) }}", "{{ [1] | tojson(indent=least) }}",
        "{{ least | filesizeformat }}", "{{ least is divisibleby(-1) }}{{ least is even }}",
        "{{ 'a b'.split(' ', least) }}",
        "{{ 'ab'.replace('', 'x', least) }}{{ 'abc'.find('c', least, 9223372036854775807) }}",
        "{{ 'abc'.count('', least, least) }}{{ 'a'.ljust(least) }}{{ 'a'.zfill(least) }}{{ 'a\tb'.expandtabs(least) }}",
        "{{ 1.5 | round(least) }}{{ 15 | round(9223372036854775807) }}", "{{ '%c' % least }}{{ '%d' % least }}",
        "{{ '%*.*f' % (least, least, 1.0) }}", "{{ 'a' | indent(least) }}{{ 'a' | center(least) }}",
        "{{ '7' | int(0, least) }}", "{{ '{:{}}'.format(1, least) }}", "{{ [least, -1] | sum }}", "{{ 2 ** least }}",
        "{{ '%x %o' % (least, least) }}{{ '{:,} {:b}'.format(least, least) }}", "{{ [1, 2].index(1, least, least) }}",
    ])
    func extremeNumbersEndInTextOrAnError(_ expression: String) {
        // The least integer cannot be written as a literal.
        _ = outcome("{% set least = -9223372036854775807 - 1 %}" + expression)
    }

    @Test func extremeNumbersGiveWhatPythonGives() throws {
        func text(_ expression: String) throws -> String {
            try ChatTemplate("{% set least = -9223372036854775807 - 1 %}{{ \(expression) }}").render(variables: [:])
                .text
        }
        #expect(
            try text("range(least, 9223372036854775807, 9223372036854775807) | list")
                == "[-9223372036854775808, -1, 9223372036854775806]")
        #expect(try text("'a'.zfill(least)") == "a")
        #expect(try text("25 | round(-1)") == "20")
        #expect(try text("35 | round(-1)") == "40")
        #expect(try text("(-25) | round(-1)") == "-20")
        #expect(try text("(-35) | round(-1)") == "-40")
        #expect(try text("(-20) | round(-1)") == "-20")
        #expect(try text("(-5) | filesizeformat") == "-5 Bytes")
        #expect(outcome("{{ 9223372036854775807 | round(-1) }}") == .value)
        #expect(outcome("{{ -1e308 | filesizeformat }}") == nil)
    }
}

import ChatTemplates
import Testing

/// Hostile templates end in an error, quickly and without using up the stack or the memory.
@Suite struct LimitTests {
    private func code(_ source: String, _ limits: TemplateLimits = TemplateLimits()) -> TemplateError.Code? {
        do {
            _ = try ChatTemplate(source, limits: limits).render(variables: ["l": [1, 2, 3]])
            return nil
        } catch {
            return error.code
        }
    }

    static let loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

    @Test(arguments: [
        loop,
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x={}) %}{% for i in range(9999) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = cycler(ns.x) %}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{{ 'a' * 999999999999 }}", "{{ [1] * 999999999999 }}", "{{ 'x'.ljust(999999999999) }}",
        "{{ '%999999999999d' % 1 }}", "{{ '{:999999999999}'.format(1) }}", "{{ 'x'|center(999999999999) }}",
        "{{ 'aaaaaaaaaaaaaaaa'.replace('', 'b' * 9999999) }}", "{{ [1]|tojson(indent=999999999999) }}",
        "{{ [1]|batch(999999999999, 0)|list }}", "{{ [1]|slice(999999999999)|list }}",
        "{{ '7'.zfill(999999999999) }}", "{{ '\\t'.expandtabs(999999999999) }}", "{{ 'a'|indent(999999999999) }}",
        "{{ '%.999999999f' % 1.0 }}",
    ])
    func stops(_ source: String) {
        // Smaller than the defaults, so that a debug build gets there soon.
        let limits = TemplateLimits(steps: 300_000, outputBytes: 4 << 20, allocatedBytes: 64 << 20)
        #expect(code(source, limits) == .limit)
    }

    @Test(arguments: [
        "{{ range(99999999) }}", "{{ range(-9223372036854775807, 9223372036854775807) }}", "{{ 2 ** 64 }}",
        "{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}", "{{ 9223372036854775807 * 2 }}",
        "{{ (-9223372036854775807 - 1) // -1 }}", "{{ -(-9223372036854775807 - 1) }}",
    ])
    func refusesNumbersThatDoNotFit(_ source: String) { #expect(code(source) == .value) }

    @Test func edgesOfIntegersAreSafe() throws {
        let source = """
            {{ (-9223372036854775807 - 1) % -1 }} {{ 'abc'[::9223372036854775807] }} \
            {{ 'abc'[::-9223372036854775807] }} {{ 'abc'[-9223372036854775807:9223372036854775807] }} \
            {{ l.index(1, -9223372036854775807, 9223372036854775807) }} {{ 'a'.find('a', -9223372036854775807) }}
            """
        let text = try ChatTemplate(source).render(variables: ["l": [1, 2, 3]]).text
        #expect(text == "0 a c abc 0 0")
    }

    @Test(arguments: ["(", "[", "not ", "-", "{1:"]) func refusesDeepExpressions(_ opening: String) {
        #expect(code("{{ " + String(repeating: opening, count: 50_000)) == .limit)
    }

    @Test(arguments: ["{% if 1 %}", "{% for i in l %}", "{% macro f() %}"]) func refusesDeepBlocks(_ opening: String) {
        #expect(code(String(repeating: opening, count: 50_000)) == .limit)
    }

    @Test(arguments: ["+1", ".a", "|e", "~1", "[0]", "()"]) func longChains(_ link: String) {
        // `~` makes one flat node; the others nest.
        let expected: TemplateError.Code? = link == "~1" ? nil : .limit
        #expect(code("{{ 1" + String(repeating: link, count: 20_000) + " }}") == expected)
    }

    @Test func deepestAllowedTreeFitsTheStack() {
        let nested = String(repeating: "(1 + ", count: 90) + "1" + String(repeating: ")", count: 90)
        let macro = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% else %}{{ \(nested) }}{% endif %}{% endmacro %}"
        #expect(code(macro + "{{ f(30) }}") == nil)
        #expect(code(macro + "{{ f(3000) }}") == .limit)
    }

    @Test func limitsAreConfigurable() {
        let source = "{% for i in range(100) %}{{ i }},{% endfor %}"
        #expect(code(source) == nil)
        #expect(code(source, TemplateLimits(steps: 50)) == .limit)
        #expect(code(source, TemplateLimits(outputBytes: 50)) == .limit)
        #expect(code(source, TemplateLimits(allocatedBytes: 50)) == .limit)
        #expect(code(source, TemplateLimits(rangeLength: 50)) == .value)
        #expect(code(source, TemplateLimits(sourceBytes: 10)) == .limit)
    }

    /// Whatever a template does, the error says where: the third line here, and a column in what stands there.
    @Test(arguments: [
        "{{ 'a' * 10 ** 9 }}", "{{ 10 ** 9 * 'a' }}", "{{ ('a' * 10 ** 6) * 10 ** 6 }}",
        "{% set x = ['a' * 10 ** 6] * 10 ** 9 %}", "{{ (['a' * 10 ** 6] * 99)|join }}",
        "{{ range(10 ** 9)|list }}", "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ '%*d' % (10 ** 9, 1) }}", "{{ '{0:{1}}'.format(1, 10 ** 9) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ '%s' * 10 ** 8 % (1,) }}", "{{ '%.1000000000f' % 1.5 }}",
        "{{ 'x'|indent(10 ** 9) }}", "{{ {'a': [1]}|tojson(indent=10 ** 9) }}",
        "{{ ('ab' * 10 ** 5)|list|join('c' * 10 ** 5) }}", "{{ ('a ' * 10 ** 6).split(' ')|join('b' * 99) }}",
        "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{% call f() %}{% endcall %}{{ caller() }}{% endmacro %}{% call f() %}{% endcall %}",
        "{% macro f(n) %}{{ f([n, n]) }}{% endmacro %}{{ f(1) }}",
        "{% for a in [[1]] recursive %}{{ loop([[1]]) ~ loop([[1]]) }}{% endfor %}",
        "{% filter replace('a', 'a' * 10 ** 6) %}{{ 'a' * 10 ** 6 }}{% endfilter %}",
        "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
        "{% set ns = namespace(s='') %}{% for i in range(99999) %}{% set ns.s = ns.s ~ 'aaaaaaaaaa' %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
        "{{ range(99999)|map('string')|map('center', 9999)|list }}", "{{ ('a,' * 99999).split(',') * 99 }}",
        String(repeating: "{% if 1 %}", count: 9999), "{{ " + String(repeating: "(", count: 99_999),
        "{{ 1" + String(repeating: " if 1 else 1", count: 9999) + " }}",
        "{{ " + String(repeating: "[", count: 9999) + String(repeating: "]", count: 9999) + " }}",
    ])
    func namesThePlace(_ source: String) throws {
        let limits = TemplateLimits(steps: 300_000, outputBytes: 4 << 20, allocatedBytes: 64 << 20)
        let error = try #require(throws: TemplateError.self) {
            _ = try ChatTemplate("\n{# é #}\n  " + source, limits: limits).render(variables: [:])
        }
        #expect([.limit, .value].contains(error.code), "\(error)")
        #expect(error.line == 3, "\(error)")
        #expect(error.column ?? 0 >= 3, "\(error)")
    }
}

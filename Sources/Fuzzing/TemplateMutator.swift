/// Changes to Jinja text by its words: shuffled, repeated, nested, with large numbers and long chains of filters.
enum TemplateMutator {
    private static let numbers = [
        "0", "1", "-1", "2", "63", "64", "100000", "100001", "2147483647", "2147483648", "9223372036854775807",
        "9223372036854775808", "-9223372036854775808", "99999999999999999999999", "1e308", "1e999", "0.1", "1_000",
        "0x7fffffffffffffff", "0b1", "0o7", "1.5e-320",
    ]

    private static let fragments = [
        "{{", "}}", "{%", "%}", "{#", "#}", "{{-", "-}}", "{%-", "-%}", "{%+", "+%}", "{% raw %}", "{% endraw %}",
        "{% if x %}", "{% elif y %}", "{% else %}", "{% endif %}", "{% for m in messages %}", "{% endfor %}",
        "{% for k, v in messages[0].items() recursive %}", "{{ loop(messages) }}", "{{ loop.previtem }}",
        "{{ loop.cycle(1, 2) }}", "{% set x = messages %}", "{% set ns = namespace(a=1) %}", "{% set ns.a = ns %}",
        "{% macro f(a, b=1) %}", "{% endmacro %}", "{{ f(f(1)) }}",
        "{% macro g(n) %}{{ g(n + 1) }}{% endmacro %}{{ g(0) }}",
        "{% call f(1) %}", "{% endcall %}", "{% filter upper %}", "{% endfilter %}", "{% set x %}", "{% endset %}",
        "{% generation %}", "{% endgeneration %}", "{% break %}", "{% continue %}", "{% with a = 1 %}", "{% endwith %}",
        "{{ raise_exception('no') }}", "{{ range(99999) | list }}", "{{ 'a' * 1000000 }}", "{{ [0] * 1000000 }}",
        "{{ 'x'.join(range(1000)) }}", "{{ messages | tojson(indent=4) }}", "{{ strftime_now('%Y %j %U %') }}",
        "{{ '%999999d' % 1 }}", "{{ '%s %c %r %x' % (1, 'a', 'b', -3) }}", "{{ '{:>99999}'.format(1) }}",
        "{{ '{0.a[b]!r:^{1}}'.format(1, 5) }}", "{{ 2 ** 62 }}", "{{ 2 ** 64 }}", "{{ 2 ** -1 }}", "{{ 7 // 0 }}",
        "{{ -9223372036854775807 - 2 }}", "{{ 9223372036854775807 * 3 }}", "{{ (-9223372036854775807 - 1) // -1 }}",
        "{{ (-9223372036854775807 - 1) % -1 }}", "{{ messages[::-1] }}",
        "{{ messages[-9223372036854775808:9223372036854775807:-1] }}",
        "{{ 'héllo'[1::2] }}", "{{ 'abc'[::9223372036854775807] }}", "{{ 'a,b'.split(',', -5) }}",
        "{{ 'ab'.replace('', 'x', 3) }}", "{{ 'a'.center(9999) }}", "{{ 'a'.zfill(-1) }}",
        "{{ 'abc'.find('c', -9, 99) }}",
        "{{ messages | batch(3, 'x') | list }}", "{{ messages | slice(0) | list }}", "{{ 'a b c' | wordwrap(1) }}",
        "{{ 'x' | indent(99999) }}", "{{ 1.5 | round(400, 'floor') }}", "{{ 'a' | truncate(-5) }}",
        "{{ 12345678 | filesizeformat }}",
        "{{ messages | groupby('role') }}", "{{ messages | sort(attribute='content') }}", "{{ 'a' | center(100000) }}",
        "{{ [1, [2, [3]]] | sum(start=[]) }}", "{{ '😀'.encode('utf-8') }}", "{{ 'İ'.lower().upper().title() }}",
        "{{ x.__class__.__mro__ }}", "{{ messages | map(attribute='content.0.text') | join }}", "{{ ~ }}", "{{ not }}",
        "{{ a if b }}", "{{ [a, b, *c] }}", "{{ {'a': 1, **b} }}", "{{ lipsum(5) }}", "{{ cycler(1, 2).next() }}",
        "{{ joiner(', ')() }}", "{{ dict(a=1) | dictsort(by='value') }}", "{{ 'x' is divisibleby(0) }}",
        "{{ 5 is divisibleby 0 }}", "{{ messages | random }}", "{{ 'a' | format(1) }}", "{{ '%*d' % (99999, 1) }}",
        "{{ 1 | int(base=99) }}", "{{ 'zz' | int(base=36) }}", "{{ '1e400' | float | int }}", "{{ 1e300 | int }}",
        "{{ (1e400 - 1e400) | int }}", "{{ '\\ud800' }}", "{{ '\\N{DIGIT ONE}' }}", "{{ '\\x4' }}",
    ]

    private static let filters = [
        "upper", "list", "join", "tojson", "length", "first", "last", "reverse", "sort", "unique", "trim", "string",
        "int",
        "float", "abs", "escape", "safe", "e", "title", "capitalize", "lower", "replace('a', 'aaaaaaaaaa')",
        "indent(4)",
        "wordcount", "urlencode", "striptags", "xmlattr", "pprint", "items", "dictsort", "default('')", "center(50)",
        "batch(2)", "slice(2)", "map('upper')", "select", "reject", "selectattr('a')", "groupby('a')", "sum", "min",
        "max",
        "round", "truncate(5)", "wordwrap(5)", "format", "attr('a')", "forceescape", "filesizeformat", "random",
        "urlize",
    ]

    static func mutated(_ text: [UInt8], splicing other: [UInt8], _ random: inout FuzzRandom) -> [UInt8] {
        var words = split(text)
        guard !words.isEmpty else { return Array(random.pick(fragments).utf8) }
        let place = random.below(words.count)
        switch random.below(12) {
        case 0: words.removeSubrange(random.range(in: words.count))
        case 1: words.insert(contentsOf: Array(words[random.range(in: words.count)]), at: place)
        case 2: words.swapAt(place, random.below(words.count))
        case 3: words.insert(word(random.pick(fragments)), at: place)
        case 4:
            // A whole piece between two tags, where it stays a template.
            let ends = words.indices.filter { isClosing(words[$0]) }
            words.insert(word(random.pick(fragments)), at: ends.isEmpty ? words.count : random.pick(ends) + 1)
        case 5:
            // What one tag holds becomes what another of its kind does.
            let tags = words.indices.filter { words[$0].elementsEqual("{{".utf8) }
            guard tags.count > 1 else { return Array((words + [word(random.pick(fragments))]).joined()) }
            let (first, second) = (random.pick(tags), random.pick(tags))
            func end(_ start: Int) -> Int { words[start...].firstIndex { isClosing($0) } ?? words.count }
            words.replaceSubrange(first..<end(first), with: Array(words[second..<end(second)]))
        case 6:
            let places = words.indices.filter { words[$0].first.map { (0x30...0x39).contains($0) } ?? false }
            let target = places.isEmpty ? place : random.pick(places)
            words[target] = word(random.pick(numbers))
        case 7:
            // A chain of filters before the end of an expression.
            let ends = words.indices.filter { isClosing(words[$0]) }
            let chain = (0..<random.pick([1, 2, 5, 30, 500])).map { _ in " | " + random.pick(filters) }
            if let end = ends.isEmpty ? nil : random.pick(ends) { words.insert(word(chain.joined()), at: end) }
        case 8:
            let depth = random.pick([2, 20, 90, 110, 500, 20000])
            let pairs = [
                ("(", ")"), ("[", "]"), ("{1: ", "}"), ("not ", ""), ("-", ""), ("1 + ", ""), ("1 ** ", ""), ("a.", ""),
                ("{% if 1 %}", "{% endif %}"), ("{% for a in [1] %}", "{% endfor %}"), ("a if a else ", ""),
                ("a[", "]"), ("f(", ")"), ("{{ ", " }}"), ("{% filter upper %}", "{% endfilter %}"), ("'a' ", ""),
                ("{% set x %}", "{% endset %}"), ("{% macro m() %}", "{% endmacro %}"), ("1 ~ ", ""), ("a and ", ""),
            ]
            let (open, close) = random.pick(pairs)
            words.insert(word(String(repeating: close, count: depth)), at: min(place + 1, words.count))
            words.insert(word(String(repeating: open, count: depth)), at: place)
        case 9 where !other.isEmpty:
            let taken = split(other)
            words.insert(contentsOf: taken[random.range(in: taken.count)], at: place)
        case 10:
            let range = random.range(in: words.count)
            words.replaceSubrange(range, with: words[range].shuffled(using: &random))
        default: words[place] = words[random.below(words.count)]
        }
        return Array(words.joined())
    }

    private static func isClosing(_ word: ArraySlice<UInt8>) -> Bool { word.count > 1 && word.last == 0x7D }

    private static func word(_ text: String) -> ArraySlice<UInt8> { Array(text.utf8)[...] }

    /// Delimiters, words, numbers, strings, blanks and single signs.
    private static func split(_ text: [UInt8]) -> [ArraySlice<UInt8>] {
        func isWord(_ byte: UInt8) -> Bool {
            byte >= 0x80 || byte == 0x5F || (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte & 0xDF)
        }
        var words: [ArraySlice<UInt8>] = []
        var position = 0
        while position < text.count {
            let start = position
            let byte = text[position]
            position += 1
            if isWord(byte) {
                while position < text.count, isWord(text[position]) { position += 1 }
            } else if byte <= 0x20 {
                while position < text.count, text[position] <= 0x20 { position += 1 }
            } else if position < text.count {
                let pair = (byte, text[position])
                switch pair {
                case (0x7B, 0x7B), (0x7B, 0x25), (0x7B, 0x23):
                    position += 1
                    if position < text.count, text[position] == 0x2D { position += 1 }
                case (0x7D, 0x7D), (0x25, 0x7D), (0x23, 0x7D): position += 1
                case (0x2D, 0x7D), (0x2D, 0x25):
                    if position + 1 < text.count, text[position + 1] == 0x7D { position += 2 }
                default: break
                }
            }
            words.append(text[start..<position])
        }
        return words
    }
}

/// The sets of scalars that the patterns and components of tokenizers name.
enum UnicodeProperties {
    private static let atomRanges = NumberList.ranges(
        ofRuns: UnicodeCategoryData.runs, values: UnicodeCategoryData.atoms.count)
    private static let scriptRanges = NumberList.ranges(
        ofRuns: UnicodeScriptData.runs, values: UnicodeScriptData.names.count)

    static let whitespace = atoms { $0.dropFirst(2).contains("s") }
    /// `\w` of the pattern engine.
    static let word = atoms { $0.dropFirst(2).contains("w") }
    /// The same inside brackets, where the engine leaves out `²³¹¼½¾`.
    static let wordInClass = atoms { $0.dropFirst(2).contains("w") && !$0.hasPrefix("No") }
    static let decimalDigit = atoms { $0.hasPrefix("Nd") }
    static let letter = atoms { $0.hasPrefix("L") }
    static let number = atoms { $0.hasPrefix("N") }
    static let mark = atoms { $0.hasPrefix("M") }

    static let numeric = NumberList.set(UnicodeSetData.numeric)
    static let punctuation = NumberList.set(UnicodeSetData.punctuation)
    /// `\w` of the engine that added tokens and the `Whitespace` pre-tokenizer use.
    static let rustWord = NumberList.set(UnicodeSetData.rustWord)
    static let combiningMark = NumberList.set(UnicodeSetData.combiningMark)
    static let bertMark = NumberList.set(UnicodeSetData.bertMark)
    static let bertControl = NumberList.set(UnicodeSetData.bertControl)
    static let bertChinese = NumberList.set(UnicodeSetData.bertChinese)
    static let nmtRemoved = NumberList.set(UnicodeSetData.nmtRemoved)
    static let nmtSpace = NumberList.set(UnicodeSetData.nmtSpace)

    private static func atoms(_ isIncluded: (String) -> Bool) -> ScalarSet {
        var ranges: [ClosedRange<UInt32>] = []
        for (atom, members) in zip(UnicodeCategoryData.atoms, atomRanges) where isIncluded(atom) { ranges += members }
        return ScalarSet(ranges)
    }

    /// The set that `\p{name}` stands for: a general category, its group, a script or a class; nil if unknown.
    static func named(_ name: String) -> ScalarSet? {
        let key = name.filter { $0 != "_" && $0 != " " && $0 != "-" }.lowercased()
        if let short = longCategoryNames[key] { return named(short) }
        let categories = Set(UnicodeCategoryData.atoms.map { $0.prefix(2) })
        if key.utf8.count <= 2, let category = categories.first(where: { $0.lowercased().hasPrefix(key) }) {
            if key.utf8.count == 1 { return atoms { $0.hasPrefix(category.prefix(1)) } }
            return atoms { $0.hasPrefix(category) }
        }
        switch key {
        case "alpha", "alphabetic": return NumberList.set(UnicodeSetData.alphabetic)
        case "alnum": return named("alpha")!.union(decimalDigit)
        case "any": return ScalarSet([0...ScalarSet.last])
        case "ascii": return ScalarSet([0...0x7F])
        case "blank": return ScalarSet([9...9]).union(named("Zs")!)
        case "cntrl": return named("Cc")
        case "digit": return decimalDigit
        case "graph": return atoms { !$0.hasPrefix("Z") && (!$0.hasPrefix("C") || $0 == "Cf" || $0 == "Co") }
        case "lower", "lowercase": return NumberList.set(UnicodeSetData.lowercase)
        case "print": return named("graph")!.union(named("Zs")!)
        case "upper", "uppercase": return NumberList.set(UnicodeSetData.uppercase)
        case "punct": return named("P")
        case "space", "whitespace": return whitespace
        case "xdigit": return ScalarSet([0x30...0x39, 0x41...0x46, 0x61...0x66])
        case "word": return word
        case "lc": return atoms { $0.hasPrefix("Lu") || $0.hasPrefix("Ll") || $0.hasPrefix("Lt") }
        default: break
        }
        guard
            let script = UnicodeScriptData.names.firstIndex(where: {
                $0.filter { $0 != "_" }.lowercased() == key
            }), script > 0
        else { return nil }
        return ScalarSet(scriptRanges[script])
    }

    private static let longCategoryNames = [
        "letter": "L", "mark": "M", "number": "N", "punctuation": "P", "symbol": "S", "separator": "Z", "other": "C",
        "uppercaseletter": "Lu", "lowercaseletter": "Ll", "titlecaseletter": "Lt", "modifierletter": "Lm",
        "otherletter": "Lo", "nonspacingmark": "Mn", "spacingmark": "Mc", "enclosingmark": "Me",
        "decimalnumber": "Nd", "letternumber": "Nl", "othernumber": "No", "connectorpunctuation": "Pc",
        "dashpunctuation": "Pd", "openpunctuation": "Ps", "closepunctuation": "Pe", "initialpunctuation": "Pi",
        "finalpunctuation": "Pf", "otherpunctuation": "Po", "mathsymbol": "Sm", "currencysymbol": "Sc",
        "modifiersymbol": "Sk", "othersymbol": "So", "spaceseparator": "Zs", "lineseparator": "Zl",
        "paragraphseparator": "Zp", "control": "Cc", "format": "Cf", "surrogate": "Cs", "privateuse": "Co",
        "unassigned": "Cn",
    ]

    /// Scalars that differ only in case from a member, members included.
    static func closedUnderCase(_ set: ScalarSet) -> ScalarSet {
        var folds: Set<UInt32> = []
        for (scalar, fold) in caseFolds where set.contains(scalar) { folds.insert(fold) }
        return ScalarSet(set.ranges + caseFolds.filter { folds.contains($0.fold) }.map { $0.scalar...$0.scalar })
    }

    /// Every cased scalar with its fold: the lower case of its upper case, where each is one scalar.
    private static let caseFolds: [(scalar: UInt32, fold: UInt32)] = {
        var result: [(scalar: UInt32, fold: UInt32)] = []
        for range in atoms({ $0.hasPrefix("Lu") || $0.hasPrefix("Ll") || $0.hasPrefix("Lt") || $0 == "Sow" }).ranges {
            for value in range {
                // The dotless i is the upper case of nothing but itself to a pattern.
                guard let scalar = UnicodeScalar(value), value != 0x131 else { continue }
                let upper = scalar.properties.uppercaseMapping.unicodeScalars
                let single = upper.count == 1 ? upper.first! : scalar
                let lower = single.properties.lowercaseMapping.unicodeScalars
                result.append((value, lower.count == 1 ? lower.first!.value : single.value))
            }
        }
        return result
    }()
}

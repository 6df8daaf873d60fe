/// Python's case changes: Unicode's full mappings, code point by code point, with the final sigma's rule.
enum PythonCase {
    static func upper(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars { result += scalar.properties.uppercaseMapping }
        return result
    }

    static func lower(_ text: String) -> String {
        if text.utf8.allSatisfy({ $0 < 0x80 }) { return text.lowercased() }
        let scalars = Array(text.unicodeScalars)
        var result = ""
        for index in scalars.indices { result += lower(scalars, index) }
        return result
    }

    private static func lower(_ scalars: [Unicode.Scalar], _ index: Int) -> String {
        guard scalars[index] == "\u{3A3}" else { return scalars[index].properties.lowercaseMapping }
        let before = scalars[..<index].last { !$0.properties.isCaseIgnorable }
        let after = scalars[(index + 1)...].first { !$0.properties.isCaseIgnorable }
        let isFinal = before?.properties.isCased == true && after?.properties.isCased != true
        return isFinal ? "\u{3C2}" : "\u{3C3}"
    }

    static func capitalize(_ text: String) -> String {
        let scalars = Array(text.unicodeScalars)
        guard let first = scalars.first else { return "" }
        var result = first.properties.titlecaseMapping
        for index in scalars.indices.dropFirst() { result += lower(scalars, index) }
        return result
    }

    /// `str.title`: a word begins where a cased code point follows one that is not.
    static func title(_ text: String) -> String {
        let scalars = Array(text.unicodeScalars)
        var result = ""
        var followsCased = false
        for index in scalars.indices {
            result += followsCased ? lower(scalars, index) : scalars[index].properties.titlecaseMapping
            followsCased = scalars[index].properties.isCased
        }
        return result
    }

    static func swap(_ text: String) -> String {
        let scalars = Array(text.unicodeScalars)
        var result = ""
        for (index, scalar) in scalars.enumerated() {
            if scalar.properties.isUppercase {
                result += lower(scalars, index)
            } else if scalar.properties.isLowercase {
                result += scalar.properties.uppercaseMapping
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// Full case folding; the standard library has no table for it, but it is the lower case of the upper case except
    /// for dotless i and Cherokee, which folds to its capitals.
    static func fold(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x131, 0x13A0...0x13F5: result.unicodeScalars.append(scalar)
            case 0x13F8...0x13FD, 0xAB70...0xABBF: result += scalar.properties.uppercaseMapping
            case 0x130: result += scalar.properties.lowercaseMapping
            default:
                for upper in scalar.properties.uppercaseMapping.unicodeScalars {
                    result += upper.properties.lowercaseMapping
                }
            }
        }
        return result
    }

    /// Whether there are cased code points and all of them are of one case.
    static func isAll(_ text: String, lower: Bool) -> Bool {
        var hasCased = false
        for scalar in text.unicodeScalars {
            let properties = scalar.properties
            if lower ? properties.isUppercase || isTitle(scalar) : properties.isLowercase || isTitle(scalar) {
                return false
            }
            if lower ? properties.isLowercase : properties.isUppercase { hasCased = true }
        }
        return hasCased
    }

    static func isTitle(_ scalar: Unicode.Scalar) -> Bool {
        scalar.properties.generalCategory == .titlecaseLetter
    }

    static func isTitled(_ text: String) -> Bool {
        var hasCased = false
        var followsCased = false
        for scalar in text.unicodeScalars {
            if scalar.properties.isUppercase || isTitle(scalar) {
                if followsCased { return false }
                followsCased = true
                hasCased = true
            } else if scalar.properties.isLowercase {
                if !followsCased { return false }
                hasCased = true
            } else {
                followsCased = false
            }
        }
        return hasCased
    }
}

/// markupsafe's escaping.
enum Markup {
    static func escape(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 == 0x26 || $0 == 0x3C || $0 == 0x3E || $0 == 0x27 || $0 == 0x22 }) else {
            return text
        }
        var result: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "&"): result += "&amp;".utf8
            case UInt8(ascii: "<"): result += "&lt;".utf8
            case UInt8(ascii: ">"): result += "&gt;".utf8
            case UInt8(ascii: "'"): result += "&#39;".utf8
            case UInt8(ascii: "\""): result += "&#34;".utf8
            default: result.append(byte)
            }
        }
        return PythonText.string(result)
    }
}

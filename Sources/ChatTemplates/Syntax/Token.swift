/// A lexical token of a template.
struct Token: Equatable {
    enum Kind: Equatable {
        case data, blockBegin, blockEnd, outputBegin, outputEnd
        case name, string, integer, double
        case symbol(Symbol)
        case end
    }

    /// Operators and punctuation, by their spelling.
    enum Symbol: String, CaseIterable {
        case floorDivide = "//"
        case power = "**"
        case equal = "=="
        case notEqual = "!="
        case greaterOrEqual = ">="
        case lessOrEqual = "<="
        case add = "+"
        case subtract = "-"
        case divide = "/"
        case multiply = "*"
        case modulo = "%"
        case tilde = "~"
        case leftBracket = "["
        case rightBracket = "]"
        case leftParenthesis = "("
        case rightParenthesis = ")"
        case leftBrace = "{"
        case rightBrace = "}"
        case greater = ">"
        case less = "<"
        case assign = "="
        case dot = "."
        case colon = ":"
        case pipe = "|"
        case comma = ","
        case semicolon = ";"
    }

    let kind: Kind
    /// Data, a name, a decoded string, or a number's digits without underscores.
    let text: String
    let offset: SourceOffset

    /// How an error message calls it.
    var description: String {
        switch kind {
        case .data: "template data"
        case .blockBegin: "begin of statement block"
        case .blockEnd: "end of statement block"
        case .outputBegin: "begin of print statement"
        case .outputEnd: "end of print statement"
        case .name, .integer, .double: text
        case .string: "string"
        case .symbol(let symbol): symbol.rawValue
        case .end: "end of template"
        }
    }
}

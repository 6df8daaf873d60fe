/// The compiled form of a template: immutable, shared by all renderings.

/// A place in the template: a byte offset into the source with its newlines normalised.
typealias SourceOffset = Int32

/// A variable's number within one template.
typealias SymbolID = Int

enum Literal: Sendable {
    case none
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
}

final class Expression: Sendable {
    let kind: Kind
    let offset: SourceOffset
    /// Levels of the tree from here down, so that the parser can refuse what could not be walked safely.
    let depth: Int32

    init(_ kind: Kind, at offset: SourceOffset) {
        self.kind = kind
        self.offset = offset
        depth = 1 + kind.childDepth
    }

    enum Kind: Sendable {
        case literal(Literal)
        case name(SymbolID)
        case list([Expression])
        case tuple([Expression])
        case dictionary([(key: Expression, value: Expression)])
        case conditional(test: Expression, then: Expression, otherwise: Expression?)
        case and(Expression, Expression)
        case or(Expression, Expression)
        case not(Expression)
        case compare(Expression, [(operation: Comparison, right: Expression)])
        case binary(BinaryOperation, Expression, Expression)
        case negate(Expression)
        case plus(Expression)
        case concatenate([Expression])
        case attribute(Expression, String)
        case item(Expression, Expression)
        case slice(Expression?, Expression?, Expression?)
        case call(Expression, CallArguments)
        /// A nil operand stands for the captured text of a filter block; a nil filter is unknown, an error when run.
        case filter(Expression?, name: String, Filter?, CallArguments)
        case test(Expression, name: String, Test?, CallArguments)
    }
}

extension Expression.Kind {
    fileprivate var childDepth: Int32 {
        switch self {
        case .literal, .name: 0
        case .list(let items), .tuple(let items), .concatenate(let items): deepest(items)
        case .dictionary(let items): max(deepest(items.map(\.key)), deepest(items.map(\.value)))
        case .conditional(let test, let then, let otherwise): deepest([test, then, otherwise])
        case .and(let left, let right), .or(let left, let right), .binary(_, let left, let right),
            .item(let left, let right):
            max(left.depth, right.depth)
        case .not(let operand), .negate(let operand), .plus(let operand), .attribute(let operand, _): operand.depth
        case .compare(let left, let operations): max(left.depth, deepest(operations.map(\.right)))
        case .slice(let lower, let upper, let step): deepest([lower, upper, step])
        case .call(let callee, let arguments): max(callee.depth, deepest(arguments))
        case .filter(let operand, _, _, let arguments): max(operand?.depth ?? 0, deepest(arguments))
        case .test(let operand, _, _, let arguments): max(operand.depth, deepest(arguments))
        }
    }

    private func deepest(_ expressions: [Expression?]) -> Int32 { expressions.reduce(0) { max($0, $1?.depth ?? 0) } }

    private func deepest(_ arguments: CallArguments) -> Int32 {
        deepest(arguments.positional + arguments.keywords.map(\.value) + [arguments.spread, arguments.keywordSpread])
    }
}

enum Comparison: Sendable { case equal, notEqual, less, lessOrEqual, greater, greaterOrEqual, `in`, notIn }

enum BinaryOperation: String, Sendable {
    case add = "+"
    case subtract = "-"
    case multiply = "*"
    case divide = "/"
    case floorDivide = "//"
    case modulo = "%"
    case power = "**"
}

struct CallArguments: Sendable {
    var positional: [Expression] = []
    var keywords: [(name: String, value: Expression)] = []
    var spread: Expression?
    var keywordSpread: Expression?
}

indirect enum AssignmentTarget: Sendable {
    case name(SymbolID)
    case tuple([AssignmentTarget])
    case attribute(namespace: SymbolID, name: String)
}

enum Statement: Sendable {
    case text(String)
    case output(Expression)
    case branch([(test: Expression, body: [Statement])], otherwise: [Statement])
    case loop(ForLoop)
    case set(AssignmentTarget, Expression)
    /// The filter's innermost operand is nil and stands for the captured text.
    case setBlock(AssignmentTarget, filter: Expression?, body: [Statement])
    case macro(Macro)
    case callBlock(Macro, call: Expression)
    case filterBlock(Expression, body: [Statement])
    case with([(target: AssignmentTarget, value: Expression)], body: [Statement])
    case autoescape(Expression, body: [Statement])
    case generation([Statement])
    case block(TemplateBlock)
    case leaveLoop
    case nextIteration
    /// `extends`, `include`, `import`: there is nothing to load from, so reaching one is an error, as in transformers.
    case load(Expression)
}

final class ForLoop: Sendable {
    let target: AssignmentTarget
    let iterable: Expression
    let condition: Expression?
    let isRecursive: Bool
    let body: [Statement]
    let otherwise: [Statement]
    let loopSymbol: SymbolID

    init(
        target: AssignmentTarget, iterable: Expression, condition: Expression?, isRecursive: Bool, body: [Statement],
        otherwise: [Statement], loopSymbol: SymbolID
    ) {
        self.target = target
        self.iterable = iterable
        self.condition = condition
        self.isRecursive = isRecursive
        self.body = body
        self.otherwise = otherwise
        self.loopSymbol = loopSymbol
    }
}

/// `{% macro %}`, and the body of a `{% call %}` block, which is a macro named "caller".
final class Macro: Sendable {
    struct Parameter: Sendable {
        let name: String
        let symbol: SymbolID
        let defaultValue: Expression?
    }

    let name: String
    let symbol: SymbolID
    let parameters: [Parameter]
    let body: [Statement]
    /// Set where the body reads the special variable of that name.
    let caller: SymbolID?
    let keywordRest: SymbolID?
    let positionalRest: SymbolID?

    init(
        name: String, symbol: SymbolID, parameters: [Parameter], body: [Statement], caller: SymbolID?,
        keywordRest: SymbolID?, positionalRest: SymbolID?
    ) {
        self.name = name
        self.symbol = symbol
        self.parameters = parameters
        self.body = body
        self.caller = caller
        self.keywordRest = keywordRest
        self.positionalRest = positionalRest
    }
}

final class TemplateBlock: Sendable {
    let name: String
    let body: [Statement]
    init(name: String, body: [Statement]) {
        self.name = name
        self.body = body
    }
}

struct TemplateTree: Sendable {
    let body: [Statement]
    /// Names by ``SymbolID``.
    let symbols: [String]
    let symbolIDs: [String: SymbolID]
    let blocks: [String: TemplateBlock]
    let hasGeneration: Bool
}

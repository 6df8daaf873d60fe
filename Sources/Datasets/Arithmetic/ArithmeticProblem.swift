/// A sum, difference or product of small integers, or several of them in a row: `3 + 4`, `2 + 7 - 5`.
public struct ArithmeticProblem: Hashable, Sendable {
    public enum Operator: Hashable, Sendable, CaseIterable {
        case add, subtract, multiply
    }

    /// At least two, and one more than operators.
    public let operands: [Int]
    public let operators: [Operator]

    public init(_ operands: [Int], _ operators: [Operator]) {
        precondition(operands.count == operators.count + 1 && !operators.isEmpty, "operands and operators do not match")
        self.operands = operands
        self.operators = operators
    }

    /// The value, products before sums.
    public var answer: Int { products.reduce(0) { $0 + ($1.isNegative ? -1 : 1) * $1.factors.reduce(1, *) } }

    /// The problem with a space on each side of each sign.
    public func text(multiplication: String = "×") -> String {
        var text = String(operands[0])
        for (index, sign) in operators.enumerated() {
            switch sign {
            case .add: text += " + "
            case .subtract: text += " - "
            case .multiply: text += " \(multiplication) "
            }
            text += String(operands[index + 1])
        }
        return text
    }

    /// The same for all problems that differ only in the order of terms or of factors, as `3 + 4` and `4 + 3` do.
    var identity: [Product] { products.sorted() }

    struct Product: Hashable, Comparable {
        var isNegative: Bool
        /// In rising order.
        var factors: [Int]

        static func < (left: Product, right: Product) -> Bool {
            if left.isNegative != right.isNegative { return right.isNegative }
            return left.factors.lexicographicallyPrecedes(right.factors)
        }
    }

    private var products: [Product] {
        var products = [Product(isNegative: false, factors: [operands[0]])]
        for (sign, operand) in zip(operators, operands.dropFirst()) {
            if sign == .multiply {
                products[products.count - 1].factors.append(operand)
            } else {
                products.append(Product(isNegative: sign == .subtract, factors: [operand]))
            }
        }
        for index in products.indices { products[index].factors.sort() }
        return products
    }
}

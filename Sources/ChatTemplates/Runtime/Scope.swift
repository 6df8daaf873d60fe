/// The variables of one loop body, macro call, `with` or other inner block. Names that are not here are looked up in
/// the parent; the template's own level is the interpreter's table.
final class Scope {
    let parent: Scope?
    private var symbols: [SymbolID] = []
    private var values: [Value] = []

    init(parent: Scope?) { self.parent = parent }

    func lookup(_ symbol: SymbolID) -> Value? {
        for index in symbols.indices where symbols[index] == symbol { return values[index] }
        return nil
    }

    func set(_ symbol: SymbolID, _ value: Value) {
        if let index = symbols.firstIndex(of: symbol) {
            values[index] = value
        } else {
            symbols.append(symbol)
            values.append(value)
        }
    }

    func removeAll() {
        symbols.removeAll(keepingCapacity: true)
        values.removeAll(keepingCapacity: true)
    }
}

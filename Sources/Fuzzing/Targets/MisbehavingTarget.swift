/// Does what no parser may, one thing for each of its seeds: it shows that the harness notices.
struct MisbehavingTarget: FuzzTarget {
    static let name = "misbehaving"
    static let fileSuffixes = [".misbehaving"]

    init() {}

    private enum Deed: UInt8, CaseIterable { case fine, trap, hang, memory, stack, property, error }

    func seeds() -> [[UInt8]] { Deed.allCases.map { [$0.rawValue] } }

    func mutate(_ input: inout [UInt8], splicing other: [UInt8], _ random: inout FuzzRandom) { input = [0] }

    func run(_ input: [UInt8]) throws {
        switch input.first.flatMap(Deed.init) {
        case .fine, nil: return
        case .trap: _ = input[input.count + Int(input[0])]
        case .hang: while !input.isEmpty {}
        case .memory:
            var kept: [[UInt8]] = []
            while kept.count < 1 << 20 { kept.append([UInt8](unsafeUninitializedCapacity: 1 << 24) { $1 = 1 }) }
        case .stack: _ = try Self.descend(input, 0)
        case .property: try require(input.isEmpty, "this one is always broken")
        case .error: throw POSIXFailure("nothing", 0)
        }
    }

    @inline(never)
    private static func descend(_ input: [UInt8], _ depth: Int) throws -> Int {
        guard depth < 1 << 30 else { throw POSIXFailure("nothing", 0) }
        return try descend(input, depth + Int(input[0])) + depth
    }
}

internal import Checkpoints
internal import Models
internal import OrderedCollections
internal import TensorCore
internal import Tokenizers

/// A GGUF file: metadata, every tensor dequantised, the model's configuration and the tokenizer inside.
public struct GGUFTarget: FuzzTarget {
    public static let name = "gguf"
    public static let fileSuffixes = [".gguf"]
    private let file: TemporaryInput

    public init() throws { file = try TemporaryInput() }

    public func seeds() -> [[UInt8]] { ["gpt2", "llama"].map { GGUFWriter.llama(tokenizer: $0).file() } }

    public func seeds(fromFile path: String) throws -> [[UInt8]] { [GGUFWriter.cut(try GGUFFile(path: path)).file()] }

    public func mutate(_ input: inout [UInt8], splicing other: [UInt8], _ random: inout FuzzRandom) {
        guard random.chance(percent: 70) else { return ByteMutator.mutate(&input, splicing: other, &random) }
        // Numbers and strings of the header, wherever they are.
        let fields = GGUFFields(input)
        guard !fields.numbers.isEmpty else { return ByteMutator.mutate(&input, splicing: other, &random) }
        switch random.below(4) {
        case 0 where !fields.strings.isEmpty:
            // A string becomes another one, its length right again.
            let string = random.pick(fields.strings)
            let donor = random.chance(percent: 50) ? GGUFFields(other).strings : fields.strings
            var content =
                donor.isEmpty ? [] : Array((donor == fields.strings ? input : other)[safe: random.pick(donor)])
            if random.chance(percent: 30) { ByteMutator.mutate(&content, splicing: Array(input.prefix(64)), &random) }
            input.replaceSubrange(string, with: content)
            ByteMutator.put(UInt64(content.count), width: 8, at: string.lowerBound - 8, in: &input)
        case 1:
            let place = random.pick(fields.numbers)
            let low = input[place.lowerBound]
            input[place.lowerBound] = low &+ UInt8(truncatingIfNeeded: random.below(9) - 4)
        default:
            let place = random.pick(fields.numbers)
            ByteMutator.put(random.pick(ByteMutator.interesting), width: place.count, at: place.lowerBound, in: &input)
        }
    }

    public func run(_ input: [UInt8]) throws {
        try file.fill(input)
        let weights = try GGUFFile(path: file.path)
        for name in weights.tensors.keys {
            let entry = try weights.entry(named: name)
            for dtype in [DType.float32, .bfloat16] {
                let tensor = try weights.tensor(named: name, dtype: dtype)
                try require(tensor.shape == entry.shape && tensor.dtype == dtype, "'\(name)' is not as its entry says")
                _ = try tensor.withUnsafeBytes { $0.reduce(into: UInt64(0)) { $0 &+= UInt64($1) } }
            }
        }
        var failure: (any Error)?
        func attempt(_ body: () throws -> Void) throws {
            do {
                try body()
            } catch let error as BrokenProperty {
                throw error
            } catch {
                failure = failure ?? error
            }
        }
        try attempt {
            let model = try GGUFModel(weights)
            for name in model.tensorNames { try attempt { _ = try model.tensor(named: name) } }
            _ = try model.config.rope()
            _ = model.config.text
        }
        try attempt {
            let stored = try GGUFTokenizerMetadata(weights)
            try TokenizerExercise.run(
                Tokenizer(
                    gguf: GGUFVocabulary(
                        model: stored.model, pre: stored.pre, tokens: stored.tokens,
                        tokenTypes: stored.types.map { Int32(truncatingIfNeeded: $0) }, merges: stored.merges,
                        scores: stored.scores.isEmpty ? nil : stored.scores, bosID: stored.bosID, eosID: stored.eosID,
                        padID: stored.padID, unknownID: stored.unknownID, addsBOS: stored.addsBOS ?? false,
                        addsEOS: stored.addsEOS ?? false, addsSpacePrefix: stored.addsSpacePrefix ?? true)))
        }
        if let failure { throw failure }
    }
}

extension [UInt8] {
    fileprivate subscript(safe range: Range<Int>) -> ArraySlice<UInt8> { self[range.clamped(to: indices)] }
}

/// Where a GGUF header has its numbers and strings; stops at the first thing it cannot make out.
private struct GGUFFields {
    private(set) var numbers: [Range<Int>] = []
    /// Contents, behind their 8-byte lengths.
    private(set) var strings: [Range<Int>] = []
    private let bytes: [UInt8]
    private var position = 4
    private static let widths: [UInt32: Int] = [
        0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8,
    ]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        guard number(4) != nil, let tensors = number(8), let pairs = number(8) else { return }
        for _ in 0..<min(pairs, 10_000) {
            guard string(), let type = number(4), value(UInt32(truncatingIfNeeded: type)) else { return }
        }
        for _ in 0..<min(tensors, 10_000) {
            guard string(), let rank = number(4), rank < 16 else { return }
            for _ in 0..<rank { guard number(8) != nil else { return } }
            guard number(4) != nil, number(8) != nil else { return }
        }
    }

    private mutating func number(_ width: Int) -> UInt64? {
        guard position + width <= bytes.count else { return nil }
        numbers.append(position..<position + width)
        defer { position += width }
        return bytes[position..<position + width].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private mutating func string() -> Bool {
        guard let length = number(8), length <= UInt64(bytes.count - position) else { return false }
        strings.append(position..<position + Int(length))
        position += Int(length)
        return true
    }

    private mutating func value(_ type: UInt32) -> Bool {
        if let width = Self.widths[type] { return number(width) != nil }
        if type == 8 { return string() }
        guard type == 9, let element = number(4), let count = number(8), count < 100_000 else { return false }
        if let width = Self.widths[UInt32(truncatingIfNeeded: element)] {
            guard width * Int(count) <= bytes.count - position else { return false }
            // One of them will do.
            if count > 0 { numbers.append(position..<position + width) }
            position += width * Int(count)
            return true
        }
        for _ in 0..<count { guard value(UInt32(truncatingIfNeeded: element)) else { return false } }
        return true
    }
}

public import OrderedCollections
public import TensorCore

/// The packed weights of a GPTQ or AWQ checkpoint, which stand in its tensor table as `X.qweight`, `X.qzeros`, `X.scales` and
/// perhaps `X.g_idx`, seen as the weights `X.weight` that they are.
public struct PackedWeights: Sendable {
    /// One packed weight; its tensors have been checked to fit one another.
    public struct Module: Sendable, Hashable {
        /// Without a part's ending.
        public let name: String
        public let outputs: Int, inputs: Int, groups: Int
        /// Whether the checkpoint says of each input which group it is in.
        let hasGroupIndex: Bool

        /// The tensors that it is made of, where the checkpoint has them all.
        public var partNames: [String] { PackedWeights.parts.map { name + $0 } }
    }

    /// A tensor's type and shape.
    public typealias Header = (dtype: DType, shape: [Int])

    public let format: PackedFormat
    /// By the name of the weight, `X.weight`.
    public let modules: OrderedDictionary<String, Module>
    /// Every tensor that is no part of a packed weight, and every packed weight. Not among them are biases of zero beside packed
    /// weights: old checkpoints carry them for layers that have none.
    public let tensorNames: [String]

    fileprivate static let parts = [".qweight", ".qzeros", ".scales", ".g_idx"]

    /// - Parameter isZero: whether every element of a small tensor is zero.
    /// - Throws: `CheckpointError`, which names the tensor: `missingTensor`, or `malformed` for types and shapes that do not fit one
    ///   another.
    public init(
        _ format: PackedFormat, place: String, names: [String], header: (String) throws -> Header,
        isZero: (String) throws -> Bool
    ) throws {
        self.format = format
        let known = Set(names)
        var modules: OrderedDictionary<String, Module> = [:]
        for name in names where name.hasSuffix(".qweight") {
            let stem = String(name.dropLast(".qweight".count))
            guard !known.contains(stem + ".weight") else {
                throw CheckpointError(.duplicate, place, "'\(stem)' has a packed weight and an unpacked one")
            }
            modules[stem + ".weight"] = try Self.module(stem, format, place, known, header)
        }
        var hidden = Set(modules.values.flatMap(\.partNames))
        for module in modules.values where known.contains(module.name + ".bias") {
            if try isZero(module.name + ".bias") { hidden.insert(module.name + ".bias") }
        }
        tensorNames = names.filter { !hidden.contains($0) } + modules.keys
        self.modules = modules
    }

    private static func module(
        _ stem: String, _ format: PackedFormat, _ place: String, _ known: Set<String>,
        _ header: (String) throws -> Header
    ) throws -> Module {
        for part in parts.dropLast() where !known.contains(stem + part) {
            throw CheckpointError(
                .missingTensor, place, "the packed weight '\(stem)' lacks '\(stem + part)'",
                remedy: "fetch the model again")
        }
        func matrix(_ part: String, _ isRight: (DType) -> Bool, _ wanted: String) throws -> (rows: Int, columns: Int) {
            let (dtype, shape) = try header(stem + part)
            guard isRight(dtype), shape.count == 2, shape[0] > 0, shape[1] > 0 else {
                throw CheckpointError(
                    .malformed, place,
                    "tensor '\(stem + part)' is \(dtype)\(shape); it should be \(wanted) [rows, columns]")
            }
            return (shape[0], shape[1])
        }
        let codes = try matrix(".qweight", { $0 == .int32 }, "int32")
        let zeros = try matrix(".qzeros", { $0 == .int32 }, "int32")
        let scales = try matrix(".scales", { [.float16, .bfloat16, .float32].contains($0) }, "float")
        let packed = (codes: format.method == .gptq ? codes.rows : codes.columns, count: format.perWord)
        // Shapes of a file fit in its bytes, so that no product of these overflows.
        let inputs = format.method == .gptq ? packed.codes * packed.count : codes.rows
        let outputs = format.method == .gptq ? codes.columns : packed.codes * packed.count
        let group = format.group ?? inputs, groups = (inputs + group - 1) / group
        guard scales == (groups, outputs), zeros.rows == groups,
            zeros.columns * packed.count == (outputs + packed.count - 1) / packed.count * packed.count
        else {
            throw CheckpointError(
                .malformed, place,
                "the packed weight '\(stem)' of \(outputs) outputs and \(inputs) inputs has scales \([scales.rows, scales.columns]) "
                    + "and zeros \([zeros.rows, zeros.columns]); groups of \(group) ask for \([groups, outputs]) and "
                    + "\([groups, (outputs + packed.count - 1) / packed.count])",
                remedy: "group_size in quantization_config may be wrong")
        }
        let hasGroupIndex = known.contains(stem + ".g_idx")
        if hasGroupIndex {
            let (dtype, shape) = try header(stem + ".g_idx")
            guard format.method == .gptq, dtype == .int32, shape == [inputs] else {
                throw CheckpointError(
                    .malformed, place, "tensor '\(stem).g_idx' is \(dtype)\(shape); GPTQ has int32[\(inputs)] here")
            }
        }
        return Module(name: stem, outputs: outputs, inputs: inputs, groups: groups, hasGroupIndex: hasGroupIndex)
    }
}

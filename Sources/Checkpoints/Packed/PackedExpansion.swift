internal import Dispatch
internal import TensorCore

/// Turns packed codes into the numbers that they stand for: (code - zero) · scale in float32, exact for scales of 16 bits.
struct PackedExpansion {
    private let format: PackedFormat
    private let module: PackedWeights.Module
    /// int32: GPTQ `[inputs / perWord, outputs]`, AWQ `[inputs, outputs / 8]`.
    private let codes: Tensor
    /// `[groups, outputs]` each, row-major.
    private let zeros: [Float], scales: [Float]
    /// The group of each input.
    private let groupOf: [Int32]

    /// The outputs of an AWQ word, from its lowest bits up.
    private static let awqOrder = [0, 2, 4, 6, 1, 3, 5, 7]

    /// - Throws: `CheckpointError.malformed` for an input whose group there is not.
    init(_ module: PackedWeights.Module, _ format: PackedFormat, _ model: SafetensorsModel) throws {
        self.format = format
        self.module = module
        codes = try model.tensor(named: module.name + ".qweight").contiguous()
        scales = try model.tensor(named: module.name + ".scales").values(Float.self)
        zeros = Self.zeros(try model.tensor(named: module.name + ".qzeros").values(Int32.self), module, format)
        if module.hasGroupIndex {
            groupOf = try model.tensor(named: module.name + ".g_idx").values(Int32.self)
            if let bad = groupOf.first(where: { $0 < 0 || $0 >= module.groups }) {
                throw CheckpointError(
                    .malformed, model.folder,
                    "tensor '\(module.name).g_idx' names group \(bad), but there are \(module.groups)")
            }
        } else {
            let group = format.group ?? module.inputs
            groupOf = (0..<module.inputs).map { Int32($0 / group) }
        }
    }

    private static func zeros(_ words: [Int32], _ module: PackedWeights.Module, _ format: PackedFormat) -> [Float] {
        let perWord = format.perWord, mask = UInt32(1 << format.bits) - 1
        let wordsInRow = (module.outputs + perWord - 1) / perWord
        var zeros = [Float](repeating: 0, count: module.groups * module.outputs)
        for group in 0..<module.groups {
            for output in 0..<module.outputs {
                let word = UInt32(bitPattern: words[group * wordsInRow + output / perWord])
                let code = word >> shift(of: output % perWord, format) & mask
                // As the first format's kernels do: the sum has no more bits than a code.
                zeros[group * module.outputs + output] = Float((code + UInt32(format.zeroOffset)) & mask)
            }
        }
        return zeros
    }

    /// Where in its word the code of an output lies.
    private static func shift(of place: Int, _ format: PackedFormat) -> UInt32 {
        let slot = format.method == .awq ? awqOrder.firstIndex(of: place)! : place
        return UInt32(slot * format.bits)
    }

    /// Fills `[outputs, inputs]`, of any floating-point type and on any device.
    func fill(_ destination: Tensor) throws {
        // Rows at a time, so that the copy in float32 stays small beside the weight.
        let step = max(64, (1 << 24) / module.inputs / 64 * 64)
        for first in stride(from: 0, to: module.outputs, by: step) {
            let rows = first..<min(first + step, module.outputs)
            try destination.narrowed(0, rows).copy(from: expanded(rows))
        }
    }

    private func expanded(_ rows: Range<Int>) throws -> Tensor {
        let block = 64, blocks = (rows.count + block - 1) / block
        let whole = try Tensor.empty([rows.count, module.inputs])
        try whole.withUnsafeMutableBytes { out in
            try codes.withUnsafeBytes { words in
                let memory = Memory(
                    words: words.bindMemory(to: UInt32.self), out: out.bindMemory(to: Float.self), expansion: self)
                let work: @Sendable (Int) -> Void = { index in
                    let first = rows.lowerBound + index * block
                    memory.expansion.expand(
                        first..<min(first + block, rows.upperBound), memory.words,
                        memory.out.baseAddress! + index * block * memory.expansion.module.inputs)
                }
                if blocks == 1 { work(0) } else { DispatchQueue.concurrentPerform(iterations: blocks, execute: work) }
            }
        }
        return whole
    }

    /// The workers write disjoint rows; the tensor inside is not touched by them.
    private struct Memory: @unchecked Sendable {
        let words: UnsafeBufferPointer<UInt32>
        let out: UnsafeMutableBufferPointer<Float>
        let expansion: PackedExpansion
    }

    private func expand(_ rows: Range<Int>, _ words: UnsafeBufferPointer<UInt32>, _ out: UnsafeMutablePointer<Float>) {
        let inputs = module.inputs, outputs = module.outputs, perWord = format.perWord
        let bits = UInt32(format.bits), mask = UInt32(1 << format.bits) - 1
        zeros.withUnsafeBufferPointer { zeros in
            scales.withUnsafeBufferPointer { scales in
                groupOf.withUnsafeBufferPointer { groupOf in
                    func value(_ code: UInt32, _ input: Int, _ output: Int) -> Float {
                        let place = Int(groupOf[input]) * outputs + output
                        return (Float(code & mask) - zeros[place]) * scales[place]
                    }
                    switch format.method {
                    case .gptq:
                        for row in 0..<inputs / perWord {
                            for output in rows {
                                var word = words[row * outputs + output]
                                let at = out + (output - rows.lowerBound) * inputs + row * perWord
                                for index in 0..<perWord {
                                    at[index] = value(word, row * perWord + index, output)
                                    word = word >> bits
                                }
                            }
                        }
                    case .awq:
                        for output in rows {
                            let shift = Self.shift(of: output % perWord, format), column = output / perWord
                            let at = out + (output - rows.lowerBound) * inputs
                            for input in 0..<inputs {
                                at[input] = value(words[input * (outputs / perWord) + column] >> shift, input, output)
                            }
                        }
                    }
                }
            }
        }
    }
}

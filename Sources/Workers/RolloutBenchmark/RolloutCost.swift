/// What one kernel must do: bytes through memory, each counted once, and floating-point operations, a multiply and an add being
/// two.
struct KernelWork: Sendable, Hashable {
    var bytes, operations: Double

    /// The least time on a machine: whichever of the two takes longer.
    func seconds(on machine: MachineSpeed) -> Double {
        max(bytes / machine.bandwidth, operations / machine.peak)
    }
}

/// What a device was measured to do at best.
public struct MachineSpeed: Sendable, Hashable {
    /// Bytes a second of a large copy within the device's memory, read and written bytes together.
    public var bandwidth: Double
    /// Operations a second of a large matrix product.
    public var peak: Double

    public init(bandwidth: Double, peak: Double) {
        self.bandwidth = bandwidth
        self.peak = peak
    }
}

/// The sizes of a dense decoder with grouped queries and a gated MLP, and what generating with it costs at the least: its matrix
/// products and its attention, each as fast as memory and arithmetic let it be, and nothing else.
///
/// Weights, keys, values and logits pass through memory. Activations between kernels do not count: those of a decode step stay
/// in the device's cache, and beside a prefill's arithmetic they weigh nothing.
struct DecoderSizes: Sendable, Hashable {
    var vocabulary, hidden, layers, queryHeads, keyValueHeads, headDim, intermediate: Int
    /// Of weights and logits.
    var bytesPerElement = 2
    /// Of keys and values.
    var cacheBytesPerElement = 2

    /// Outputs and inputs of each matrix product of one layer: queries, keys and values; attention's output; gate and up; down.
    var layerProducts: [(outputs: Int, inputs: Int)] {
        [
            ((queryHeads + 2 * keyValueHeads) * headDim, hidden), (hidden, queryHeads * headDim),
            (2 * intermediate, hidden), (hidden, intermediate),
        ]
    }

    /// Elements of every weight that is multiplied with.
    var productWeights: Int {
        layers * layerProducts.reduce(0) { $0 + $1.outputs * $1.inputs } + vocabulary * hidden
    }

    /// Bytes of keys and values of one token in one layer.
    var cacheBytesPerToken: Int { 2 * keyValueHeads * headDim * cacheBytesPerElement }

    func product(rows: Int, outputs: Int, inputs: Int) -> KernelWork {
        KernelWork(
            bytes: Double(outputs * inputs * bytesPerElement),
            operations: 2 * Double(rows) * Double(outputs) * Double(inputs))
    }

    /// The output projection, its logits written.
    func head(rows: Int) -> KernelWork {
        var work = product(rows: rows, outputs: vocabulary, inputs: hidden)
        work.bytes += Double(rows * vocabulary * bytesPerElement)
        return work
    }

    /// One layer's attention of one new token in each of `rows` sequences: `context` tokens each, the new one included, are
    /// read, and the new one written before.
    func decodeAttention(rows: Int, context: Int) -> KernelWork {
        KernelWork(
            bytes: Double(rows) * Double(context + 1) * Double(cacheBytesPerToken),
            operations: 4 * Double(rows) * Double(context) * Double(queryHeads * headDim))
    }

    /// One layer's causal attention of whole prompts: keys and values written and read once.
    func prefillAttention(prompts: Int, length: Int) -> KernelWork {
        let pairs = Double(length) * Double(length + 1) / 2
        return KernelWork(
            bytes: 2 * Double(prompts) * Double(length) * Double(cacheBytesPerToken),
            operations: 4 * Double(prompts) * pairs * Double(queryHeads * headDim))
    }

    func decodeStepSeconds(rows: Int, context: Int, on machine: MachineSpeed) -> Double {
        let products = layerProducts.reduce(0) {
            $0 + product(rows: rows, outputs: $1.outputs, inputs: $1.inputs).seconds(on: machine)
        }
        let attention = decodeAttention(rows: rows, context: context).seconds(on: machine)
        return Double(layers) * (products + attention) + head(rows: rows).seconds(on: machine)
    }

    /// All prompts in one pass, logits of each one's last token only.
    func prefillSeconds(prompts: Int, length: Int, on machine: MachineSpeed) -> Double {
        let products = layerProducts.reduce(0) {
            $0 + product(rows: prompts * length, outputs: $1.outputs, inputs: $1.inputs).seconds(on: machine)
        }
        let attention = prefillAttention(prompts: prompts, length: length).seconds(on: machine)
        return Double(layers) * (products + attention) + head(rows: prompts).seconds(on: machine)
    }
}

/// The least time that a case can take on a machine.
public struct RolloutLimit: Sendable, Hashable {
    public var prefillSeconds: Double
    /// Every step after the first token, which the prefill gives.
    public var decodeSeconds: Double
    public var decodeSteps: Int

    public var seconds: Double { prefillSeconds + decodeSeconds }
    public var meanStepSeconds: Double { decodeSteps == 0 ? 0 : decodeSeconds / Double(decodeSteps) }

    /// - Parameters:
    ///   - samples: answers of each prompt, which is prefilled once for them all.
    ///   - maxRows: sequences that decode at a time; more go one wave after the other.
    init(_ work: RolloutCase, samples: Int, maxRows: Int, sizes: DecoderSizes, machine: MachineSpeed) {
        prefillSeconds = sizes.prefillSeconds(prompts: work.prompts, length: work.input, on: machine)
        let rows = work.prompts * samples
        var waves = Array(repeating: maxRows, count: rows / maxRows)
        if rows % maxRows > 0 { waves.append(rows % maxRows) }
        decodeSteps = waves.count * (work.output - 1)
        decodeSeconds = 0
        for (rows, count) in Dictionary(grouping: waves, by: { $0 }).mapValues(\.count) {
            for step in 1..<max(1, work.output) {
                decodeSeconds +=
                    Double(count) * sizes.decodeStepSeconds(rows: rows, context: work.input + step, on: machine)
            }
        }
    }
}

import Models
import RolloutCore
import TensorCore

/// Runs the model over one step's inputs: eagerly, or on CUDA for decoding steps by graphs, one for each size of batch.
final class ModelRunner {
    let model: any CausalLanguageModel
    let cache: KeyValueCache
    let blockSize: Int
    let buffer: StepBuffer
    /// Tokens of the longest sequence that a graph must serve.
    private let longest: Int
    private var graphs: GraphPool?
    /// Whether the next step's hidden states are wanted, and they: `[T, C]`.
    var keepsHidden = false
    private(set) var hidden_TC: Tensor?
    /// The slot of what is computed only to fill up a batch.
    var trash: Int32 { Int32(cache.slotCount - blockSize) }

    init(
        model: any CausalLanguageModel, cache: KeyValueCache, blockSize: Int, buffer: StepBuffer, longest: Int,
        usesGraphs: Bool, largestBatch: Int
    ) {
        self.model = model
        self.cache = cache
        self.blockSize = blockSize
        self.buffer = buffer
        self.longest = longest
        graphs = usesGraphs && Self.canCapture(model) ? GraphPool(device: model.device, largest: largestBatch) : nil
    }

    /// Whether a decoding step of the model is nothing but launches: no experts, whose rows the host counts, and attention by a
    /// kernel of ours. Collectives between ranks are not captured.
    static func canCapture(_ model: any CausalLanguageModel) -> Bool {
        let shape = model.shape
        return model.device.isCUDA && model.dtype == .bfloat16 && model.experts == nil
            && model.parallel.tensor == nil && shape.headDim == shape.valueHeadDim
            && [64, 96, 128, 256].contains(shape.headDim)
    }

    /// Blocks that hold sequences.
    var blockCount: Int { cache.slotCount / blockSize - 1 }
    /// Of the cache and the buffers, without the graphs.
    var byteCount: Int { cache.byteCount + buffer.byteCount }

    var graphCount: Int { graphs?.count ?? 0 }

    /// What they were captured on is no more.
    func forgetGraphs() { graphs?.forget() }

    /// Rows that a decoding step of `count` rows is filled up to.
    func padded(_ count: Int) -> Int { graphs?.batch(for: count) ?? count }

    /// Logits `[draws, V]` of a step, in the order of its draws; those of filling rows are left out. They last until the next step.
    func logits(_ inputs: StepInputs) throws -> Tensor {
        try buffer.send(inputs)
        guard inputs.isDecode, let graphs, !(tracksExtents && !model.shape.sharesRotary(upTo: inputs.longestRow)) else {
            return try forward(inputs)
        }
        let all = try graphs.logits(batch: inputs.layout.draws) { try forward(inputs) }
        return inputs.draws.count == inputs.layout.draws ? all : try all.narrowed(0, 0..<inputs.draws.count)
    }

    /// Whether the model's rotary frequencies depend on how long sequences are.
    var tracksExtents: Bool { model.shape.rotaryLimit != nil }

    private func forward(_ inputs: StepInputs) throws -> Tensor {
        let layout = inputs.layout
        var ids = try buffer.ints(layout.ids)
        if inputs.readsDrawn || inputs.isDecode {
            ids = try Tensor.selectIDs(known: ids, source: buffer.ints(layout.sources), previous: buffer.drawn)
        }
        let attention = try attention(inputs)
        let hidden_TC = try model.hiddenStates(ids: ids, positions: buffer.ints(layout.positions), attention: attention)
        if inputs.isDecode { return try model.logits(hidden_TC) }
        self.hidden_TC = keepsHidden ? hidden_TC : nil
        return try model.logits(hidden_TC.indexSelect(0, buffer.ints(layout.drawnFrom)))
    }

    private func attention(_ inputs: StepInputs) throws -> PagedAttention {
        let layout = inputs.layout
        let tableEnd = layout.table + inputs.tableCount
        // A graph serves every later step of its size, whatever its sequences' lengths.
        let isCaptured = inputs.isDecode && graphs != nil
        let pages =
            layout.rows == 0
            ? nil
            : CachePages(
                table: try buffer.ints(layout.table..<(isCaptured ? buffer.capacity : tableEnd)),
                starts: try buffer.ints(layout.starts), lengths: try buffer.ints(layout.lengths),
                shift: blockSize.trailingZeroBitCount, longest: isCaptured ? longest : inputs.longestRow)
        let chunks =
            inputs.chunkTokens == 0
            ? nil
            : PagedAttention.Chunks(
                queries: SequenceOffsets(
                    offsets: try buffer.ints(layout.chunkQueries), longest: inputs.longestChunk),
                keys: SequenceOffsets(offsets: try buffer.ints(layout.chunkKeys), longest: inputs.longestChunkKeys),
                keySlots: try Tensor(inputs.keySlots, device: model.device))
        let prompts =
            inputs.promptLengths.isEmpty
            ? nil
            : PagedAttention.Prompts(
                lengths: inputs.promptLengths,
                offsets: SequenceOffsets(
                    offsets: try buffer.ints(layout.promptEnds), longest: inputs.promptLengths.max() ?? 0))
        return PagedAttention(
            cache: cache, slots: try buffer.ints(layout.slots), pages: pages, chunkTokens: inputs.chunkTokens,
            chunks: chunks, prompts: prompts, extents: inputs.extents)
    }

    /// Moves and copies blocks as a plan says; the host's cache is there where sequences are swapped.
    func move(_ plan: StepPlan, host: KeyValueCache?) throws {
        if let host {
            try host.copyBlocks(plan.swapsOut.map { ($0.from, $0.to) }, size: blockSize, from: cache)
            try cache.copyBlocks(plan.swapsIn.map { ($0.from, $0.to) }, size: blockSize, from: host)
        }
        // One after the other, as planned; those that do not touch one another together.
        var together: [(from: Int32, to: Int32)] = [], written: Set<Int32> = [], read: Set<Int32> = []
        for copy in plan.copies {
            if written.contains(copy.from) || read.contains(copy.to) || written.contains(copy.to) {
                try cache.copyBlocks(together, size: blockSize, from: cache)
                together = []
                written = []
                read = []
            }
            together.append((copy.from, copy.to))
            written.insert(copy.to)
            read.insert(copy.from)
        }
        try cache.copyBlocks(together, size: blockSize, from: cache)
    }
}

/// The graphs of decoding steps, captured when a size of batch is first wanted.
final class GraphPool {
    private struct Captured {
        let graph: CUDAGraph
        /// In the graphs' pool, which every replay writes over.
        let logits: Tensor
    }
    private let device: Device
    private let sizes: [Int]
    private var captured: [Int: Captured] = [:]
    private var isWarm = false

    /// - Parameter largest: rows of the largest batch; beyond it steps run eagerly.
    init(device: Device, largest: Int) {
        self.device = device
        var sizes: [Int] = [1, 2, 4]
        while let last = sizes.last, last < largest {
            sizes.append(last + (last < 16 ? 8 - last % 8 : last < 256 ? 16 : last < 512 ? 32 : 64))
        }
        self.sizes = sizes.map { min($0, largest) }
    }

    var count: Int { captured.count }
    func forget() { captured = [:] }

    /// The smallest size there is for so many rows.
    func batch(for rows: Int) -> Int { sizes.first { $0 >= rows } ?? rows }

    func logits(batch: Int, _ forward: () throws -> Tensor) throws -> Tensor {
        if let found = captured[batch] {
            try found.graph.replay()
            return found.logits
        }
        guard isWarm else {
            // Kernels are compiled and libraries set up outside of any capture.
            isWarm = true
            return try forward()
        }
        var logits: Tensor?
        let graph = try CUDAGraph(on: device, sharingPoolWith: captured.first?.value.graph) {
            logits = try forward().unowned()
        }
        guard let logits else { preconditionFailure("a capture without logits") }
        captured[batch] = Captured(graph: graph, logits: logits)
        try graph.replay()
        return logits
    }
}

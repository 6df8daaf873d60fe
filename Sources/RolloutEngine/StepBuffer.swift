import TensorCore

/// Where a step's inputs lie on the device, always at one place, and where its results come back to. On CUDA inputs go through
/// pinned memory, one of a few buffers in turn, so that nobody waits for the copy.
final class StepBuffer {
    /// Words of inputs.
    let capacity: Int
    let device: Device
    /// int32 and, the same memory, float32.
    private let words, floats: Tensor
    /// int32 `[2 * draws]`: the tokens that the newest step drew, then the bits of their log-probabilities.
    let drawn: Tensor
    private let drawnFloats: Tensor
    private let staging: [Tensor]
    /// When each staging buffer's copy is done: a step that draws nothing is never waited for, so its buffer may still be read.
    private var sent: [Sent?] = Array(repeating: nil, count: turns)
    private let results: [Tensor]
    private var turn = 0

    /// One more than the steps that may be under way.
    private static let turns = 3

    init(capacity: Int, draws: Int, device: Device) throws(TorchError) {
        self.capacity = capacity
        self.device = device
        words = try Tensor.empty([capacity], dtype: .int32, device: device)
        floats = try words.viewed(as: .float32)
        drawn = try Tensor.zeros([2 * draws], dtype: .int32, device: device)
        drawnFloats = try drawn.viewed(as: .float32)
        var staging: [Tensor] = [], results: [Tensor] = []
        if device.isCUDA {
            for _ in 0..<Self.turns {
                staging.append(try Tensor.empty([capacity], dtype: .int32, pinned: true))
                results.append(try Tensor.empty([2 * draws], dtype: .int32, pinned: true))
            }
        }
        self.staging = staging
        self.results = results
    }

    var byteCount: Int { words.byteCount + drawn.byteCount }

    /// Sends a step's inputs.
    func send(_ inputs: StepInputs) throws {
        let count = inputs.words.count
        precondition(count <= capacity, "a step of \(count) words in a buffer of \(capacity)")
        try sent[turn]?.event.synchronize()
        let target = device.isCUDA ? staging[turn] : words
        try target.withUnsafeMutableBytes { bytes in
            inputs.words.withUnsafeBytes { bytes.copyMemory(from: $0) }
        }
        guard device.isCUDA else { return }
        try words.narrowed(0, 0..<count).copy(from: target.narrowed(0, 0..<count), nonBlocking: true)
        sent[turn] = Sent(event: try DeviceEvent(on: device))
        turn = (turn + 1) % Self.turns
    }

    /// Holds an event, which an array cannot.
    private final class Sent {
        let event: DeviceEvent
        init(event: consuming DeviceEvent) { self.event = event }
    }

    func ints(_ range: Range<Int>) throws(TorchError) -> Tensor { try words.narrowed(0, range) }
    func floats(_ range: Range<Int>) throws(TorchError) -> Tensor { try floats.narrowed(0, range) }

    /// Draws from a step's logits `[draws, V]`; what is drawn is on its way back when this returns.
    func draw(_ logits: Tensor, _ layout: StepLayout, filtered: Bool) throws(TorchError) -> StepResult {
        let count = logits.size(0)
        var terms = SamplingTerms(
            temperatures: try floats(layout.temperatures.prefix(count)),
            uniforms: try floats(layout.uniforms.prefix(count)))
        if filtered {
            terms.filters = SamplingTerms.Filters(
                topK: try ints(layout.topK.prefix(count)), topP: try floats(layout.topP.prefix(count)),
                minP: try floats(layout.minP.prefix(count)))
        }
        try logits.draw(
            terms, tokens: drawn.narrowed(0, 0..<count), logProbs: drawnFloats.narrowed(0, count..<2 * count))
        let target = try results[turn].narrowed(0, 0..<2 * count)
        try target.copy(from: drawn.narrowed(0, 0..<2 * count), nonBlocking: true)
        return StepResult(words: target, event: try DeviceEvent(on: device))
    }
}

/// One step's drawn tokens and their log-probabilities, on their way to the host.
final class StepResult {
    private let words: Tensor
    private let event: DeviceEvent

    init(words: Tensor, event: consuming DeviceEvent) {
        self.words = words
        self.event = event
    }

    func wait() throws -> (tokens: [Int32], logProbs: [Float]) {
        try event.synchronize()
        return try words.withUnsafeBytes { bytes in
            let words = bytes.bindMemory(to: Int32.self), count = words.count / 2
            let logProbs = words.dropFirst(count).map { Float(bitPattern: UInt32(bitPattern: $0)) }
            if let row = logProbs.firstIndex(where: \.isNaN) {
                throw RolloutError(
                    .notFinite, "the logits of row \(row) of a step are not finite: weights have diverged")
            }
            return (Array(words.prefix(count)), logProbs)
        }
    }
}

import TensorCore

/// What training computes on CUDA by kernels of its own, forward and backward: attention over trees of segments in the orders that
/// take different paths, and the head.
extension SelfCheck {
    public func training() throws -> [Result] {
        try trees() + (try heads())
    }

    /// Lengths and parents; segments follow one another.
    private static func packed(_ runs: [(length: Int, parent: Int?)]) -> [PackedSegment] {
        var start = 0
        return runs.map { length, parent in
            defer { start += length }
            return PackedSegment(start: start, length: length, parent: parent)
        }
    }

    private func trees() throws -> [Result] {
        func prompts(_ count: Int, _ prompt: Int, _ answers: Int, _ answer: Int) -> [PackedSegment] {
            let roots = (0..<count).map { _ in (length: prompt, parent: Int?.none) }
            let leaves = (0..<count * answers).map { (length: answer, parent: Int?.some($0 / answers)) }
            return Self.packed(roots + leaves)
        }
        let ragged = Self.packed([
            (45, nil), (3, nil), (70, nil), (37, 0), (1, 0), (29, 2), (2, 3), (64, 3), (17, 5), (5, 7), (6, 7),
        ])
        let scattered = Self.packed([
            (45, nil), (37, 0), (2, 1), (64, 1), (5, 3), (6, 3), (1, 0), (3, nil), (70, nil), (29, 8), (17, 9),
        ])
        let plain = AttentionKind(scale: 0.1)
        // Even batches go to cuDNN where it is faster, the others to flash attention, once by gathering.
        return [
            try tree("a tree of segments", ragged, plain), try tree("a tree out of order", scattered, plain),
            try tree("a tree of segments, small heads", ragged, plain, headDim: 64, queryHeads: 14, keyHeads: 2),
            try tree("a tree of segments, heads of 96", ragged, plain, headDim: 96, queryHeads: 4, keyHeads: 4),
            try tree("even rows", Self.packed([(256, nil), (256, nil), (256, nil)]), plain),
            try tree(
                "even rows, one less", Self.packed([(191, nil), (191, nil)]), plain, headDim: 64, queryHeads: 14,
                keyHeads: 2),
            try tree("rows of two lengths", Self.packed([(256, nil), (128, nil), (128, nil)]), plain),
            try tree("even prompts and answers", prompts(2, 192, 3, 127), plain),
            try tree(
                "even prompts and answers, small heads", prompts(3, 128, 2, 128), plain, headDim: 64, queryHeads: 14,
                keyHeads: 2),
            try tree("prompts and ragged answers", Self.packed([(192, nil), (130, 0), (77, 0), (140, 0)]), plain),
            try tree("an even tree through a window", prompts(2, 128, 2, 128), .init(scale: 0.1, window: 50)),
            try tree(
                "even rows through a window", Self.packed([(256, nil), (256, nil)]), .init(scale: 0.1, window: 70)),
            try tree("a tree, soft-capped", ragged, .init(scale: 0.1, window: 60, softCap: 0.9)),
            // No fused kernel here takes heads of 36.
            try tree("a tree, odd heads", scattered, plain, headDim: 36, queryHeads: 4, keyHeads: 2),
        ]
    }

    private func tree(
        _ name: String, _ segments: [PackedSegment], _ kind: AttentionKind, headDim: Int = 128, queryHeads: Int = 12,
        keyHeads: Int = 4
    ) throws -> Result {
        let tokens = segments.reduce(0) { $0 + $1.length }, plan = try AttentionPlan(segments)
        // Queries, keys and values are parts of one tensor, as a fused projection gives them.
        return try compare("attention over " + name, [[tokens, queryHeads + 2 * keyHeads, headDim]]) { inputs in
            func heads(_ range: Range<Int>) throws -> Tensor { try inputs[0].narrowed(1, range) }
            return try [
                Tensor.packedAttention(
                    query: heads(0..<queryHeads), key: heads(queryHeads..<queryHeads + keyHeads),
                    value: heads(queryHeads + keyHeads..<queryHeads + 2 * keyHeads), plan: plan, kind: kind)
            ]
        }
    }

    private struct HeadCase {
        var name: String
        var vocabulary: Int
        var transform = LogitsTransform.identity
        var chunk: Int?
    }

    /// Vocabularies whose rows begin at multiples of 16 bytes and not, in one chunk and in several.
    private func heads() throws -> [Result] {
        let cases = [
            HeadCase(name: "5000 tokens", vocabulary: 5000),
            HeadCase(name: "4999 tokens, in chunks", vocabulary: 4999, chunk: 30),
            HeadCase(name: "1001 tokens, scaled", vocabulary: 1001, transform: .init(scale: 0.4)),
            HeadCase(
                name: "2003 tokens, soft-capped", vocabulary: 2003, transform: .init(scale: 1.3, softCap: 3), chunk: 41),
        ]
        return try cases.flatMap { one in
            let shapes = [[77, 64], [one.vocabulary, 64]]
            func targets(_ device: Device) throws -> Tensor {
                try Tensor((0..<77).map { Int64($0 * 131 % one.vocabulary) }, device: device)
            }
            return [
                try compare("head of " + one.name, shapes) { inputs in
                    let both = try Tensor.tokenLogProbs(
                        hidden: inputs[0], weight: inputs[1], targets: targets(inputs[0].device), temperature: 8,
                        transform: one.transform, chunk: one.chunk)
                    return [both.logProbs, both.entropies]
                },
                try compare("head at once, of " + one.name, shapes) { inputs in
                    let device = inputs[0].device
                    let g = try Tensor.arange(0..<77, dtype: .float32, device: device).multiplied(by: 0.37).sin()
                    let once = try Tensor.tokenLoss(
                        hidden: inputs[0], weight: inputs[1], targets: targets(device), logProbGrads: g,
                        entropyGrads: g.multiplied(by: -0.3), temperature: 8, transform: one.transform, chunk: one.chunk
                    )
                    // The weight has its gradient now; nothing is recorded.
                    return [once.logProbs, once.entropies, once.hiddenGrad]
                },
            ]
        }
    }
}

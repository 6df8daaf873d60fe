internal import TensorCore

/// Cuts the moves of all tensors into buckets.
enum ReshardBuckets {
    static func pack(_ steps: [ReshardPlanner.Step], rankCount: Int, _ options: ReshardPlan.Options) -> [ReshardPlan
        .Bucket]
    {
        var buckets: [ReshardPlan.Bucket] = []
        var open = ReshardPlan.Bucket()
        var sent = [Int](repeating: 0, count: rankCount), received = sent
        func close() {
            if !open.isEmpty { buckets.append(open) }
            open = ReshardPlan.Bucket()
            sent = Array(repeating: 0, count: rankCount)
            received = sent
        }
        for step in steps {
            for gather in step.gathers {
                let part = gather.byteCount / gather.ranks.count
                if gather.ranks.contains(where: { sent[$0] + part > options.bucketBytes }) { close() }
                open.gathers.append(gather)
                for rank in gather.ranks {
                    sent[rank] += part
                    received[rank] += gather.byteCount - part
                }
            }
            for move in pieces(step.moves, options) {
                if move.isLocal {
                    open.moves.append(move)
                    continue
                }
                let bytes = move.byteCount
                if max(sent[move.from], received[move.to]) + bytes > options.bucketBytes { close() }
                open.moves.append(move)
                sent[move.from] += bytes
                received[move.to] += bytes
            }
        }
        close()
        return buckets
    }

    /// Moves of at most a bucket's bytes, the first pieces of all before the second ones, so that no rank waits for another's.
    private static func pieces(_ moves: [ReshardPlan.Move], _ options: ReshardPlan.Options) -> [ReshardPlan.Move] {
        let split = moves.map { move in
            move.isLocal ? [move.box] : move.box.split(limit: max(1, options.bucketBytes / move.dtype.size))
        }
        let most = split.map(\.count).max() ?? 0
        if most <= 1 { return moves }
        return (0..<most).flatMap { piece in
            zip(moves, split).compactMap { move, boxes in
                piece < boxes.count
                    ? ReshardPlan.Move(
                        box: boxes[piece], from: move.from, held: move.held, to: move.to, wanted: move.wanted,
                        dtype: move.dtype)
                    : nil
            }
        }
    }
}

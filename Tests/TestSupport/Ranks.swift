public import Foundation

/// Runs `body` once for each rank of a job, each on a thread of its own, and waits for all. What the first rank that failed threw is
/// thrown again; give groups a timeout, so that the others end too.
public func onRanks(_ count: Int, _ body: @escaping @Sendable (_ rank: Int) throws -> Void) throws {
    let results = RankResults(count: count)
    for rank in 0..<count {
        let thread = Thread {
            results.finish(rank, Result { try body(rank) })
        }
        thread.stackSize = 16 << 20
        thread.start()
    }
    try results.wait()
}

private final class RankResults: @unchecked Sendable {
    private let condition = NSCondition()
    private var left: Int
    private var failure: (any Error)?

    init(count: Int) { left = count }

    func finish(_ rank: Int, _ result: Result<Void, any Error>) {
        condition.lock()
        defer { condition.unlock() }
        if case .failure(let error) = result, failure == nil { failure = error }
        left -= 1
        condition.broadcast()
    }

    func wait() throws {
        condition.lock()
        defer { condition.unlock() }
        while left > 0 { condition.wait() }
        if let failure { throw failure }
    }
}

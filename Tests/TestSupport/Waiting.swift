/// Waits until something holds. Counted are the pauses alone: time in which the pool's threads were busy with other tests is nobody's
/// fault here.
/// - Parameter time: of pauses, after which it is given up.
/// - Returns: whether it held in the end.
public func holds(
    within time: Duration = .seconds(30), every pause: Duration = .milliseconds(10),
    isolation: isolated (any Actor)? = #isolation, _ condition: () async throws -> Bool
) async rethrows -> Bool {
    var left = time
    while try await !condition() {
        guard left > .zero else { return false }
        try? await Task.sleep(for: pause)
        left -= pause
    }
    return true
}

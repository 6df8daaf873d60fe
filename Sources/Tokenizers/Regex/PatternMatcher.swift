/// The backtracking machine. Alternatives wait on its own stack, so that long texts cannot exhaust the thread's.
struct PatternMatcher {
    let text: UnsafeBufferPointer<UInt8>
    var stepsLeft = 0
    private var waiting: [Frame] = []
    private var registers: [Int]

    /// What to go back to: a step at a position, a loop that can give scalars back down to `floor`, or a register's
    /// former value (`step` is then -1 - register).
    private struct Frame {
        var step: Int32
        var position: Int
        var floor: Int
    }

    init(text: UnsafeBufferPointer<UInt8>, registerCount: Int) {
        self.text = text
        registers = [Int](repeating: -1, count: registerCount)
    }

    /// The end of the match that begins at `start`, or nil.
    mutating func match(
        steps: UnsafeBufferPointer<PatternStep>, sets: UnsafeBufferPointer<ScalarSet>, at first: Int, from start: Int
    ) throws -> Int? {
        let base = waiting.count
        defer { waiting.removeLast(waiting.count - base) }
        var step = first
        var position = start
        while true {
            stepsLeft -= 1
            if stepsLeft < 0 {
                throw TokenizerError(.patternTooSlow, "a pattern took over \(Pattern.stepLimit) steps on one match")
            }
            var hasFailed = false
            let current = steps[step]
            switch current.operation {
            case .set:
                if position < text.count {
                    let (value, length) = UTF8Scanner.scalar(in: text, at: position)
                    if sets[Int(current.a)].contains(value) {
                        position += length
                        step += 1
                    } else {
                        hasFailed = true
                    }
                } else {
                    hasFailed = true
                }
            case .split:
                waiting.append(Frame(step: current.b, position: position, floor: position))
                step = Int(current.a)
            case .jump: step = Int(current.a)
            case .loop, .possessiveLoop:
                var count: Int32 = 0
                var floor = position
                while position < text.count, count != current.c {
                    let (value, length) = UTF8Scanner.scalar(in: text, at: position)
                    guard sets[Int(current.a)].contains(value) else { break }
                    position += length
                    count += 1
                    if count == current.b { floor = position }
                }
                if count < current.b {
                    hasFailed = true
                } else {
                    step += 1
                    if position > floor, current.operation == .loop {
                        waiting.append(Frame(step: Int32(step), position: position, floor: floor))
                    }
                }
            case .lookAhead, .lookBehind:
                var origin: Int? = position
                if current.operation == .lookBehind { origin = back(Int(current.c), from: position) }
                var isFound = false
                if let origin { isFound = try match(steps: steps, sets: sets, at: step + 1, from: origin) != nil }
                if isFound != (current.b == 1) { step = Int(current.a) } else { hasFailed = true }
            case .atomic:
                if let end = try match(steps: steps, sets: sets, at: step + 1, from: position) {
                    position = end
                    step = Int(current.a)
                } else {
                    hasFailed = true
                }
            case .assertion:
                if holds(PatternNode.Assertion(rawValue: current.a)!, at: position) {
                    step += 1
                } else {
                    hasFailed = true
                }
            case .mark:
                let register = Int(current.a)
                waiting.append(Frame(step: -1 - current.a, position: registers[register], floor: 0))
                registers[register] = position
                step += 1
            case .checkProgress:
                // An empty round ends the loop where it stands, as Oniguruma's empty check does.
                if registers[Int(current.a)] == position { step += 2 } else { step += 1 }
            case .accept: return position
            }
            guard hasFailed else { continue }
            // Go back to the last alternative.
            var isResumed = false
            while waiting.count > base {
                let top = waiting.count - 1
                let frame = waiting[top]
                if frame.step < 0 {
                    registers[Int(-1 - frame.step)] = frame.position
                    waiting.removeLast()
                    continue
                }
                if frame.position > frame.floor {
                    position = UTF8Scanner.start(before: frame.position, in: text)
                    if position > frame.floor { waiting[top].position = position } else { waiting.removeLast() }
                } else {
                    position = frame.position
                    waiting.removeLast()
                }
                step = Int(frame.step)
                isResumed = true
                break
            }
            if !isResumed { return nil }
        }
    }

    private func back(_ scalars: Int, from position: Int) -> Int? {
        var result = position
        for _ in 0..<scalars {
            guard result > 0 else { return nil }
            result = UTF8Scanner.start(before: result, in: text)
        }
        return result
    }

    private func isWord(at position: Int) -> Bool {
        position >= 0 && position < text.count
            && UnicodeProperties.word.contains(UTF8Scanner.scalar(in: text, at: position).value)
    }

    private func holds(_ assertion: PatternNode.Assertion, at position: Int) -> Bool {
        func wordBefore() -> Bool { position > 0 && isWord(at: UTF8Scanner.start(before: position, in: text)) }
        switch assertion {
        case .lineStart: return position == 0 || text[position - 1] == 0x0A
        case .lineEnd: return position == text.count || text[position] == 0x0A
        case .textStart: return position == 0
        case .textEnd: return position == text.count
        case .textEndOrLastNewline:
            return position == text.count || position == text.count - 1 && text[position] == 0x0A
        case .wordBoundary: return wordBefore() != isWord(at: position)
        case .noWordBoundary: return wordBefore() == isWord(at: position)
        }
    }
}

/// What one worker answered.
public struct Answered<Answer: Sendable>: Sendable {
    public var worker: Int
    public var answer: Answer
    /// As the dispatch rule shared them out.
    public var rows: [Int]?
    public var speaks: Bool

    public init(worker: Int, answer: Answer, rows: [Int]? = nil, speaks: Bool = true) {
        self.worker = worker
        self.answer = answer
        self.rows = rows
        self.speaks = speaks
    }
}

/// How the answers of a group's workers come together.
public struct Collect<Answer: Sendable, Output: Sendable>: Sendable {
    /// Takes the answers of all workers that were asked, in the workers' order.
    public let join: @Sendable ([Answered<Answer>]) throws -> Output

    public init(_ join: @escaping @Sendable ([Answered<Answer>]) throws -> Output) { self.join = join }
}

extension Collect where Output == [Answer] {
    /// Every worker's answer, in their order.
    public static var all: Collect { Collect { $0.map(\.answer) } }
    /// The answers that count, in their workers' order.
    public static var speakers: Collect { Collect { $0.filter(\.speaks).map(\.answer) } }
}

extension Collect where Output == Answer {
    /// That of the first worker that speaks.
    public static var first: Collect {
        Collect { answers in
            guard let first = answers.first(where: \.speaks) else { throw WorkerCallError.noAnswer }
            return first.answer
        }
    }

    /// The answers that count, combined one after the other in their workers' order.
    public static func reduce(_ combine: @escaping @Sendable (Answer, Answer) throws -> Answer) -> Collect {
        Collect { answers in
            let counting = answers.filter(\.speaks).map(\.answer)
            guard let first = counting.first else { throw WorkerCallError.noAnswer }
            return try counting.dropFirst().reduce(first, combine)
        }
    }
}

extension Collect where Output == Void {
    /// Waits for all and drops what they say.
    public static var nothing: Collect { Collect { _ in } }
}

extension Collect {
    /// Rows put together; where the dispatch rule shared rows out, each comes to the place of the row it answers.
    public static func concat<Row>() -> Collect where Answer == [Row], Output == [Row] { concat { $0 } }

    /// The same of rows that were packed.
    public static func concat<Element>() -> Collect
    where Answer == PackedRows<Element>, Output == [[Element]] { concat { $0.rows } }

    /// The same of rows that are to be taken out of the answers.
    public static func concat<Row: Sendable>(
        _ rows: @escaping @Sendable (Answer) throws -> [Row]
    ) -> Collect where Output == [Row] {
        Collect { answers in
            let parts = try answers.filter(\.speaks).map {
                (places: $0.rows, rows: try rows($0.answer), worker: $0.worker)
            }
            guard parts.allSatisfy({ $0.places != nil }) else { return parts.flatMap(\.rows) }
            var joined = [Row?](repeating: nil, count: parts.reduce(0) { $0 + $1.rows.count })
            for part in parts {
                let places = part.places ?? []
                guard places.count == part.rows.count else {
                    throw WorkerCallError(
                        .badAnswer,
                        "worker \(part.worker) was given \(places.count) rows and answered \(part.rows.count)")
                }
                for (place, row) in zip(places, part.rows) where joined.indices.contains(place) { joined[place] = row }
            }
            let whole = joined.compactMap { $0 }
            guard whole.count == joined.count else {
                throw WorkerCallError(.badAnswer, "\(joined.count - whole.count) rows were given to no worker or twice")
            }
            return whole
        }
    }
}

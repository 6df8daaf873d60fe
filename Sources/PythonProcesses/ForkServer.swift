import FoundationEssentials

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A Python process that loads what is wanted once and forks a child for each piece of work, so that one that hangs or
/// dies takes nothing along.
///
/// It starts with the first child and again after it died. See ``ForkServerProgram`` for the program's side.
public actor ForkServer {
    public typealias ChildID = UInt32

    /// What comes of a child.
    public enum Event: Hashable, Sendable {
        case frame([UInt8])
        case ended(ChildEnd)
        /// It said nothing in time, and is killed.
        case timedOut
        /// The server is gone, and with it the child; what is known of why.
        case lost(String)
    }

    private struct Child {
        var events: [Event] = []
        var waiter: CheckedContinuation<Event, Never>?
        var timer: Task<Void, Never>?
        /// Counts what was waited for, so that a late timer hits nothing.
        var waits = 0
    }

    private struct Running {
        let number: Int
        let task: Task<Void, Never>
        let outgoing: AsyncStream<[UInt8]>.Continuation
        var group: Int32?
        var hello: [UInt8]?
    }

    private let process: PythonProcess
    private let startDeadline: Duration
    private let killGrace: Duration
    private var running: Running?
    private var starters: [CheckedContinuation<Result<[UInt8], PythonError>, Never>] = []
    private var children: [ChildID: Child] = [:]
    private var nextChild: ChildID = 1
    private var isClosed = false
    /// How often it was started.
    public private(set) var starts = 0

    /// - Parameters:
    ///   - startDeadline: for the program to become ready.
    ///   - killGrace: how long the server may take to end a child before it is ended itself, with all its children.
    public init(
        _ process: PythonProcess, startDeadline: Duration = .seconds(120), killGrace: Duration = .seconds(30)
    ) {
        self.process = process
        self.startDeadline = startDeadline
        self.killGrace = killGrace
    }

    deinit { running?.outgoing.finish() }

    /// Starts the server unless it runs.
    /// - Returns: what the program says of itself, as JSON.
    /// - Throws: ``PythonError``.
    @discardableResult
    public func start() async throws(PythonError) -> [UInt8] {
        if isClosed { throw PythonError(.shutDown, "the Python processes were shut down") }
        if let hello = running?.hello { return hello }
        if running == nil { launch() }
        return try await withCheckedContinuation { starters.append($0) }.get()
    }

    /// The server's process, while it runs; for tests of what happens when it is hurt.
    public var processIdentifier: Int32? { running?.group }

    // MARK: - Children

    /// Starts a child with a body for the program.
    /// - Throws: ``PythonError`` when the server does not start.
    public func open(_ body: [UInt8]) async throws(PythonError) -> ChildID {
        try await start()
        let child = nextChild
        nextChild &+= 1
        if nextChild == 0 { nextChild = 1 }
        children[child] = Child()
        tell(child, "O", body)
        return child
    }

    public func send(_ child: ChildID, _ body: [UInt8]) { tell(child, "S", body) }

    /// The next that comes of a child. One that says nothing in time is killed; after `.ended`, `.lost` or `.timedOut`
    /// there is nothing more of it. The caller's cancellation counts as its time being over.
    public func next(of child: ChildID, within time: Duration) async -> Event {
        await withTaskCancellationHandler {
            await wait(for: child, time)
        } onCancel: {
            Task { await self.expire(child, wait: nil) }
        }
    }

    private func wait(for child: ChildID, _ time: Duration) async -> Event {
        guard var found = children[child] else { return .lost("the process has ended before") }
        if !found.events.isEmpty {
            let event = found.events.removeFirst()
            if case .frame = event { children[child] = found } else { children[child] = nil }
            return event
        }
        guard !Task.isCancelled else {
            close(child)
            return .timedOut
        }
        precondition(found.waiter == nil, "two callers wait for one child")
        found.waits += 1
        let wait = found.waits
        found.timer = Task { [weak self] in
            guard (try? await Task.sleep(for: time)) != nil else { return }
            await self?.expire(child, wait: wait)
        }
        return await withCheckedContinuation { waiter in
            found.waiter = waiter
            children[child] = found
        }
    }

    /// - Parameter wait: nil for whatever is waited for.
    private func expire(_ child: ChildID, wait: Int?) {
        guard let found = children[child], let waiter = found.waiter, wait ?? found.waits == found.waits else { return }
        found.timer?.cancel()
        waiter.resume(returning: .timedOut)
        close(child)
    }

    /// Kills a child of which nothing more is wanted.
    public func close(_ child: ChildID) {
        guard let found = children[child] else { return }
        found.timer?.cancel()
        // Its end is waited for, by a watch over a server that does not obey.
        children[child] = nil
        dying.insert(child)
        tell(child, "K", [])
        let server = running?.number
        let grace = killGrace
        Task { [weak self] in
            try? await Task.sleep(for: grace)
            await self?.insist(child, server)
        }
    }

    private var dying: Set<ChildID> = []

    private func insist(_ child: ChildID, _ server: Int?) {
        guard dying.remove(child) != nil, let running, running.number == server, let group = running.group else {
            return
        }
        Self.endGroup(group)
    }

    private func deliver(_ event: Event, to child: ChildID) {
        if case .ended = event { dying.remove(child) }
        guard var found = children[child] else { return }
        if let waiter = found.waiter {
            found.timer?.cancel()
            found.waiter = nil
            if case .frame = event { children[child] = found } else { children[child] = nil }
            waiter.resume(returning: event)
        } else {
            found.events.append(event)
            children[child] = found
        }
    }

    private func tell(_ child: ChildID, _ letter: Unicode.Scalar, _ body: [UInt8]) {
        let head = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: child >> $0) } + [UInt8(ascii: letter)]
        running?.outgoing.yield(FrameReader.frame(head + body))
    }

    // MARK: - The server

    private static func endGroup(_ group: Int32) { kill(-group, SIGKILL) }

    /// The server's task outlives nobody's interest in it.
    private struct Weak: Sendable {
        weak let server: ForkServer?
    }

    private func launch() {
        starts += 1
        let number = starts, process = process, deadline = startDeadline
        let (frames, outgoing) = AsyncStream.makeStream(of: [UInt8].self)
        let me = Weak(server: self)
        let task = Task {
            let tail = StandardErrorTail()
            do {
                let (isLate, ending) = try await process.run(tail: tail) { channel in
                    await Self.converse(me, number, channel, frames, deadline)
                }
                await me.server?.ended(
                    number, isLate ? "it was not ready within \(deadline)\(tail.note)" : "it \(ending)\(tail.note)")
            } catch {
                await me.server?.ended(number, "cannot run '\(process.interpreter)': \(error)")
            }
        }
        running = Running(number: number, task: task, outgoing: outgoing)
    }

    private static func converse(
        _ me: Weak, _ number: Int, _ channel: consuming PythonProcess.Channel,
        _ frames: AsyncStream<[UInt8]>, _ deadline: Duration
    ) async -> Bool {
        let writer = channel.writer, group = channel.group
        await me.server?.began(number, group)
        var reader = channel.reader
        let isLate = await withTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                for await frame in frames {
                    guard await writer.write(frame) else { return }
                }
                guard !Task.isCancelled else { return }
                // Nobody speaks with it any more: let it end its children, and see that it does.
                _ = await writer.write(FrameReader.frame([0, 0, 0, 0, UInt8(ascii: "Q")]))
                try? await Task.sleep(for: .seconds(2))
                if !Task.isCancelled { Self.endGroup(group) }
            }
            let (hello, isLate) = await PythonProcess.within(deadline, killing: group) { await reader.next() }
            var next = hello
            while case .frame(let bytes) = next, await me.server?.take(number, bytes) ?? false {
                next = await reader.next()
            }
            await me.server?.gone(number)
            tasks.cancelAll()
            return isLate
        }
        return isLate
    }

    private func began(_ number: Int, _ group: Int32) {
        if running?.number == number { running?.group = group }
    }

    /// A frame of the server. False when it is none.
    private func take(_ number: Int, _ bytes: [UInt8]) -> Bool {
        guard running?.number == number, bytes.count >= 5 else { return false }
        let child = bytes[..<4].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        let body = Array(bytes[5...])
        switch Unicode.Scalar(bytes[4]) {
        case "R":
            running?.hello = body
            answer(.success(body))
        case "L": answer(.failure(PythonError(.doesNotLoad, String(decoding: body, as: UTF8.self))))
        case "F": deliver(.frame(body), to: child)
        case "E":
            guard let end = try? JSONDecoder().decode(ChildEnd.self, from: Data(body)) else { return false }
            deliver(.ended(end), to: child)
        default: return false
        }
        return true
    }

    private func answer(_ result: Result<[UInt8], PythonError>) {
        let waiting = starters
        starters = []
        for starter in waiting { starter.resume(returning: result) }
    }

    /// The process is about to be reaped: nothing may be sent to its group from now on.
    private func gone(_ number: Int) {
        if running?.number == number { running?.group = nil }
    }

    private func ended(_ number: Int, _ note: String) {
        guard running?.number == number else { return }
        running?.outgoing.finish()
        running = nil
        dying = []
        answer(.failure(PythonError(.died, "the Python process: \(note)")))
        for child in children.keys.sorted() { deliver(.lost("the Python process: \(note)"), to: child) }
    }

    /// Ends the server and all its children, and waits until it is gone. Nothing can be opened any more.
    public func shutdown() async {
        isClosed = true
        guard let running else { return }
        running.outgoing.finish()
        await running.task.value
    }
}

/// How a child ended.
public struct ChildEnd: Hashable, Sendable, Codable {
    public var exit: Int?
    public var signal: Int?
    /// Why there never was a process.
    public var failed: String?
    public var processorSeconds: Double?
    public var peakKilobytes: Int?
    /// What it wrote: its beginning where output is limited, else its end.
    public var output: String?
    /// Whether it wrote more than it may, and was killed for it.
    public var over: Bool?
    /// Whether it sent what is no frame, and was killed for it.
    public var garbage: Bool?
    /// Whether its time was up, and it was killed for it.
    public var late: Bool?

    enum CodingKeys: String, CodingKey {
        case exit, signal, failed, output, over, garbage, late
        case processorSeconds = "processor_seconds"
        case peakKilobytes = "peak_kilobytes"
    }

    public var description: String {
        let note = StandardErrorTail.note(output ?? "")
        if let failed { return failed }
        if garbage == true { return "sent what is no reply\(note)" }
        if let exit { return "\(PythonProcess.Ending.exited(exit))\(note)" }
        let ending = PythonProcess.Ending.signalled(signal ?? 0)
        if ending.isProcessorTime { return "used more processor time than it may\(note)" }
        if ending == .signalled(Int(SIGKILL)) { return "was killed by the system (out of memory?) or by itself\(note)" }
        return "\(ending)\(note)"
    }
}

/// Why Python processes cannot be used at all.
public struct PythonError: Error, Hashable, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        public let description: String
        public init(_ name: String) { description = name }

        /// The interpreter is not there or not executable.
        public static let noInterpreter = Code("no interpreter")
        /// The file or what it imports does not load.
        public static let doesNotLoad = Code("does not load")
        /// The process ended, or was never ready.
        public static let died = Code("died")
        public static let shutDown = Code("shut down")
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}

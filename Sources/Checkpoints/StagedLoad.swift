internal import Dispatch
internal import Synchronization
internal import TensorCore

/// Fills tensors from files: threads read ahead into a ring of buffers. What goes to the CPU they convert and put in its place
/// themselves, and what needs no conversion and comes through the page cache they read straight there. What goes to CUDA, or
/// is of a rare type, the caller's thread copies from the buffers: on CUDA they are page-locked, copies are queued, and types are
/// converted on the device.
struct StagedLoad {
    /// Enough to keep a disk array's queues full; most of the time they wait.
    static let threads = 8
    /// Half of them may be on their way to a device while every thread has one to fill.
    private static let slots = 24

    private let plan: LoadPlan
    private let destinations: [Tensor]
    private let readers: [FileReader]

    /// - Parameter destinations: contiguous.
    init(_ plan: LoadPlan, _ destinations: [Tensor], modes: [ReadMode]) throws {
        self.plan = plan
        self.readers = try zip(plan.files, modes).map { try FileReader(path: $0.path, mode: $1) }
        self.destinations = try destinations.map { try $0.detached().reshaped([$0.count]) }
    }

    /// - Throws: `CheckpointError` of the first read that failed, `TorchError`; what the destinations then hold is undefined.
    func run() throws -> LoadStatistics {
        let devices = Set(destinations.map(\.device)).subtracting([.cpu])
        let work = try plan.reads.map { try ReadJob($0, readers[$0.file], destinations) }
        let count = min(Self.slots, work.count)
        let ring = try (0..<count).map { _ in try StagingBuffer(pinned: !devices.isEmpty) }
        let queue = ReadQueue(work, buffers: ring.map(\.address))
        try withExtendedLifetime((ring, destinations)) {
            let group = DispatchGroup()
            for index in 0..<min(Self.threads, work.count) {
                // A serial queue of its own is a thread of its own: the shared pool has no more threads than cores.
                DispatchQueue(label: "fledge.load.\(index)").async(group: group) { queue.read() }
            }
            defer {
                queue.stop()
                group.wait()
            }
            try consume(queue, ring, devices)
        }
        var statistics = LoadStatistics(bytes: plan.bytes)
        for reader in readers { statistics.modes[reader.path] = reader.mode }
        return statistics
    }

    private func consume(_ queue: ReadQueue, _ ring: [StagingBuffer], _ devices: Set<Device>) throws {
        var queued: [Int] = []
        for _ in plan.reads.indices {
            let arrived = try queue.next()
            if let offset = arrived.offset {
                for piece in plan.reads[arrived.read].pieces {
                    let start = offset + piece.range.lowerBound - plan.reads[arrived.read].range.lowerBound
                    try copy(piece, from: ring[arrived.buffer], at: start, nonBlocking: !devices.isEmpty)
                }
            }
            queued.append(arrived.buffer)
            // A buffer is free again when the device has taken it: asked for half a ring at a time, while the other half fills.
            guard devices.isEmpty || queued.count > ring.count / 2 else { continue }
            for device in devices { try device.synchronize() }
            for buffer in queued { queue.release(buffer) }
            queued.removeAll(keepingCapacity: true)
        }
        for device in devices { try device.synchronize() }
    }

    private func copy(_ piece: LoadPlan.Piece, from buffer: StagingBuffer, at start: Int, nonBlocking: Bool) throws {
        let target = try destinations[piece.destination].narrowed(0, piece.elements)
        let address = buffer.address + start
        guard UInt(bitPattern: address) % UInt(piece.dtype.size) == 0 else {
            // Files need not align their tensors.
            for row in 0..<piece.rows {
                let bytes = UnsafeRawBufferPointer(
                    start: address + row * piece.stride * piece.dtype.size, count: piece.run * piece.dtype.size)
                let aligned = try Tensor(bytes: bytes, shape: [piece.run], dtype: piece.dtype)
                try target.narrowed(0, row * piece.run..<(row + 1) * piece.run).copy(from: aligned)
            }
            return
        }
        func staged(_ start: Int, _ count: Int) throws -> Tensor {
            try Tensor(
                borrowing: address + start * piece.dtype.size, shape: [count], dtype: piece.dtype, owner: buffer)
        }
        guard piece.rows > 1 else { return try target.copy(from: staged(0, target.count), nonBlocking: nonBlocking) }
        // What lies between the rows goes along, in one copy, and is left out on the device.
        let whole = try staged(0, piece.range.count / piece.dtype.size)
        let near = try Tensor.empty([whole.count], dtype: piece.dtype, device: target.device)
        try near.copy(from: whole, nonBlocking: nonBlocking)
        let last = (piece.rows - 1) * piece.run
        try target.narrowed(0, 0..<last).reshaped([piece.rows - 1, piece.run]).copy(
            from: near.narrowed(0, 0..<(piece.rows - 1) * piece.stride).reshaped([piece.rows - 1, piece.stride])
                .narrowed(1, 0..<piece.run))
        try target.narrowed(0, last..<target.count)
            .copy(from: near.narrowed(0, whole.count - piece.run..<whole.count))
    }
}

/// Memory that one read goes to.
private final class StagingBuffer {
    let address: UnsafeMutableRawPointer
    private let memory: Tensor

    init(pinned: Bool) throws {
        let size = FileReader.capacity(for: LoadPlan.readBytes)
        memory = try Tensor.empty([size + FileReader.alignment], dtype: .uint8, pinned: pinned)
        let base = try memory.withUnsafeMutableBytes { $0.baseAddress! }
        address = base.alignedUp(toMultipleOf: FileReader.alignment)
    }
}

/// One read as the threads see it, without tensors.
private struct ReadJob: @unchecked Sendable {
    // Unchecked for the addresses: each is written by the one thread that has the job, while `StagedLoad.run` keeps it alive.
    let reader: FileReader
    let range: Range<Int>
    /// Where each piece goes when the threads can put all of them in their places; else empty.
    private let places: [Place]

    private struct Place {
        let range: Range<Int>
        let address: UnsafeMutableRawPointer
        /// What the elements are in the file, when they have to be converted.
        let stored: GGMLType?
        let dtype: DType
        let rows: Int
        /// Bytes of a row in the file, from a row to the next there, and of a row where it goes.
        let run, stride, step: Int
    }

    init(_ read: LoadPlan.Read, _ reader: FileReader, _ destinations: [Tensor]) throws {
        self.reader = reader
        range = read.range
        let fits = read.pieces.allSatisfy { piece in
            let tensor = destinations[piece.destination]
            guard tensor.device == .cpu else { return false }
            // Files need not align their tensors, and converting asks for it.
            return tensor.dtype == piece.dtype
                || (Self.stored(piece.dtype) != nil && [.float32, .bfloat16].contains(tensor.dtype)
                    && piece.range.lowerBound % piece.dtype.size == 0)
        }
        places =
            fits
            ? try read.pieces.map { piece in
                let tensor = destinations[piece.destination]
                let address = try tensor.withUnsafeMutableBytes {
                    $0.baseAddress! + piece.elements.lowerBound * tensor.dtype.size
                }
                let stored = tensor.dtype == piece.dtype ? nil : Self.stored(piece.dtype)
                let size = piece.dtype.size
                return Place(
                    range: piece.range, address: address, stored: stored, dtype: tensor.dtype, rows: piece.rows,
                    run: piece.run * size, stride: piece.stride * size, step: piece.run * tensor.dtype.size)
            } : []
    }

    private static func stored(_ dtype: DType) -> GGMLType? {
        switch dtype {
        case .float32: .f32
        case .bfloat16: .bf16
        case .float16: .f16
        default: nil
        }
    }

    /// - Returns: where in `buffer` the range lies; nil when its pieces are in their places.
    func run(_ buffer: UnsafeMutableRawPointer) throws -> Int? {
        if places.isEmpty { return try reader.read(range, into: buffer) }
        if reader.mode != .direct, places.allSatisfy({ $0.stored == nil && $0.rows == 1 }) {
            for place in places { try reader.readCached(place.range, to: place.address) }
            return nil
        }
        let start = try reader.read(range, into: buffer)
        for place in places {
            let first = buffer + start + place.range.lowerBound - range.lowerBound
            for row in 0..<place.rows {
                let source = UnsafeRawBufferPointer(start: first + row * place.stride, count: place.run)
                let target = place.address + row * place.step
                if let stored = place.stored {
                    Dequantizer.convert(stored, source, into: target, dtype: place.dtype)
                } else {
                    target.copyMemory(from: source.baseAddress!, byteCount: source.count)
                }
            }
        }
        return nil
    }
}

/// Hands reads and buffers to the threads, and what they read to the consumer.
private final class ReadQueue: @unchecked Sendable {
    // Unchecked for the buffers' addresses; everything that changes is behind the mutex.
    struct Arrival {
        let read: Int
        let buffer: Int
        let offset: Int?
    }
    private struct State {
        var next = 0
        var free: [Int]
        var arrived: [Result<Arrival, any Error>] = []
        var isStopped = false
    }

    private let jobs: [ReadJob]
    private let buffers: [UnsafeMutableRawPointer]
    private let state: Mutex<State>
    private let freed = DispatchSemaphore(value: 0)
    private let arrivals = DispatchSemaphore(value: 0)

    init(_ jobs: [ReadJob], buffers: [UnsafeMutableRawPointer]) {
        self.jobs = jobs
        self.buffers = buffers
        state = Mutex(State(free: Array(buffers.indices)))
        for _ in buffers { freed.signal() }
    }

    /// A thread's work: reads until nothing is left.
    func read() {
        while true {
            freed.wait()
            let task = state.withLock { state -> (read: Int, buffer: Int)? in
                guard !state.isStopped, state.next < jobs.count, let buffer = state.free.popLast() else { return nil }
                defer { state.next += 1 }
                return (state.next, buffer)
            }
            guard let (read, buffer) = task else {
                // The next thread that waits is to see it too.
                freed.signal()
                return
            }
            let result = Result {
                Arrival(read: read, buffer: buffer, offset: try jobs[read].run(buffers[buffer]))
            }
            state.withLock { $0.arrived.append(result) }
            arrivals.signal()
        }
    }

    /// The next read that is done, in whatever order they end.
    func next() throws -> Arrival {
        arrivals.wait()
        return try state.withLock { $0.arrived.removeFirst() }.get()
    }

    func release(_ buffer: Int) {
        state.withLock { $0.free.append(buffer) }
        freed.signal()
    }

    func stop() {
        state.withLock { $0.isStopped = true }
        freed.signal()
    }
}

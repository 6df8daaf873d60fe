#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// What a worker has done, in memory that it shares with its supervisor, so that nothing is lost when it dies.
///
/// One process writes and one reads; a count that is one behind does not matter.
struct Progress: ~Copyable {
    private enum Field: Int {
        case number, started, executions, accepted, slowest, slowestNumber, peak, peakNumber, base
    }
    private static let size = 1 << 16
    private static let codes = 4096
    private static let slot = 128
    private let memory: UnsafeMutableRawPointer

    /// - Parameter isNew: makes the file; else the file of another process is opened.
    init(path: String, isNew: Bool) throws {
        let descriptor = open(path, isNew ? O_RDWR | O_CREAT | O_TRUNC : O_RDWR, 0o644)
        guard descriptor >= 0 else { throw System.Failure("open \(path)") }
        defer { close(descriptor) }
        if isNew {
            guard ftruncate(descriptor, off_t(Self.size)) == 0 else { throw System.Failure("ftruncate \(path)") }
        }
        guard let address = mmap(nil, Self.size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            address != MAP_FAILED
        else { throw System.Failure("mmap \(path)") }
        memory = address
        if isNew { self[.number] = -1 }
    }

    deinit { munmap(memory, Self.size) }

    private subscript(field: Field) -> Int64 {
        get { memory.load(fromByteOffset: field.rawValue * 8, as: Int64.self) }
        nonmutating set { memory.storeBytes(of: newValue, toByteOffset: field.rawValue * 8, as: Int64.self) }
    }

    // MARK: The worker's side

    func ready() { self[.base] = Int64(System.peakKiB) }

    func begin(_ number: Int) {
        self[.started] = System.now
        self[.number] = Int64(number)
    }

    /// - Parameter code: the error that refused the input; nil when it was taken.
    func end(_ number: Int, code: String?) {
        let taken = System.now - self[.started]
        if taken > self[.slowest] { (self[.slowest], self[.slowestNumber]) = (taken, Int64(number)) }
        let peak = Int64(System.peakKiB)
        if peak > self[.peak] { (self[.peak], self[.peakNumber]) = (peak, Int64(number)) }
        self[.executions] += 1
        if let code { count(code) } else { self[.accepted] += 1 }
        self[.number] = -1
    }

    private func count(_ code: String) {
        let name = Array(code.utf8.prefix(Self.slot - 9))
        for place in stride(from: Self.codes, to: Self.size, by: Self.slot) {
            let length = Int(memory.load(fromByteOffset: place, as: UInt8.self))
            let known = UnsafeRawBufferPointer(start: memory + place + 1, count: length)
            guard length == 0 || known.elementsEqual(name) else { continue }
            if length == 0 {
                (memory + place + 1).copyMemory(from: name, byteCount: name.count)
                memory.storeBytes(of: UInt8(name.count), toByteOffset: place, as: UInt8.self)
            }
            let counter = place + Self.slot - 8
            memory.storeBytes(
                of: memory.load(fromByteOffset: counter, as: Int64.self) + 1, toByteOffset: counter, as: Int64.self)
            return
        }
    }

    // MARK: The supervisor's side

    /// The input being run and how long it has taken so far, in seconds.
    var running: (number: Int, seconds: Double)? {
        let number = self[.number]
        guard number >= 0 else { return nil }
        return (Int(number), Double(System.now - self[.started]) / 1e9)
    }

    /// Says that no input is running: the worker that ran it is gone.
    func clear() { self[.number] = -1 }

    var executions: Int { Int(self[.executions]) }
    var accepted: Int { Int(self[.accepted]) }
    var slowest: (seconds: Double, number: Int) { (Double(self[.slowest]) / 1e9, Int(self[.slowestNumber])) }
    var peak: (kibibytes: Int, number: Int) { (Int(self[.peak]), Int(self[.peakNumber])) }
    var baseKiB: Int { Int(self[.base]) }

    var codeCounts: [String: Int] {
        var counts: [String: Int] = [:]
        for place in stride(from: Self.codes, to: Self.size, by: Self.slot) {
            let length = Int(memory.load(fromByteOffset: place, as: UInt8.self))
            guard length > 0 else { break }
            let name = UnsafeRawBufferPointer(start: memory + place + 1, count: length)
            counts[String(decoding: name, as: UTF8.self)] =
                Int(memory.load(fromByteOffset: place + Self.slot - 8, as: Int64.self))
        }
        return counts
    }
}

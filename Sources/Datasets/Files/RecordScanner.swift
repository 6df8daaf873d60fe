#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A record in passing: its bytes are good until the next one.
struct ScannedRecord {
    let bytes: UnsafeBufferPointer<UInt8>
    /// Where in the file the bytes are.
    let offset: Int64
    /// The line that the record begins on, from 1.
    let line: Int
}

/// Why records cannot be told apart.
struct SplitFailure: Error {
    let message: String
    let line: Int
}

/// Finds where records begin and end, in bytes that arrive piece by piece.
protocol RecordSplitter {
    /// The first byte that is still needed.
    var start: Int { get set }
    /// The first byte that was not looked at.
    var position: Int { get set }
    /// The line at `position`, from 1.
    var line: Int { get }

    /// The next record's bytes and line, with `start` and `position` behind it; nil when more bytes are needed.
    /// - Parameter isEnd: whether `bytes` reach to the end of the file.
    mutating func next(
        in bytes: UnsafeBufferPointer<UInt8>, isEnd: Bool
    ) throws(SplitFailure) -> (range: Range<Int>, line: Int)?
}

/// Finds records while a file streams by in large reads. Memory: 1 MiB, or twice the longest record.
struct RecordScanner<Splitter: RecordSplitter>: ~Copyable {
    private let descriptor: Int32
    private let path: String
    private var splitter: Splitter
    private var buffer: UnsafeMutableRawBufferPointer
    private var filled = 0
    /// Where in the file `buffer` begins.
    private var base: Int64 = 0

    init(descriptor: Int32, path: String, splitter: Splitter) {
        self.descriptor = descriptor
        self.path = path
        self.splitter = splitter
        buffer = .allocate(byteCount: 1 << 20, alignment: 16)
    }

    deinit { buffer.deallocate() }

    /// Goes on while `body` gives true.
    /// - Throws: `DatasetError`, and what `body` throws.
    mutating func forEach(_ body: (ScannedRecord) throws -> Bool) throws {
        var isEnd = false
        while true {
            while let record = try nextInBuffer(isEnd: isEnd) {
                if try !body(record) { return }
            }
            if isEnd { return }
            isEnd = try fill() == 0
        }
    }

    private mutating func nextInBuffer(isEnd: Bool) throws -> ScannedRecord? {
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<filled]).assumingMemoryBound(to: UInt8.self)
        do throws(SplitFailure) {
            guard let found = try splitter.next(in: bytes, isEnd: isEnd) else { return nil }
            return ScannedRecord(
                bytes: UnsafeBufferPointer(rebasing: bytes[found.range]), offset: base + Int64(found.range.lowerBound),
                line: found.line)
        } catch {
            throw DatasetError(.malformedRow, error.message, origin: RowOrigin(source: path, line: error.line))
        }
    }

    /// Reads more behind what is still needed.
    private mutating func fill() throws -> Int {
        let kept = filled - splitter.start
        if splitter.start > 0 {
            memmove(buffer.baseAddress!, buffer.baseAddress! + splitter.start, kept)
            base += Int64(splitter.start)
            splitter.position -= splitter.start
            splitter.start = 0
            filled = kept
        }
        if filled == buffer.count { try grow() }
        while true {
            let got = read(descriptor, buffer.baseAddress! + filled, buffer.count - filled)
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else {
                throw DatasetError(.unreadable, "cannot read '\(path)': \(String(cString: strerror(errno)))")
            }
            filled += got
            return got
        }
    }

    private mutating func grow() throws {
        guard buffer.count < RecordFile.maximumRecordLength else {
            throw DatasetError(
                .malformedRow, "the row is longer than \(RecordFile.maximumRecordLength >> 20) MiB",
                origin: RowOrigin(source: path, line: splitter.line))
        }
        let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * buffer.count, alignment: 16)
        larger.copyMemory(from: UnsafeRawBufferPointer(buffer))
        buffer.deallocate()
        buffer = larger
    }
}

let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

/// Lines that are not blank, without carriage returns and byte order mark.
struct LineSplitter: RecordSplitter {
    var start = 0
    var position = 0
    private(set) var line = 1

    mutating func next(
        in bytes: UnsafeBufferPointer<UInt8>, isEnd: Bool
    ) throws(SplitFailure) -> (range: Range<Int>, line: Int)? {
        while true {
            let rest = isEnd && start < bytes.count ? bytes.count : nil
            guard let end = bytes.firstIndex(of: UInt8(ascii: "\n"), from: position) ?? rest else {
                position = bytes.count
                return nil
            }
            let (from, number) = (start, line)
            start = min(end + 1, bytes.count)
            position = start
            line += 1
            if let range = trimmed(bytes, from..<end, isFirst: number == 1) { return (range, number) }
        }
    }

    private func trimmed(_ bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>, isFirst: Bool) -> Range<Int>? {
        var (start, end) = (range.lowerBound, range.upperBound)
        if isFirst, bytes[start..<end].starts(with: byteOrderMark) { start += byteOrderMark.count }
        if end > start, bytes[end - 1] == 0x0D { end -= 1 }
        let isBlank = bytes[start..<end].allSatisfy { $0 == 0x20 || $0 == 0x09 }
        return isBlank ? nil : start..<end
    }
}

extension UnsafeBufferPointer<UInt8> {
    func firstIndex(of byte: UInt8, from start: Int) -> Int? {
        guard start < count, let base = baseAddress, let found = memchr(base + start, Int32(byte), count - start) else {
            return nil
        }
        return UnsafeRawPointer(base).distance(to: found)
    }
}

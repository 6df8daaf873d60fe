#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A file with one JSON object on each line that is not blank. Keeps where the lines are, not the lines.
public final class JSONLinesFile: Sendable {
    /// A line longer than this many bytes is refused.
    public static let maximumLineLength = 256 << 20

    private struct Line {
        let offset: Int64
        let length: Int32
        /// Counted from 1, blank lines included.
        let number: Int32
    }

    public let path: String
    private let descriptor: Int32
    private let lines: [Line]

    /// Opens the file and reads it once.
    /// - Parameter inspect: sees each line's bytes in passing; what it throws ends the opening.
    /// - Throws: `DatasetError.unreadable`, `.malformedRow` for a line over the limit.
    public init(path: String, inspect: (UnsafeBufferPointer<UInt8>, RowOrigin) throws -> Void = { _, _ in }) throws {
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        self.path = path
        guard descriptor >= 0 else {
            lines = []
            throw DatasetError(.unreadable, "cannot open '\(path)': \(Self.systemMessage())")
        }
        var scanner = LineScanner(descriptor: descriptor, path: path)
        var found: [Line] = []
        do {
            try scanner.forEachLine { bytes, offset, number in
                found.append(Line(offset: offset, length: Int32(bytes.count), number: Int32(number)))
                try inspect(bytes, RowOrigin(source: path, line: number))
            }
        } catch {
            lines = []
            throw error
        }
        lines = found
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// Lines that are not blank.
    public var count: Int { lines.count }

    public func origin(at index: Int) -> RowOrigin { RowOrigin(source: path, line: Int(lines[index].number)) }

    /// Reads the line anew from the file.
    /// - Throws: `DatasetError.unreadable` when the file got shorter since it was opened.
    public func withLine<Result>(
        at index: Int, _ body: (UnsafeBufferPointer<UInt8>, RowOrigin) throws -> Result
    ) throws -> Result {
        let line = lines[index]
        return try withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Int(line.length)) { buffer in
            var filled = 0
            while filled < buffer.count {
                let destination = UnsafeMutableRawPointer(buffer.baseAddress! + filled)
                let got = pread(descriptor, destination, buffer.count - filled, off_t(line.offset) + off_t(filled))
                if got < 0 && errno == EINTR { continue }
                guard got > 0 else {
                    let reason = got == 0 ? "the file got shorter since it was opened" : Self.systemMessage()
                    throw DatasetError(.unreadable, "cannot read the row: \(reason)", origin: origin(at: index))
                }
                filled += got
            }
            return try body(UnsafeBufferPointer(buffer), origin(at: index))
        }
    }

    fileprivate static func systemMessage() -> String { String(cString: strerror(errno)) }
}

/// Finds lines while the file streams by in large reads.
private struct LineScanner {
    let descriptor: Int32
    let path: String
    private var buffer = [UInt8](repeating: 0, count: 1 << 20)
    /// Bytes of `buffer` that hold the start of a line whose end was not read yet.
    private var held = 0
    /// Where in the file `buffer` begins.
    private var base: Int64 = 0
    private var number = 0

    init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    mutating func forEachLine(_ body: (UnsafeBufferPointer<UInt8>, Int64, Int) throws -> Void) throws {
        while true {
            if held == buffer.count { try grow() }
            let got = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress! + held, $0.count - held) }
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else {
                throw DatasetError(.unreadable, "cannot read '\(path)': \(JSONLinesFile.systemMessage())")
            }
            if got == 0 { break }
            try takeLines(newBytes: got, body)
        }
        if held > 0 { try emit(0..<held, body) }
    }

    private mutating func takeLines(
        newBytes: Int, _ body: (UnsafeBufferPointer<UInt8>, Int64, Int) throws -> Void
    ) throws {
        let filled = held + newBytes
        var start = 0
        var searched = held
        while let end = newline(in: searched..<filled) {
            try emit(start..<end, body)
            start = end + 1
            searched = start
        }
        buffer.withUnsafeMutableBytes { _ = memmove($0.baseAddress!, $0.baseAddress! + start, filled - start) }
        held = filled - start
        base += Int64(start)
    }

    private func newline(in range: Range<Int>) -> Int? {
        buffer.withUnsafeBytes { bytes in
            memchr(bytes.baseAddress! + range.lowerBound, 0x0A, range.count).map { bytes.baseAddress!.distance(to: $0) }
        }
    }

    private mutating func grow() throws {
        guard buffer.count < JSONLinesFile.maximumLineLength else {
            throw DatasetError(
                .malformedRow, "the line is longer than \(JSONLinesFile.maximumLineLength >> 20) MiB",
                origin: RowOrigin(source: path, line: number + 1))
        }
        buffer.append(contentsOf: repeatElement(0, count: buffer.count))
    }

    /// Passes a line on without its carriage return and, at the file's start, without a byte order mark.
    private mutating func emit(
        _ range: Range<Int>, _ body: (UnsafeBufferPointer<UInt8>, Int64, Int) throws -> Void
    ) throws {
        number += 1
        try buffer.withUnsafeBufferPointer { all in
            var (start, end) = (range.lowerBound, range.upperBound)
            let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
            if number == 1, all[start..<end].starts(with: mark) { start += mark.count }
            if end > start, all[end - 1] == 0x0D { end -= 1 }
            let isBlank = all[start..<end].allSatisfy { $0 == 0x20 || $0 == 0x09 }
            if isBlank { return }
            try body(UnsafeBufferPointer(rebasing: all[start..<end]), base + Int64(start), number)
        }
    }
}

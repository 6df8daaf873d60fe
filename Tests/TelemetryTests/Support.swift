import Foundation
import Synchronization

@testable import Telemetry

/// A folder that goes away with the test that made it.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        let url = FileManager.default.temporaryDirectory.appending(path: "telemetry-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func callAsFunction(_ name: String) -> String { path + "/" + name }
}

/// A clock that moves when it is told to.
final class ManualClock: Clock {
    struct Instant: InstantProtocol {
        var offset: Duration
        func advanced(by duration: Duration) -> Instant { Instant(offset: offset + duration) }
        func duration(to other: Instant) -> Duration { other.offset - offset }
        static func < (a: Instant, b: Instant) -> Bool { a.offset < b.offset }
    }

    private let time = Mutex(Duration.zero)

    var now: Instant { Instant(offset: time.withLock { $0 }) }
    var minimumResolution: Duration { .nanoseconds(1) }
    func sleep(until deadline: Instant, tolerance: Duration?) async throws {}
    func advance(_ duration: Duration) { time.withLock { $0 += duration } }
}

/// Keeps what a view writes, one string for each write.
final class KeptOutput: TerminalOutput {
    private let kept = Mutex<[String]>([])

    func write(_ bytes: [UInt8]) { kept.withLock { $0.append(String(decoding: bytes, as: UTF8.self)) } }

    var writes: [String] { kept.withLock { $0 } }
    var text: String { writes.joined() }
}

/// The characters on a screen of unlimited height after the writes of a view: enough of a terminal to see a redraw.
struct Screen {
    private(set) var rows: [String] = []

    init(_ text: String) {
        var row = 0
        var column = 0
        var cells: [[Character]] = []
        var rest = text.unicodeScalars[...]
        while let scalar = rest.popFirst() {
            while cells.count <= row { cells.append([]) }
            switch scalar {
            case "\n":
                row += 1
                column = 0
            case "\r": column = 0
            case "\u{1B}":
                rest.removeFirst()
                let number = rest.prefix { $0.properties.numericType != nil || $0 == ";" }
                rest = rest[number.endIndex...]
                switch rest.popFirst() {
                case "A": row -= Int(String(number)) ?? 1
                case "K": cells[row].removeSubrange(min(column, cells[row].count)...)
                case "J":
                    cells[row].removeSubrange(min(column, cells[row].count)...)
                    cells.removeSubrange((row + 1)...)
                default: break
                }
            default:
                while cells[row].count <= column { cells[row].append(" ") }
                cells[row][column] = Character(scalar)
                column += 1
            }
        }
        rows = cells.map { String($0) }
        while rows.last == "" { rows.removeLast() }
    }
}

func contents(_ path: String) throws -> String { try String(contentsOfFile: path, encoding: .utf8) }

import Foundation
import OrderedCollections
import Testing

@testable import Telemetry

@Suite struct TensorBoardTests {
    @Test(
        arguments: [
            ("123456789", 0xE306_9283), ("", 0), ("a", 0xC1D0_4330),
            (String(repeating: "\0", count: 32), 0x8A91_36AA),
        ] as [(String, UInt32)])
    func checksumsAsRFC3720(_ text: String, _ expected: UInt32) {
        #expect(CRC32C.checksum(text.utf8) == expected)
    }

    /// Bytes worked out by hand from event.proto and summary.proto.
    @Test func encodesAScalar() {
        let event = TensorBoardEvent(wallTime: 1.5, step: 300, content: .scalars([("a/b", 0.5)]))
        #expect(
            event.encoded() == [
                0x09, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F,  // wall_time, field 1, 64 bits: 1.5
                0x10, 0xAC, 0x02,  // step, field 2, varint: 300
                0x2A, 12,  // summary, field 5, 12 bytes
                0x0A, 10,  // value, field 1, 10 bytes
                0x0A, 3, 0x61, 0x2F, 0x62,  // tag, field 1: "a/b"
                0x15, 0, 0, 0, 0x3F,  // simple_value, field 2, 32 bits: 0.5
            ])
    }

    @Test func writesRecordsThatDecode() throws {
        let folder = try TemporaryFolder()
        let file = try TensorBoardFile(folder: folder("tb"), now: { 1_700_000_000.25 })
        #expect(file.path.hasPrefix(folder("tb") + "/events.out.tfevents.1700000000."))
        try file.write(StepMetrics(step: 1, values: ["actor/loss": 0.25, "critic/score/mean": -3]))
        try file.write(StepMetrics(step: 2, values: ["actor/loss": .nan]))
        try file.flush()

        let events = try decode(file.path)
        #expect(events.map(\.step) == [0, 1, 2])
        #expect(events.allSatisfy { $0.wallTime == 1_700_000_000.25 })
        #expect(events[0].version == "brain.Event:2")
        #expect(events[1].scalars.map(\.tag) == ["actor/loss", "critic/score/mean"])
        #expect(events[1].scalars.map(\.value) == [0.25, -3])
        #expect(events[2].scalars[0].value.isNaN)
    }

    @Test func aResumedRunStartsANewFileThatDropsLaterSteps() throws {
        let folder = try TemporaryFolder()
        let first = try TensorBoardFile(folder: folder("tb"), now: { 5 })
        let second = try TensorBoardFile(folder: folder("tb"), resumingAt: 41, now: { 5 })
        #expect(first.path != second.path)
        let events = try decode(second.path)
        #expect(events.count == 2)
        #expect(events[1].step == 41 && events[1].startsSession)
    }

    @Test func reportsAFolderThatCannotBeMade() {
        #expect { try TensorBoardFile(folder: "/dev/null/tb") } throws: {
            let error = $0 as? TelemetryError
            return error?.code == .io && error?.path?.hasPrefix("/dev/null") == true
        }
    }

    // A reader of its own, so that a mistake in the writer does not cancel out.

    private struct Event {
        var wallTime = 0.0
        var step = 0
        var version: String?
        var startsSession = false
        var scalars: [(tag: String, value: Float)] = []
    }

    private struct Fields {
        var bytes: ArraySlice<UInt8>

        mutating func little<T: FixedWidthInteger>(_ type: T.Type) -> T {
            defer { bytes = bytes.dropFirst(MemoryLayout<T>.size) }
            return bytes.prefix(MemoryLayout<T>.size).reversed().reduce(0) { $0 << 8 | T($1) }
        }

        mutating func varint() -> Int {
            var value = 0
            var shift = 0
            while let byte = bytes.popFirst() {
                value |= Int(byte & 0x7F) << shift
                shift += 7
                if byte < 0x80 { break }
            }
            return value
        }

        mutating func chunk() -> ArraySlice<UInt8> {
            let count = varint()
            defer { bytes = bytes.dropFirst(count) }
            return bytes.prefix(count)
        }
    }

    private func decode(_ path: String) throws -> [Event] {
        var records = Fields(bytes: Array(try Data(contentsOf: URL(fileURLWithPath: path)))[...])
        var events: [Event] = []
        while !records.bytes.isEmpty {
            let head = Array(records.bytes.prefix(8))
            let count = Int(records.little(UInt64.self))
            #expect(unmasked(records.little(UInt32.self)) == slowChecksum(head))
            let data = records.bytes.prefix(count)
            try #require(data.count == count)
            records.bytes = records.bytes.dropFirst(count)
            #expect(unmasked(records.little(UInt32.self)) == slowChecksum(Array(data)))
            events.append(event(data))
        }
        return events
    }

    private func event(_ data: ArraySlice<UInt8>) -> Event {
        var fields = Fields(bytes: data)
        var event = Event()
        while !fields.bytes.isEmpty {
            switch fields.varint() {
            case 1 << 3 | 1: event.wallTime = Double(bitPattern: fields.little(UInt64.self))
            case 2 << 3: event.step = fields.varint()
            case 3 << 3 | 2: event.version = String(decoding: fields.chunk(), as: UTF8.self)
            case 7 << 3 | 2: event.startsSession = Array(fields.chunk()) == [0x08, 0x01]
            case 5 << 3 | 2:
                var summary = Fields(bytes: fields.chunk())
                while !summary.bytes.isEmpty {
                    #expect(summary.varint() == 1 << 3 | 2)
                    var value = Fields(bytes: summary.chunk())
                    #expect(value.varint() == 1 << 3 | 2)
                    let tag = String(decoding: value.chunk(), as: UTF8.self)
                    #expect(value.varint() == 2 << 3 | 5)
                    event.scalars.append((tag, Float(bitPattern: value.little(UInt32.self))))
                }
            case let key: Issue.record("unknown key \(key)")
            }
        }
        return event
    }

    private func unmasked(_ masked: UInt32) -> UInt32 {
        let rotated = masked &- 0xA282_EAD8
        return rotated >> 17 | rotated << 15
    }

    /// Bit by bit, with no table.
    private func slowChecksum(_ bytes: [UInt8]) -> UInt32 {
        var crc: UInt32 = ~0
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82F6_3B78 : crc >> 1 }
        }
        return ~crc
    }
}

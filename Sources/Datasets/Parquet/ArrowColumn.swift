internal import CArrow

/// The values of one column in one batch, in Arrow's own buffers: good as long as the batch is.
///
/// The bridge has checked the batch against its buffers (`ValidateFull`): offsets, UTF-8, lengths. What the C interface
/// shows is checked here again.
struct ArrowColumn {
    private let type: ArrowType
    let length: Int
    private let offset: Int
    private let validity: UnsafePointer<UInt8>?
    /// Values, or offsets of text and lists.
    private let values: UnsafeRawPointer?
    /// The bytes of text.
    private let text: UnsafePointer<UInt8>?
    private let children: [ArrowColumn]
    /// Names of an object's members, quoted, with `:`.
    private let names: [[UInt8]]

    init(_ type: ArrowType, _ array: ArrowArray, path: String) throws {
        func damaged() -> DatasetError { DatasetError(.unreadable, "'\(path)': a batch of rows is not well-formed") }
        self.type = type
        guard array.length >= 0, array.offset >= 0, array.length <= Int64(Int32.max) << 8,
            array.offset <= Int64(Int32.max) << 8
        else { throw damaged() }
        length = Int(array.length)
        offset = Int(array.offset)
        func buffer(_ index: Int) throws -> UnsafeRawPointer? {
            guard index < array.n_buffers, let buffers = array.buffers else { throw damaged() }
            return buffers[index]
        }
        func child(_ index: Int, _ type: ArrowType) throws -> ArrowColumn {
            guard index < array.n_children, let child = array.children?[index] else { throw damaged() }
            return try ArrowColumn(type, child.pointee, path: path)
        }
        var children: [ArrowColumn] = []
        var names: [[UInt8]] = []
        var values: UnsafeRawPointer?
        var text: UnsafePointer<UInt8>?
        let isEmpty = array.length == 0
        switch type {
        case .null: break
        case .bool, .int, .unsigned, .half, .float, .double, .decimal, .date, .dateInMilliseconds, .timestamp:
            values = try buffer(1)
            guard values != nil || isEmpty else { throw damaged() }
        case .string:
            values = try buffer(1)
            text = try buffer(2)?.assumingMemoryBound(to: UInt8.self)
            guard values != nil || isEmpty else { throw damaged() }
        case .list(let element, _):
            values = try buffer(1)
            children = [try child(0, element)]
            guard values != nil || isEmpty else { throw damaged() }
        case .fixedList(let element, _): children = [try child(0, element)]
        case .object(let fields):
            for (index, field) in fields.enumerated() {
                children.append(try child(index, field.type))
                var name = JSONBytes()
                name.append(quoted: field.name)
                names.append(name.bytes + [UInt8(ascii: ":")])
            }
            guard children.allSatisfy({ $0.length >= Int(array.length + array.offset) }) else { throw damaged() }
        case .map(let value):
            values = try buffer(1)
            guard values != nil || isEmpty, array.n_children > 0, let entries = array.children?[0]?.pointee,
                entries.n_children == 2, entries.offset == 0, let parts = entries.children, let key = parts[0],
                let item = parts[1]
            else { throw damaged() }
            children = [
                try ArrowColumn(.string(isWide: false), key.pointee, path: path),
                try ArrowColumn(value.type, item.pointee, path: path),
            ]
        case .dictionary(let index, let items):
            guard let dictionary = array.dictionary else { throw damaged() }
            var plain = array
            plain.dictionary = nil
            children = [
                try ArrowColumn(index, plain, path: path), try ArrowColumn(items, dictionary.pointee, path: path),
            ]
        }
        // Null arrays have no bitmap; a count of 0 says that the bitmap may be absent.
        var validity: UnsafePointer<UInt8>?
        if case .null = type {
        } else if case .dictionary = type {
        } else if array.n_buffers > 0 {
            validity = try buffer(0)?.assumingMemoryBound(to: UInt8.self)
        }
        self.validity = validity
        self.values = values
        self.text = text
        self.children = children
        self.names = names
    }

    private func isNull(_ index: Int) -> Bool {
        guard let validity else { return false }
        let bit = index + offset
        return validity[bit >> 3] >> (bit & 7) & 1 == 0
    }

    /// Writes the value of one row, which is in `0..<length`.
    /// - Throws: `DatasetError.malformedRow` for an infinity.
    func write(_ index: Int, to out: inout JSONBytes) throws {
        guard index >= 0, index < length else { throw DatasetError(.unreadable, "a value lies outside its column") }
        if isNull(index) { return out.append("null") }
        switch type {
        case .null: out.append("null")
        case .bool:
            let bit = index + offset
            let byte = values!.load(fromByteOffset: bit >> 3, as: UInt8.self)
            out.append(byte >> (bit & 7) & 1 == 1 ? "true" : "false")
        case .int, .unsigned: out.append(number: integer(index))
        case .half: try out.append(number: Double(load(index, as: Float16.self)), "\(load(index, as: Float16.self))")
        case .float: try out.append(number: Double(load(index, as: Float.self)), "\(load(index, as: Float.self))")
        case .double: try out.append(number: load(index, as: Double.self), "\(load(index, as: Double.self))")
        case .decimal(let scale): out.append(decimal: load(index, as: Int128.self), scale: scale)
        case .date: out.append(date: Int64(load(index, as: Int32.self)))
        case .dateInMilliseconds: out.append(date: load(index, as: Int64.self).dividedDown(by: 86_400_000).quotient)
        case .timestamp(let ticks, let isUTC):
            out.append(timestamp: load(index, as: Int64.self), ticksPerSecond: ticks, isUTC: isUTC)
        case .string(let isWide):
            let range = try range(index, isWide: isWide, limit: .max)
            out.append(quoted: UnsafeBufferPointer(start: text.map { $0 + range.lowerBound }, count: range.count))
        case .list(_, let isWide):
            try writeList(try range(index, isWide: isWide, limit: children[0].length), to: &out)
        case .fixedList(_, let size):
            let (start, overflow) = (index + offset).multipliedReportingOverflow(by: size)
            guard !overflow, start <= children[0].length - size else {
                throw DatasetError(.unreadable, "a value lies outside its column")
            }
            try writeList(start..<start + size, to: &out)
        case .object: try writeObject(index + offset, to: &out)
        case .map: try writeMap(try range(index, isWide: false, limit: children[0].length), to: &out)
        case .dictionary:
            if children[0].isNull(index) { return out.append("null") }
            try children[1].write(Int(clamping: children[0].integer(index)), to: &out)
        }
    }

    private func load<Value: BitwiseCopyable>(_ index: Int, as type: Value.Type) -> Value {
        values!.loadUnaligned(fromByteOffset: (index + offset) * MemoryLayout<Value>.size, as: type)
    }

    /// As `Int128`, which holds every 64-bit integer of either kind.
    private func integer(_ index: Int) -> Int128 {
        switch type {
        case .int(1): Int128(load(index, as: Int8.self))
        case .int(2): Int128(load(index, as: Int16.self))
        case .int(4): Int128(load(index, as: Int32.self))
        case .int: Int128(load(index, as: Int64.self))
        case .unsigned(1): Int128(load(index, as: UInt8.self))
        case .unsigned(2): Int128(load(index, as: UInt16.self))
        case .unsigned(4): Int128(load(index, as: UInt32.self))
        default: Int128(load(index, as: UInt64.self))
        }
    }

    private func range(_ index: Int, isWide: Bool, limit: Int) throws -> Range<Int> {
        let (start, end) =
            isWide
            ? (Int(load(index, as: Int64.self)), Int(load(index + 1, as: Int64.self)))
            : (Int(load(index, as: Int32.self)), Int(load(index + 1, as: Int32.self)))
        guard start >= 0, start <= end, end <= limit else {
            throw DatasetError(.unreadable, "a value lies outside its column")
        }
        return start..<end
    }

    private func writeList(_ range: Range<Int>, to out: inout JSONBytes) throws {
        out.append("[")
        for element in range {
            if element > range.lowerBound { out.append(",") }
            try children[0].write(element, to: &out)
        }
        out.append("]")
    }

    private func writeObject(_ index: Int, to out: inout JSONBytes) throws {
        out.append("{")
        for member in children.indices {
            if member > 0 { out.append(",") }
            out.bytes += names[member]
            try children[member].write(index, to: &out)
        }
        out.append("}")
    }

    private func writeMap(_ range: Range<Int>, to out: inout JSONBytes) throws {
        out.append("{")
        for entry in range {
            if entry > range.lowerBound { out.append(",") }
            try children[0].write(entry, to: &out)
            out.append(":")
            try children[1].write(entry, to: &out)
        }
        out.append("}")
    }
}

internal import Dispatch
internal import TensorCore

/// Turns GGML blocks into floating-point numbers, bit for bit as ggml's reference code and its Python package do.
public enum Dequantizer {
    /// Dequantises `rows` rows of `columns` elements.
    ///
    /// - Parameters:
    ///   - source: exactly the rows' blocks. `columns` is a whole number of blocks.
    ///   - destination: `rows * columns` elements of `dtype` (float32, bfloat16).
    ///   - rowOrder: where each row of the source goes; nil keeps the order.
    static func run(
        _ type: GGMLType, _ source: UnsafeRawBufferPointer, rows: Int, columns: Int,
        into destination: UnsafeMutableRawPointer, dtype: DType, rowOrder: RowOrder? = nil
    ) {
        precondition(dtype == .float32 || dtype == .bfloat16, "dequantises to float32 or bfloat16, not \(dtype)")
        precondition(columns % type.blockSize == 0 && source.count == rows * columns / type.blockSize * type.blockBytes)
        guard rows > 0, columns > 0 else { return }
        // One long row (a vector) is cut into pieces when no order is asked for, so that it too spreads over the cores.
        let pieceTarget = 1 << 17
        let rowsPerPiece = max(1, pieceTarget / columns)
        let pieces = (rows + rowsPerPiece - 1) / rowsPerPiece
        let rowBytes = columns / type.blockSize * type.blockBytes
        let memory = Memory(source: source.baseAddress!, destination: destination)
        let work: @Sendable (Int) -> Void = { piece in
            for row in (piece * rowsPerPiece)..<min(rows, (piece + 1) * rowsPerPiece) {
                let target = rowOrder?.destination(of: row) ?? row
                let from = memory.source + row * rowBytes
                if dtype == .float32 {
                    let to = (memory.destination + target * columns * 4).assumingMemoryBound(to: Float.self)
                    decode(type, from, count: columns, to)
                } else {
                    let to = (memory.destination + target * columns * 2).assumingMemoryBound(to: UInt16.self)
                    decodeToBFloat16(type, from, count: columns, to)
                }
            }
        }
        if pieces == 1 { work(0) } else { DispatchQueue.concurrentPerform(iterations: pieces, execute: work) }
    }

    /// Converts whole blocks to float32 or bfloat16 on the calling thread alone.
    static func convert(
        _ type: GGMLType, _ source: UnsafeRawBufferPointer, into destination: UnsafeMutableRawPointer, dtype: DType
    ) {
        precondition(dtype == .float32 || dtype == .bfloat16, "dequantises to float32 or bfloat16, not \(dtype)")
        guard let from = source.baseAddress else { return }
        let count = source.count / type.blockBytes * type.blockSize
        if dtype == .float32 {
            decode(type, from, count: count, destination.assumingMemoryBound(to: Float.self))
        } else {
            decodeToBFloat16(type, from, count: count, destination.assumingMemoryBound(to: UInt16.self))
        }
    }

    /// The elements of `blocks` as floats.
    ///
    /// - Throws: `CheckpointError.malformed` when `blocks` is not a whole number of blocks.
    public static func floats(_ type: GGMLType, _ blocks: [UInt8]) throws -> [Float] {
        guard blocks.count % type.blockBytes == 0 else {
            throw CheckpointError(
                .malformed, type.name, "\(blocks.count) bytes are no whole number of blocks of \(type.blockBytes)")
        }
        let count = blocks.count / type.blockBytes * type.blockSize
        return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
            blocks.withUnsafeBytes {
                if count > 0 { decode(type, $0.baseAddress!, count: count, buffer.baseAddress!) }
            }
            initialized = count
        }
    }

    /// The workers write disjoint rows.
    private struct Memory: @unchecked Sendable {
        let source: UnsafeRawPointer
        let destination: UnsafeMutableRawPointer
    }

    private static func decode(
        _ type: GGMLType, _ source: UnsafeRawPointer, count: Int, _ out: UnsafeMutablePointer<Float>
    ) {
        let blocks = count / type.blockSize
        switch type {
        case .f32: memcpyFloats(source, out, count)
        case .f16: decodeF16(source, out, count)
        case .bf16: decodeBF16(source, out, count)
        case .q4_0: for block in 0..<blocks { q4_0(source + block * 18, out + block * 32) }
        case .q4_1: for block in 0..<blocks { q4_1(source + block * 20, out + block * 32) }
        case .q5_0: for block in 0..<blocks { q5_0(source + block * 22, out + block * 32) }
        case .q5_1: for block in 0..<blocks { q5_1(source + block * 24, out + block * 32) }
        case .q8_0: for block in 0..<blocks { q8_0(source + block * 34, out + block * 32) }
        case .q4_K: for block in 0..<blocks { q4_K(source + block * 144, out + block * 256) }
        case .q5_K: for block in 0..<blocks { q5_K(source + block * 176, out + block * 256) }
        case .q6_K: for block in 0..<blocks { q6_K(source + block * 210, out + block * 256) }
        }
    }

    private static func decodeToBFloat16(
        _ type: GGMLType, _ source: UnsafeRawPointer, count: Int, _ out: UnsafeMutablePointer<UInt16>
    ) {
        let chunk = 4096
        withUnsafeTemporaryAllocation(of: Float.self, capacity: chunk) { scratch in
            var done = 0
            while done < count {
                let size = min(chunk, count - done)
                decode(type, source + done / type.blockSize * type.blockBytes, count: size, scratch.baseAddress!)
                for index in 0..<size {
                    let bits = scratch[index].bitPattern
                    // Round half to even; a NaN stays one whatever its payload.
                    let rounded = (bits &+ 0x7FFF &+ ((bits >> 16) & 1)) >> 16
                    let isNaN = bits & 0x7FFF_FFFF > 0x7F80_0000
                    out[done + index] = UInt16(truncatingIfNeeded: isNaN ? bits >> 16 | 0x40 : rounded)
                }
                done += size
            }
        }
    }
}

/// The row order of HF's half-rotated rotary embedding, from that of llama.cpp, which interleaves the two halves of each
/// head: row 2i+j of a head holds what belongs at row j·d/2+i.
struct RowOrder: Sendable {
    /// Rows of one head.
    let headSize: Int

    func destination(of row: Int) -> Int {
        let within = row % headSize
        return row - within + (within & 1) * (headSize / 2) + within / 2
    }
}

/// One function for each block type of ggml-common.h. Products and sums are rounded apart, as ggml's reference code does.
extension Dequantizer {
    @inline(__always) private static func half(_ source: UnsafeRawPointer) -> Float {
        halfToFloat(source.loadUnaligned(as: UInt16.self))
    }

    /// Exact, without branches on the common path: the exponent is rebased by a multiplication, which also normalises
    /// denormals.
    @inline(__always) static func halfToFloat(_ bits: UInt16) -> Float {
        let wide = UInt32(truncatingIfNeeded: bits)
        let scaled = Float(bitPattern: (wide & 0x7FFF) << 13) * Float(bitPattern: 0x7780_0000)
        let special: UInt32 = wide & 0x7C00 == 0x7C00 ? 0x7F80_0000 : 0
        return Float(bitPattern: scaled.bitPattern | special | (wide & 0x8000) << 16)
    }

    @inline(__always) private static func nibbles(_ source: UnsafeRawPointer) -> (SIMD16<UInt8>, SIMD16<UInt8>) {
        let packed = source.loadUnaligned(as: SIMD16<UInt8>.self)
        return (packed & 0x0F, packed &>> 4)
    }

    @inline(__always) private static func store(
        _ q: SIMD16<UInt8>, minus offset: Int32, times d: Float, plus m: Float, _ out: UnsafeMutablePointer<Float>
    ) {
        let wide = SIMD16<Int32>(truncatingIfNeeded: q) &- offset
        UnsafeMutableRawPointer(out).storeBytes(of: SIMD16<Float>(wide) * d + m, as: SIMD16<Float>.self)
    }

    @inline(__always) private static func store(
        _ q: SIMD16<UInt8>, minus offset: Int32, times d: Float, _ out: UnsafeMutablePointer<Float>
    ) {
        let wide = SIMD16<Int32>(truncatingIfNeeded: q) &- offset
        UnsafeMutableRawPointer(out).storeBytes(of: SIMD16<Float>(wide) * d, as: SIMD16<Float>.self)
    }

    static func memcpyFloats(_ source: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>, _ count: Int) {
        UnsafeMutableRawPointer(out).copyMemory(from: source, byteCount: count * 4)
    }

    static func decodeF16(_ source: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>, _ count: Int) {
        for index in 0..<count { out[index] = half(source + 2 * index) }
    }

    static func decodeBF16(_ source: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>, _ count: Int) {
        for index in 0..<count {
            out[index] = Float(bitPattern: UInt32((source + 2 * index).loadUnaligned(as: UInt16.self)) << 16)
        }
    }

    @inline(__always) static func q4_0(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let d = half(block)
        let (low, high) = nibbles(block + 2)
        store(low, minus: 8, times: d, out)
        store(high, minus: 8, times: d, out + 16)
    }

    @inline(__always) static func q4_1(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let (d, m) = (half(block), half(block + 2))
        let (low, high) = nibbles(block + 4)
        store(low, minus: 0, times: d, plus: m, out)
        store(high, minus: 0, times: d, plus: m, out + 16)
    }

    /// Bit i of `bits` as 0x10 in lane i.
    @inline(__always) private static func fifthBits(_ bits: UInt16) -> SIMD16<UInt8> {
        let bytes = SIMD16<UInt8>(
            lowHalf: SIMD8(repeating: UInt8(truncatingIfNeeded: bits)),
            highHalf: SIMD8(repeating: UInt8(truncatingIfNeeded: bits >> 8)))
        let selected = bytes & SIMD16<UInt8>(1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128)
        return SIMD16<UInt8>(repeating: 0).replacing(with: 0x10, where: selected .!= 0)
    }

    @inline(__always) static func q5_0(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let d = half(block)
        let (low, high) = nibbles(block + 6)
        store(low | fifthBits((block + 2).loadUnaligned(as: UInt16.self)), minus: 16, times: d, out)
        store(high | fifthBits((block + 4).loadUnaligned(as: UInt16.self)), minus: 16, times: d, out + 16)
    }

    @inline(__always) static func q5_1(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let (d, m) = (half(block), half(block + 2))
        let (low, high) = nibbles(block + 8)
        store(low | fifthBits((block + 4).loadUnaligned(as: UInt16.self)), minus: 0, times: d, plus: m, out)
        store(high | fifthBits((block + 6).loadUnaligned(as: UInt16.self)), minus: 0, times: d, plus: m, out + 16)
    }

    @inline(__always) static func q8_0(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let d = half(block)
        for part in 0..<2 {
            let q = (block + 2 + part * 16).loadUnaligned(as: SIMD16<Int8>.self)
            let values = SIMD16<Float>(SIMD16<Int32>(truncatingIfNeeded: q)) * d
            UnsafeMutableRawPointer(out + part * 16).storeBytes(of: values, as: SIMD16<Float>.self)
        }
    }

    /// The six-bit scale and minimum of group `group` (of 8) in a Q4_K or Q5_K block's 12 packed bytes.
    @inline(__always) private static func scaleAndMinimum(_ packed: UnsafeRawPointer, _ group: Int) -> (Float, Float) {
        func byte(_ index: Int) -> UInt8 { packed.load(fromByteOffset: index, as: UInt8.self) }
        if group < 4 { return (Float(byte(group) & 63), Float(byte(group + 4) & 63)) }
        let scale = byte(group + 4) & 0x0F | (byte(group - 4) >> 6) << 4
        let minimum = byte(group + 4) >> 4 | (byte(group) >> 6) << 4
        return (Float(scale), Float(minimum))
    }

    @inline(__always) static func q4_K(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let (d, dmin) = (half(block), half(block + 2))
        for pair in 0..<4 {
            let (scale0, minimum0) = scaleAndMinimum(block + 4, 2 * pair)
            let (scale1, minimum1) = scaleAndMinimum(block + 4, 2 * pair + 1)
            for part in 0..<2 {
                let (low, high) = nibbles(block + 16 + pair * 32 + part * 16)
                let to = out + pair * 64 + part * 16
                store(low, minus: 0, times: d * scale0, plus: -(dmin * minimum0), to)
                store(high, minus: 0, times: d * scale1, plus: -(dmin * minimum1), to + 32)
            }
        }
    }

    @inline(__always) static func q5_K(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let (d, dmin) = (half(block), half(block + 2))
        for pair in 0..<4 {
            let (scale0, minimum0) = scaleAndMinimum(block + 4, 2 * pair)
            let (scale1, minimum1) = scaleAndMinimum(block + 4, 2 * pair + 1)
            for part in 0..<2 {
                let (low, high) = nibbles(block + 48 + pair * 32 + part * 16)
                let fifth = (block + 16 + part * 16).loadUnaligned(as: SIMD16<UInt8>.self) &>> UInt8(2 * pair)
                let to = out + pair * 64 + part * 16
                store(low | (fifth & 1) &<< 4, minus: 0, times: d * scale0, plus: -(dmin * minimum0), to)
                store(high | (fifth & 2) &<< 3, minus: 0, times: d * scale1, plus: -(dmin * minimum1), to + 32)
            }
        }
    }

    @inline(__always) static func q6_K(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let d = half(block + 208)
        for group in 0..<2 {
            for part in 0..<2 {
                let (q0, q2) = nibbles(block + group * 64 + part * 16)
                let (q1, q3) = nibbles(block + group * 64 + 32 + part * 16)
                let top = (block + 128 + group * 32 + part * 16).loadUnaligned(as: SIMD16<UInt8>.self)
                let to = out + group * 128 + part * 16
                func scale(_ index: Int) -> Float {
                    Float(block.load(fromByteOffset: 192 + group * 8 + part + 2 * index, as: Int8.self)) * d
                }
                store(q0 | (top & 3) &<< 4, minus: 32, times: scale(0), to)
                store(q1 | (top & 12) &<< 2, minus: 32, times: scale(1), to + 32)
                store(q2 | (top & 48), minus: 32, times: scale(2), to + 64)
                store(q3 | (top & 192) &>> 2, minus: 32, times: scale(3), to + 96)
            }
        }
    }
}

internal import CTorch

/// An n-dimensional array of libtorch. A value that refers to shared storage, as in torch: views alias.
///
/// Not `Sendable`: libtorch's grad mode, device and stream belong to a thread, so tensors stay on the executor that made
/// them.
public struct Tensor {
    /// Owns one `at::Tensor`.
    final class Handle {
        let raw: ct_tensor
        init(_ raw: ct_tensor) { self.raw = raw }
        deinit { ct_free(raw) }
    }

    let handle: Handle
    var raw: ct_tensor { handle.raw }

    init(owning raw: ct_tensor) { handle = Handle(raw) }

    public var rank: Int { Int(ct_ndim(raw)) }
    public var shape: [Int] { (0..<rank).map { Int(ct_size(raw, Int32($0))) } }
    public var strides: [Int] { (0..<rank).map { Int(ct_stride(raw, Int32($0))) } }
    /// The number of elements.
    public var count: Int { Int(ct_numel(raw)) }
    /// The size of dimension `dim`; negative counts from the end.
    public func size(_ dim: Int) -> Int {
        precondition(dim >= -rank && dim < rank, "dimension \(dim) of a tensor of rank \(rank)")
        return Int(ct_size(raw, Int32(dim < 0 ? dim + rank : dim)))
    }
    public var byteCount: Int { count * Int(ct_element_size(raw)) }

    public var dtype: DType {
        guard let dtype = DType(rawValue: ct_dtype(raw)) else { preconditionFailure("unmapped dtype \(ct_dtype(raw))") }
        return dtype
    }
    public var device: Device { Device(typeCode: ct_device_type(raw), index: ct_device_index(raw)) }
    public var isContiguous: Bool { ct_is_contiguous(raw) }
    /// Whether the host memory is page-locked. False without CUDA.
    public var isPinned: Bool { ct_is_pinned(raw) }
    public var requiresGrad: Bool { ct_requires_grad(raw) }

    /// `float32[2, 3]@cpu`, for messages.
    public var summary: String { "\(dtype)\(shape)@\(device)" }

    /// Whether both name the same `at::Tensor`.
    public func isSame(as other: Tensor) -> Bool { ct_is_same(raw, other.raw) }

    /// Whether both share one storage, as views of one tensor do.
    public func sharesStorage(with other: Tensor) -> Bool { ct_storage_data(raw) == ct_storage_data(other.raw) }
}

extension Tensor: CustomStringConvertible {
    public var description: String { "Tensor(\(summary))" }
}

// MARK: - Creation

extension Tensor {
    static func options(_ dtype: DType, _ device: Device, pinned: Bool = false) -> ct_options {
        ct_options(
            dtype: dtype.rawValue, device_type: device.typeCode, device_index: device.index, pinned: pinned)
    }

    /// Uninitialised memory; `pinned` asks for page-locked host memory (needs CUDA).
    public static func empty(
        _ shape: [Int], dtype: DType = .float32, device: Device = .cpu, pinned: Bool = false
    ) throws(TorchError) -> Tensor {
        let sizes = shape.map(Int64.init)
        return try tensor("empty\(shape)") {
            ct_empty(sizes, Int32(sizes.count), options(dtype, device, pinned: pinned), $0, $1)
        }
    }

    public static func full(
        _ shape: [Int], _ value: Double, dtype: DType = .float32, device: Device = .cpu
    ) throws(TorchError) -> Tensor {
        let sizes = shape.map(Int64.init)
        return try tensor("full\(shape)") {
            ct_full(sizes, Int32(sizes.count), value, options(dtype, device), $0, $1)
        }
    }

    public static func zeros(
        _ shape: [Int], dtype: DType = .float32, device: Device = .cpu
    ) throws(TorchError) -> Tensor { try full(shape, 0, dtype: dtype, device: device) }

    public static func ones(
        _ shape: [Int], dtype: DType = .float32, device: Device = .cpu
    ) throws(TorchError) -> Tensor { try full(shape, 1, dtype: dtype, device: device) }

    public static func arange(
        _ range: Range<Int>, step: Int = 1, dtype: DType = .int64, device: Device = .cpu
    ) throws(TorchError) -> Tensor {
        try tensor("arange(\(range))") {
            ct_arange(
                Int64(range.lowerBound), Int64(range.upperBound), Int64(step), options(dtype, device), $0, $1)
        }
    }

    /// Uniform in [0, 1).
    public static func random(
        _ shape: [Int], generator: RandomGenerator, dtype: DType = .float32
    ) throws(TorchError) -> Tensor {
        let sizes = shape.map(Int64.init)
        return try tensor("random\(shape)") {
            ct_rand(sizes, Int32(sizes.count), generator.raw, options(dtype, generator.device), $0, $1)
        }
    }

    /// Standard normal.
    public static func randomNormal(
        _ shape: [Int], generator: RandomGenerator, dtype: DType = .float32
    ) throws(TorchError) -> Tensor {
        let sizes = shape.map(Int64.init)
        return try tensor("randomNormal\(shape)") {
            ct_randn(sizes, Int32(sizes.count), generator.raw, options(dtype, generator.device), $0, $1)
        }
    }

    /// Integers in `range`.
    public static func randomIntegers(
        _ range: Range<Int>, _ shape: [Int], generator: RandomGenerator, dtype: DType = .int64
    ) throws(TorchError) -> Tensor {
        let sizes = shape.map(Int64.init)
        return try tensor("randomIntegers\(shape)") {
            ct_randint(
                Int64(range.lowerBound), Int64(range.upperBound), sizes, Int32(sizes.count), generator.raw,
                options(dtype, generator.device), $0, $1)
        }
    }

    /// Copies host values; `shape` defaults to one dimension. Throws when the count does not fit the shape.
    public init<Scalar: TensorScalar>(
        _ values: [Scalar], shape: [Int]? = nil, device: Device = .cpu
    ) throws(TorchError) {
        let sizes = (shape ?? [values.count]).map(Int64.init)
        let host = try tensor("copy of \(values.count) values as \(Scalar.dtype)\(sizes)") { out, error in
            values.withUnsafeBytes {
                ct_from_bytes($0.baseAddress, $0.count, sizes, Int32(sizes.count), Scalar.dtype.rawValue, out, error)
            }
        }
        self = device == .cpu ? host : try host.to(device)
    }

    /// Copies raw host bytes in native (little-endian) order. Throws when the count does not fit shape and type.
    public init(bytes: UnsafeRawBufferPointer, shape: [Int], dtype: DType) throws(TorchError) {
        let sizes = shape.map(Int64.init)
        self = try tensor("copy of \(bytes.count) bytes as \(dtype)\(shape)") {
            ct_from_bytes(bytes.baseAddress, bytes.count, sizes, Int32(sizes.count), dtype.rawValue, $0, $1)
        }
    }

    /// Borrows host memory that `owner` keeps alive; nothing is copied. The memory must hold the shape's bytes, be aligned for
    /// the type, and not be written while the tensor lives if it is mapped read-only.
    public init(
        borrowing memory: UnsafeMutableRawPointer, shape: [Int], dtype: DType, owner: AnyObject
    ) throws(TorchError) {
        let sizes = shape.map(Int64.init)
        let context = Unmanaged.passRetained(owner).toOpaque()
        do {
            self = try tensor("borrow \(dtype)\(shape)") {
                ct_from_borrowed(
                    memory, sizes, Int32(sizes.count), dtype.rawValue,
                    { context in Unmanaged<AnyObject>.fromOpaque(context!).release() }, context, $0, $1)
            }
        } catch {
            Unmanaged<AnyObject>.fromOpaque(context).release()
            throw error
        }
    }
}

// MARK: - Reading back

extension Tensor {
    /// The elements in row-major order, converted to `Scalar` and copied to the host.
    public func values<Scalar: TensorScalar>(_ type: Scalar.Type = Scalar.self) throws(TorchError) -> [Scalar] {
        let host = try detached().to(.cpu, dtype: Scalar.dtype).contiguous()
        return Array(
            UnsafeBufferPointer(start: ct_data(host.raw)?.assumingMemoryBound(to: Scalar.self), count: host.count))
    }

    /// The single element as a double.
    public func item() throws(TorchError) -> Double {
        var value = 0.0
        try check("item", [self]) { ct_item(raw, &value, $0) }
        return value
    }

    /// The single element as an integer.
    public func itemInt() throws(TorchError) -> Int {
        var value: Int64 = 0
        try check("item", [self]) { ct_item_int(raw, &value, $0) }
        return Int(value)
    }

    /// The bytes of a contiguous host tensor, for the closure's time only.
    public func withUnsafeBytes<Result>(
        _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try requireHost("withUnsafeBytes")
        return try withExtendedLifetime(handle) {
            try body(UnsafeRawBufferPointer(start: ct_data(raw), count: byteCount))
        }
    }

    /// The bytes of a contiguous host tensor, to write in place.
    public func withUnsafeMutableBytes<Result>(
        _ body: (UnsafeMutableRawBufferPointer) throws -> Result
    ) throws -> Result {
        try requireHost("withUnsafeMutableBytes")
        return try withExtendedLifetime(handle) {
            try body(UnsafeMutableRawBufferPointer(start: ct_data(raw), count: byteCount))
        }
    }

    private func requireHost(_ operation: String) throws(TorchError) {
        guard device == .cpu, isContiguous else {
            throw TorchError(
                code: .mismatch, operation: operation,
                message: "needs a contiguous tensor on the CPU; call to(.cpu) and contiguous() first",
                operands: [summary])
        }
    }

    /// A 64-bit digest of the elements' bytes, the same on every device. Not cryptographic.
    public func digest() throws(TorchError) -> UInt64 {
        var value: UInt64 = 0
        try check("digest", [self]) { ct_digest(raw, &value, $0) }
        return value
    }

    /// Whether shapes, types and every element are equal.
    public func equals(_ other: Tensor) throws(TorchError) -> Bool {
        guard shape == other.shape, dtype == other.dtype else { return false }
        var same = false
        try check("equals", [self, other]) { ct_equal(raw, other.raw, &same, $0) }
        return same
    }
}

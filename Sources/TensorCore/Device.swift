internal import CTorch

/// Where a tensor lives.
public enum Device: Hashable, Sendable, CustomStringConvertible {
    case cpu
    case cuda(Int)

    var typeCode: Int32 { self == .cpu ? 0 : 1 }
    var index: Int32 {
        if case .cuda(let index) = self { Int32(index) } else { 0 }
    }

    init(typeCode: Int32, index: Int32) { self = typeCode == 0 ? .cpu : .cuda(Int(index)) }

    public var description: String {
        switch self {
        case .cpu: "cpu"
        case .cuda(let index): "cuda:\(index)"
        }
    }

    public var isCUDA: Bool { self != .cpu }

    /// Makes this GPU the one that this thread's own CUDA work goes to; nothing on the CPU.
    public func makeCurrent() throws(TorchError) {
        if case .cuda(let index) = self {
            try check("make cuda:\(index) current") { ct_device_make_current(Int32(index), $0) }
        }
    }

    /// Waits until everything queued on the device is done.
    public func synchronize() throws(TorchError) {
        try check("synchronize \(self)") { ct_device_synchronize(typeCode, index, $0) }
    }

    /// Gives cached, unused device memory back to the system.
    public func emptyCache() throws(TorchError) {
        try check("emptyCache \(self)") { ct_device_empty_cache(typeCode, index, $0) }
    }

    /// What this process holds on the device, in bytes. On the CPU: resident memory and its peak since the start.
    public func memory() throws(TorchError) -> MemoryStatistics {
        var raw = ct_memory_stats()
        try check("memory of \(self)") { ct_device_memory(typeCode, index, &raw, $0) }
        return MemoryStatistics(
            allocated: Int(raw.allocated), peakAllocated: Int(raw.peak_allocated), reserved: Int(raw.reserved),
            peakReserved: Int(raw.peak_reserved), free: Int(raw.free), total: Int(raw.total))
    }

    /// Starts a new peak; without effect on the CPU, whose peak the system keeps.
    public func resetPeakMemory() throws(TorchError) {
        try check("resetPeakMemory of \(self)") { ct_device_reset_peak(typeCode, index, $0) }
    }

    /// The maker's name of a CUDA device.
    public func name() throws(TorchError) -> String {
        guard isCUDA else { return "CPU" }
        var text: ct_message?
        try check("name of \(self)") { ct_device_name(index, &text, $0) }
        defer { text.map { ct_string_free($0) } }
        return text.map { String(cString: $0) } ?? ""
    }
}

/// Bytes of memory on one device.
public struct MemoryStatistics: Sendable, Hashable {
    public var allocated, peakAllocated, reserved, peakReserved, free, total: Int
}

/// The library as a whole.
public enum Torch {
    /// libtorch's version, as `2.11.0`.
    public static var version: String { String(cString: ct_torch_version()) }

    /// Opens `libtorch_cuda.so`, from `folder` or the library path. Call it before any other CUDA use; calling it twice does
    /// nothing.
    public static func loadCUDA(from folder: String = "") throws(TorchError) {
        do {
            try check("loadCUDA") { ct_cuda_load(folder, $0) }
        } catch {
            throw TorchError(
                code: .device, operation: "loadCUDA",
                message: error.message
                    + "; install torch 2.11.0 with CUDA (scripts/setup --cuda) or use device=cpu")
        }
        guard cudaDeviceCount > 0 else {
            throw TorchError(
                code: .device, operation: "loadCUDA",
                message: "libtorch_cuda.so opened but reports no device; is an NVIDIA driver running? Use device=cpu")
        }
    }

    /// CUDA devices; 0 until ``loadCUDA(from:)`` has succeeded.
    public static var cudaDeviceCount: Int { Int(ct_cuda_device_count()) }

    /// Compiles every CUDA kernel for an architecture such as `sm_90`, which needs NVRTC and no device; gives how many there are.
    public static func compileCUDAKernels(for architecture: String) throws(TorchError) -> Int {
        var count: Int32 = 0
        try check("compileCUDAKernels for \(architecture)") { ct_compile_cuda_kernels(architecture, &count, $0) }
        return Int(count)
    }

    /// Threads of one op on the CPU.
    public static var threadCount: Int {
        get { Int(ct_num_threads()) }
        set { ct_set_num_threads(Int32(newValue)) }
    }

    /// Asks every op for its deterministic form.
    public static func useDeterministicAlgorithms(_ on: Bool) { ct_set_deterministic(on) }

    /// Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16).
    public static var cpuHasNativeBFloat16: Bool { ct_cpu_has_native_bf16() }

    /// The instruction set that our CPU kernels chose: `avx512`, `avx2` or `baseline`.
    public static var cpuKernels: String { String(cString: ct_cpu_kernel_level()) }
}

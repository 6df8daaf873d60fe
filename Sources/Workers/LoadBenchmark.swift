import Checkpoints
import Models
public import TensorCore

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// How fast weights come from the disk to the device, beside how fast the disk reads.
public enum LoadBenchmark {
    public struct Measurement: Sendable {
        /// Bytes of the weights' files.
        public var bytes = 0
        /// Seconds of each load, from opening the files to weights that are there, and of each plain read of the same files.
        public var loads: [Double] = []
        public var reads: [Double] = []
        /// Seconds of all cores together that each load took: what it would be bound by on a faster disk, or a busy machine.
        public var processorSeconds: [Double] = []
        /// What the model's parameters take.
        public var weightBytes = 0
        /// The process's highest resident memory, its own code and libtorch's included.
        public var peakBytes = 0

        public var loadRate: Double { Double(bytes) / (loads.min() ?? .nan) }
        public var readRate: Double { Double(bytes) / (reads.min() ?? .nan) }
    }

    /// Reads the files and loads the model in turns, the page cache emptied of them each time.
    ///
    /// - Throws: ``WorkerError`` when `path` is no folder of safetensors; what loading throws.
    public static func run(_ path: String, dtype: DType, device: Device, repeats: Int) throws -> Measurement {
        var result = Measurement()
        for _ in 0..<repeats {
            let files = try files(path)
            let (bytes, seconds) = try DiskSpeed.measure(files)
            result.bytes = bytes
            result.reads.append(seconds)
            try DiskSpeed.dropFromCache(files)
            let start = ContinuousClock.now, used = processorSeconds()
            let model = try ModelRegistry.load(ModelSource.open(path), dtype: dtype, device: device)
            try device.synchronize()
            result.loads.append((ContinuousClock.now - start) / .seconds(1))
            result.processorSeconds.append(processorSeconds() - used)
            result.weightBytes = model.parameters.reduce(0) { $0 + $1.tensor.byteCount }
        }
        result.peakBytes = try Device.cpu.memory().peakAllocated
        return result
    }

    private static func processorSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }

    private static func files(_ path: String) throws -> [String] {
        guard case .safetensors(let model) = try ModelSource.open(path).storage else {
            throw WorkerError(.badSetting, "\(path): the load benchmark reads safetensors; GGUF is expanded on the way")
        }
        return model.files.map(\.path)
    }
}

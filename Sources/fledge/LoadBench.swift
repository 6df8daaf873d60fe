import ArgumentParser
import Foundation
import TensorCore
import Workers

struct LoadBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load", abstract: "Bytes a second from the disk to weights on the device, beside the disk's own.",
        discussion: """
            Before each load and each plain read the files are dropped from the page cache. With --shape a folder of random bits
            is written first, and removed at the end.

            EXAMPLES
              fledge bench load --model DIR --dtype bfloat16
              fledge bench load --shape qwen2-7b --folder /data/scratch
            """)

    @Option(help: "A folder of safetensors.", completion: .directory)
    var model: String?

    @Option(help: "Write random bits in this shape: \(BenchmarkShape.names.joined(separator: ", ")).")
    var shape: String?

    @Option(help: "With --shape: the existing folder to write the model into.", completion: .directory)
    var folder = "."

    @Option(help: "auto, cpu, cuda or cuda:N.")
    var device = "auto"

    @Option(help: "The type of the weights in memory: bfloat16 or float32.")
    var dtype = "bfloat16"

    @Option(help: "Loads, and plain reads between them; the fastest of each count.")
    var repeats = 2

    func validate() throws {
        if (model == nil) == (shape == nil) { throw ValidationError("give one of --model and --shape") }
        if let shape, BenchmarkShape.known[shape] == nil {
            let known = BenchmarkShape.names.joined(separator: ", ")
            throw ValidationError("--shape '\(shape)' is not known; known are \(known)")
        }
        if !["bfloat16", "float32"].contains(dtype) {
            throw ValidationError("--dtype '\(dtype)' is not bfloat16 or float32")
        }
        if repeats < 1 { throw ValidationError("--repeats \(repeats) is less than 1") }
    }

    func run() async throws {
        try await Failures.reported {
            let device = try DeviceOptions.choice(device).open()
            let path: String
            var written: String?
            if let name = shape, let shape = BenchmarkShape.known[name] {
                path = folder + "/fledge-bench-\(name)-\(ProcessInfo.processInfo.processIdentifier)"
                try shape.write(to: path)
                written = path
            } else {
                path = model ?? ""
            }
            defer { if let written { try? FileManager.default.removeItem(atPath: written) } }
            let result = try LoadBenchmark.run(
                path, dtype: dtype == "float32" ? .float32 : .bfloat16, device: device, repeats: repeats)
            BenchReport.print([
                ("case", .text("load")), ("model", .text(shape ?? path)), ("device", .text("\(device)")),
                ("dtype", .text(dtype)), ("bytes", .int(result.bytes)),
                ("load_seconds", .list(result.loads.map { BenchReport.rounded($0) })),
                ("load_cpu_seconds", .list(result.processorSeconds.map { BenchReport.rounded($0) })),
                ("read_seconds", .list(result.reads.map { BenchReport.rounded($0) })),
                ("load_gb_per_second", .number(BenchReport.rounded(result.loadRate / 1e9))),
                ("disk_gb_per_second", .number(BenchReport.rounded(result.readRate / 1e9))),
                ("ratio", .number(BenchReport.rounded(result.loadRate / result.readRate))),
                ("weights_mib", .int(result.weightBytes >> 20)), ("peak_memory_mib", .int(result.peakBytes >> 20)),
            ])
        }
    }
}

import ArgumentParser
import Cluster
import Telemetry
import TensorCore
import Workers

struct CollectivesBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "collectives", abstract: "Bytes a second between GPUs, or between processes on the CPU.",
        discussion: """
            Starts one process for each device. Every operation is first checked for what it gives, in four types; bandwidths are of
            the slowest rank's fastest run.

            EXAMPLES
              fledge bench collectives --devices 2
              fledge bench collectives --device cpu --devices 2 --sizes 1,16
            """)

    @Option(help: "GPUs, or on the CPU processes; by default all GPUs.")
    var devices: Int?

    @Option(help: "auto, cpu or cuda.")
    var device = "auto"

    @Option(help: "Megabytes (2^20 bytes) of the tensors.")
    var sizes = "1,16,128,1024"

    @Option(help: "Measured runs of each.")
    var repeats = 5

    @Option(help: "Seconds that ranks wait for one that does nothing.")
    var timeout = 60.0

    @Flag(help: "Print JSON.")
    var json = false

    private var megabytes: [Int] { sizes.split(separator: ",").compactMap { Int($0) } }

    func validate() throws {
        if !["auto", "cpu", "cuda"].contains(device) {
            throw ValidationError("--device '\(device)' is not auto, cpu or cuda")
        }
        let isList = megabytes.count == sizes.split(separator: ",").count && !megabytes.isEmpty
        guard isList, megabytes.allSatisfy({ (1...65_536).contains($0) }) else {
            throw ValidationError("--sizes '\(sizes)' is no list of megabytes from 1 to 65536, as 1,128")
        }
        if repeats < 1 { throw ValidationError("--repeats \(repeats) is less than 1") }
        if let devices, devices < 2 { throw ValidationError("--devices \(devices): an operation needs 2 or more") }
        if timeout < 0.1 { throw ValidationError("--timeout \(timeout) is less than 0.1") }
    }

    func run() async throws {
        try await Failures.reported {
            let ranks = try RankedCommand(
                count: RankedCommand.count(devices: devices, on: device), deadline: .seconds(timeout), remedy: "")
            try await ranks.run { place, members in
                guard let place, let members else { return }
                let opened = try RankedCommand.device(device, of: place)
                let benchmark = CollectiveBenchmark(device: opened, sizes: megabytes.map { $0 << 20 }, repeats: repeats)
                let results = try benchmark.run(members)
                if place.rank == 0 { try print(results, opened) }
            }
        }
    }

    private func print(_ results: [CollectiveBenchmark.Result], _ device: Device) throws {
        let backend = device == .cpu ? "gloo" : "nccl \(try ProcessGroup.ncclVersion())"
        guard json else {
            Console.say(
                "\(results.first?.ranks ?? 0) ranks, \(backend), bfloat16; all operations give the right numbers")
            for result in results {
                let rate = BenchReport.rounded(result.busBandwidth / 1e9, 100)
                let time = BenchReport.rounded(result.seconds * 1e6, 10)
                Console.say("  \(result.operation.rawValue) \(result.bytes >> 20) MB: \(time) µs, bus \(rate) GB/s")
            }
            return
        }
        var writer = JSONWriter(style: .pretty)
        writer.object { object in
            object.key("case")
            object.value("collectives")
            object.key("backend")
            object.value(backend)
            object.key("ranks")
            object.value(results.first?.ranks ?? 0)
            object.key("results")
            object.array { list in
                for result in results {
                    list.object { entry in
                        entry.key("operation")
                        entry.value(result.operation.rawValue)
                        entry.key("dtype")
                        entry.value("\(result.dtype)")
                        entry.key("bytes")
                        entry.value(result.bytes)
                        entry.key("seconds")
                        entry.value(BenchReport.rounded(result.seconds, 1e7))
                        entry.key("bus_gb_per_second")
                        entry.value(BenchReport.rounded(result.busBandwidth / 1e9, 100))
                    }
                }
            }
        }
        Console.say(writer.text)
    }
}

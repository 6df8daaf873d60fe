import ArgumentParser
import Cluster
import Collectives
import Foundation
import Telemetry
import TensorCore
import Workers

struct ReshardBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reshard", abstract: "Bytes and seconds from one layout of the weights to another.",
        discussion: """
            Layouts are products of pp, dp, fsdp, ep, sp and tp over the same ranks. By itself the command runs all ranks as threads
            on the CPU; with --devices it starts one process for each, over NCCL or on the CPU Gloo; as one of several processes
            (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in the environment) it is one rank. --plan-only needs neither
            memory nor devices.

            What arrives is compared with what it must be by digests of its bits. Beside resharding, gathering every tensor on every
            rank, layer by layer, and cutting it there is measured.

            EXAMPLES
              fledge bench reshard --shape qwen2-7b --from fsdp4 --to tp2xdp2 --devices 4 --json
              fledge bench reshard --shape qwen2-7b --from fsdp4 --to tp2×dp2 --plan-only
              fledge bench reshard --shape tiny --from fsdp2×tp4 --to tp2×dp4 --json
            """)

    @Option(help: "The model's shape: \(BenchmarkShape.names.joined(separator: ", ")).")
    var shape = "tiny"

    @Option(help: "The layout that holds the weights, as fsdp4.")
    var from: String

    @Option(help: "The layout that is to hold them, as tp2×dp2 or tp2xdp2.")
    var to: String

    @Option(help: "The type of the weights that are held: bfloat16 or float32.")
    var fromDtype = "bfloat16"

    @Option(help: "The type of the weights that are wanted.")
    var toDtype = "bfloat16"

    @Option(help: "Megabytes (2^20 bytes) that a rank sends or receives in one bucket.")
    var bucket = 128

    @Option(help: "Ranks of one node, for the choice among copies.")
    var ranksPerNode: Int?

    @Flag(help: "Use all-gathers where groups of ranks want all that they hold.")
    var gathers = false

    @Flag(help: "Let ranks take the places in the target layout that they hold most of.")
    var place = false

    @Option(help: "Runs after a first that does not count.")
    var repeats = 5

    @Option(help: "GPUs, or on the CPU processes: as many as the layouts have ranks.")
    var devices: Int?

    @Option(help: "auto, cpu or cuda.")
    var device = "auto"

    @Option(help: "Seconds that ranks wait for one that does nothing.")
    var timeout = 300.0

    @Flag(inversion: .prefixedNo, help: "Measure gathering everything too.")
    var baseline = true

    @Flag(help: "Only plan.")
    var planOnly = false

    @Flag(help: "Print JSON.")
    var json = false

    private static let types: [String: DType] = ["bfloat16": .bfloat16, "float32": .float32]

    func validate() throws {
        if BenchmarkShape.known[shape] == nil {
            let known = BenchmarkShape.names.joined(separator: ", ")
            throw ValidationError("--shape '\(shape)' is not known; known are \(known)")
        }
        for (name, type) in [("from", fromDtype), ("to", toDtype)] where Self.types[type] == nil {
            throw ValidationError("--\(name)-dtype '\(type)' is not bfloat16 or float32")
        }
        for (name, text) in [("from", from), ("to", to)] {
            do { _ = try MeshShape(parsing: text) } catch { throw ValidationError("--\(name): \(error)") }
        }
        if bucket < 1 || bucket > 1 << 20 { throw ValidationError("--bucket \(bucket) is not from 1 to \(1 << 20)") }
        if let ranksPerNode, ranksPerNode < 1 {
            throw ValidationError("--ranks-per-node \(ranksPerNode) is less than 1")
        }
        if !["auto", "cpu", "cuda"].contains(device) {
            throw ValidationError("--device '\(device)' is not auto, cpu or cuda")
        }
        if let devices, devices < 2 { throw ValidationError("--devices \(devices) is less than 2") }
        if timeout < 1 { throw ValidationError("--timeout \(timeout) is less than 1") }
        if repeats < 1 { throw ValidationError("--repeats \(repeats) is less than 1") }
    }

    func run() async throws {
        try await Failures.reported {
            guard let known = BenchmarkShape.known[shape], let fromType = Self.types[fromDtype],
                let toType = Self.types[toDtype]
            else { return }
            var benchmark = try ReshardBenchmark(
                shape: known, from: MeshShape(parsing: from), to: MeshShape(parsing: to), fromType: fromType,
                toType: toType)
            benchmark.options.bucketBytes = bucket << 20
            benchmark.options.gathers = gathers
            benchmark.places = place
            benchmark.measuresGathering = baseline
            if let ranksPerNode { benchmark.options.ranksPerNode = ranksPerNode }
            let (plan, seconds) = try benchmark.plan()
            if planOnly { return report(plan, seconds, nil) }
            guard try areProcesses else {
                return report(plan, seconds, try benchmark.runThreads(plan, repeats: repeats))
            }
            let ranks = try RankedCommand(
                count: RankedCommand.count(devices: devices ?? plan.rankCount, on: device), deadline: .seconds(timeout),
                remedy: "")
            guard ranks.count == plan.rankCount else {
                throw ValidationError("the layouts have \(plan.rankCount) ranks, and there are \(ranks.count) devices")
            }
            try await ranks.run { place, members in
                guard let place, let members else { return }
                let measured = try benchmark.run(
                    plan, members: members, device: RankedCommand.device(device, of: place), repeats: repeats)
                if place.rank == 0 { report(plan, seconds, measured) }
            }
        }
    }

    private var areProcesses: Bool {
        get throws {
            try devices != nil || device == "cuda"
                || RankEnvironment.given(ProcessInfo.processInfo.environment) != nil
        }
    }

    private func report(_ plan: ReshardPlan, _ planSeconds: Double, _ measured: ReshardBenchmark.Measurement?) {
        let traffic = plan.traffic
        let most = traffic.received.max() ?? 0, fastest = measured?.seconds.min()
        guard json else {
            let gigabytes = { (bytes: Int) in "\(BenchReport.rounded(Double(bytes) / 1e9, 1e6)) GB" }
            Console.say(
                "\(shape), \(from) \(fromDtype) to \(to) \(toDtype), \(plan.rankCount) ranks, \(plan.buckets.count) buckets"
            )
            Console.say(
                "  moved \(gigabytes(traffic.total)), \(BenchReport.rounded(traffic.saving * 100, 10)) % less than the "
                    + "\(gigabytes(traffic.gatheringAll)) of gathering all")
            for rank in 0..<plan.rankCount {
                Console.say(
                    "  rank \(rank): sends \(gigabytes(traffic.sent[rank])), receives \(gigabytes(traffic.received[rank])), keeps "
                        + gigabytes(traffic.local[rank]))
            }
            if let measured, let fastest {
                Console.say(
                    "  \(BenchReport.rounded(fastest)) s, \(BenchReport.rounded(Double(most) / fastest / 1e9, 100)) GB/s into a rank, "
                        + "\(measured.peakExtraBytes >> 20) MB of staging memory, \(measured.messages) messages")
                if let gathering = measured.gatheringSeconds.min() {
                    Console.say(
                        "  gathering all: \(BenchReport.rounded(gathering)) s, \(measured.gatheringPeakExtraBytes >> 20) MB beside "
                            + "sources and targets")
                }
            }
            return
        }
        var entries: [(String, BenchReport.Entry)] = [
            ("case", .text("reshard")), ("shape", .text(shape)), ("from", .text(from)), ("to", .text(to)),
            ("from_dtype", .text(fromDtype)), ("to_dtype", .text(toDtype)), ("ranks", .int(plan.rankCount)),
            ("buckets", .int(plan.buckets.count)), ("plan_seconds", .number(BenchReport.rounded(planSeconds))),
            ("bytes_moved", .int(traffic.total)), ("bytes_gathering_all", .int(traffic.gatheringAll)),
            ("saving", .number(BenchReport.rounded(traffic.saving))), ("bytes_all_gathered", .int(traffic.gathered)),
            ("bytes_sent", .list(traffic.sent.map(Double.init))),
            ("bytes_received", .list(traffic.received.map(Double.init))),
            ("bytes_local", .list(traffic.local.map(Double.init))),
            ("bytes_by_link", .text(traffic.links.map { "\($0.from)>\($0.to):\($0.bytes)" }.joined(separator: " "))),
        ]
        if let measured, let fastest {
            entries += [
                ("seconds", .list(measured.seconds.map { BenchReport.rounded($0, 1e6) })),
                ("best_seconds", .number(BenchReport.rounded(fastest, 1e6))),
                (
                    "median_seconds",
                    .number(BenchReport.rounded(ReshardBenchmark.Measurement.median(measured.seconds), 1e6))
                ),
                ("gb_per_second_into_a_rank", .number(BenchReport.rounded(Double(most) / fastest / 1e9, 100))),
                ("peak_extra_mib", .int(measured.peakExtraBytes >> 20)), ("messages", .int(measured.messages)),
                ("identical", .text("yes")),
                ("digests", .text(measured.digests.map { String($0, radix: 16) }.joined(separator: " "))),
            ]
            if let gathering = measured.gatheringSeconds.min() {
                entries += [
                    ("gathering_seconds", .list(measured.gatheringSeconds.map { BenchReport.rounded($0, 1e6) })),
                    ("gathering_best_seconds", .number(BenchReport.rounded(gathering, 1e6))),
                    (
                        "gathering_median_seconds",
                        .number(
                            BenchReport.rounded(ReshardBenchmark.Measurement.median(measured.gatheringSeconds), 1e6))
                    ),
                    ("gathering_peak_extra_mib", .int(measured.gatheringPeakExtraBytes >> 20)),
                ]
            }
        }
        BenchReport.print(entries)
    }
}

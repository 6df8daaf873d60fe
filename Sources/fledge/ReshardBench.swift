import ArgumentParser
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
            on the CPU; as one of several processes (RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in the environment) it is one
            rank. --plan-only needs neither memory nor devices.

            EXAMPLES
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
            if let ranksPerNode { benchmark.options.ranksPerNode = ranksPerNode }
            let (plan, seconds) = try benchmark.plan()
            var measured: ReshardBenchmark.Measurement?
            if !planOnly {
                if let place = try RankPlace.given(ProcessInfo.processInfo.environment) {
                    measured = try place.run(benchmark, plan, repeats)
                    if place.rank > 0 { return }
                } else {
                    measured = try benchmark.runThreads(plan, repeats: repeats)
                }
            }
            report(plan, seconds, measured)
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
                ("gb_per_second_into_a_rank", .number(BenchReport.rounded(Double(most) / fastest / 1e9, 100))),
                ("peak_extra_mib", .int(measured.peakExtraBytes >> 20)), ("messages", .int(measured.messages)),
            ]
        }
        BenchReport.print(entries)
    }
}

/// This process's place among several that somebody else started.
private struct RankPlace {
    let rank, size, port: Int
    let host: String

    static func given(_ variables: [String: String]) throws -> RankPlace? {
        guard let rank = variables["RANK"], let size = variables["WORLD_SIZE"] else { return nil }
        guard let rank = Int(rank), let size = Int(size), size > rank, rank >= 0, let host = variables["MASTER_ADDR"],
            let port = variables["MASTER_PORT"].flatMap({ Int($0) }), port > 0, port < 65536
        else {
            throw ValidationError(
                "RANK and WORLD_SIZE are set: MASTER_ADDR and MASTER_PORT must be too, and all must fit")
        }
        return RankPlace(rank: rank, size: size, port: port, host: host)
    }

    func run(_ benchmark: ReshardBenchmark, _ plan: ReshardPlan, _ repeats: Int) throws -> ReshardBenchmark.Measurement
    {
        guard plan.rankCount == size else {
            throw ValidationError("the layouts have \(plan.rankCount) ranks, WORLD_SIZE is \(size)")
        }
        let store = try RendezvousStore.tcp(host: host, port: port, listens: rank == 0, timeout: .seconds(60))
        let connect = { (name: String, rank: Int, size: Int) in
            try ProcessGroup.gloo(store, name: name, rank: rank, size: size, host: host, timeout: .seconds(600))
        }
        let world = try connect("world", rank, size)
        let result = try benchmark.run(plan, group: size == 1 ? nil : world, device: .cpu, repeats: repeats) { ranks in
            try connect("\(ranks)", ranks.firstIndex(of: rank) ?? 0, ranks.count)
        }
        // The store lives in rank 0.
        try world.barrier()
        return result
    }
}

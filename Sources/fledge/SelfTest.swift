import ArgumentParser
import Telemetry
import TensorCore
import Workers

struct SelfTest: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "selftest",
        abstract: "Check this machine's devices against the CPU's float32.",
        discussion: """
            EXAMPLES
              fledge selftest
              fledge selftest --device cuda --json
              fledge selftest --device cuda --kernels
            """)

    @Option(help: "auto, cpu, cuda or cuda:N.")
    var device = "auto"

    @Flag(help: "Check only what has CUDA kernels of its own.")
    var kernels = false

    @Flag(help: "Print JSON.")
    var json = false

    func run() async throws {
        try await Failures.reported {
            let device = try DeviceOptions.choice(device).open()
            var failed = 0
            var writer = JSONWriter(style: .pretty)
            var all: [(String, [SelfCheck.Result])] = []
            for dtype in [DType.float32, .bfloat16] {
                let check = SelfCheck(device: device, dtype: dtype)
                all.append(("\(device) \(dtype)", try kernels ? check.kernels() + check.training() : check.run()))
            }
            for (name, results) in all {
                failed += results.count { !$0.passed }
                guard !json else { continue }
                Console.say(name)
                for result in results {
                    let mark = result.passed ? "ok  " : "FAIL"
                    Console.say("  \(mark) \(result.name): \(result.error) (at most \(result.tolerance))")
                }
            }
            if json {
                writer.object { object in
                    object.key("passed")
                    object.value(failed == 0)
                    for (name, results) in all {
                        object.key(name)
                        object.object { checks in
                            for result in results {
                                checks.key(result.name)
                                checks.value(result.error)
                            }
                        }
                    }
                }
                Console.say(writer.text)
            }
            if failed > 0 { throw ExitCode(1) }
        }
    }
}

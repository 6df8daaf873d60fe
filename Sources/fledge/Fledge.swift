import ArgumentParser
import OrderedCollections
import TensorCore
import Workers

@main
struct Fledge: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fledge",
        abstract: "RL post-training for large language models, in one binary.",
        discussion: """
            EXAMPLES
              fledge train recipes/quickstart.yaml
              fledge train my.yaml rollout.n=16 actor.optim.lr=2e-6
              fledge generate --model models/smollm2-135m-instruct --chat "What is 3 + 4?"
              fledge runs show runs/quickstart

            EXIT CODES
              0  done           1  failed           2  the configuration or the input is wrong
              64 wrong usage    75 another rank was lost; the same command goes on
              130 stopped by Ctrl-C; what was done is saved
            """,
        subcommands: [
            Train.self, Submit.self, Plan.self, SFT.self, DPO.self, RewardModel.self, Generate.self, Chat.self,
            Tokenize.self,
            Template.self, Evaluate.self, Inspect.self,
            Export.self,
            DataCommand.self, Runs.self, Bench.self, SelfTest.self,
        ])

    // A flag of our own: the parser's version text is made at every start, and this one opens the devices.
    @Flag(help: "Show the version, torch's, and the devices.")
    var version = false

    func run() async throws {
        guard version else { throw CleanExit.helpRequest(self) }
        Console.say(Version.text)
    }
}

enum Version {
    static let number = "0.1.0"

    /// `fledge 0.1.0 (torch 2.11.0; cpu avx512; cuda: NVIDIA H200)`
    static var text: String {
        "fledge \(number) (torch \(Torch.version); devices: \(devices.joined(separator: ", ")))"
    }

    static var devices: [String] {
        var names = ["cpu (\(Torch.threadCount) threads, \(Torch.cpuKernels))"]
        do {
            guard try DeviceChoice.auto.open().isCUDA else { return names }
            for index in 0..<Torch.cudaDeviceCount { names.append("cuda:\(index) (\(try Device.cuda(index).name()))") }
        } catch {
            names.append("cuda: not usable: \(error)")
        }
        return names
    }

    static var record: OrderedDictionary<String, String> { ["fledge": number, "torch": Torch.version] }
}

import Config
import Environments
import Logging
import Rewards

/// A run's environment, from its configuration.
enum EnvironmentFactory {
    /// - Returns: nil where no episodes are played.
    /// - Throws: `EnvironmentError`, before anything else is loaded: a file that does not import, or a sandbox that does not hold.
    static func make(_ config: RunConfig, _ log: Logger) async throws -> (any Environment)? {
        guard config.rollout.multiTurn.enable else { return nil }
        let settings = config.environment
        if let path = settings.path { return try await PythonEnvironment(python(path, settings)) }
        var tools: [any Tool] = []
        do {
            for tool in settings.tools { tools.append(try await make(tool, settings, log)) }
            return try ToolEnvironment(
                tools, reward: NoReward(), shaping: .init(settings.shaping),
                resultBytes: config.rollout.multiTurn.maxToolResponseLength)
        } catch {
            for tool in tools { await tool.shutdown() }
            throw error
        }
    }

    private static func python(_ path: String, _ settings: EnvironmentSettings) -> PythonEnvironmentConfiguration {
        var python = PythonEnvironmentConfiguration(file: path)
        python.name = settings.name
        python.interpreter = settings.interpreter
        python.deadline = .seconds(settings.timeoutSeconds)
        python.cpuSeconds = settings.processorSeconds
        python.memoryLimit = settings.memoryLimitMB.map { $0 << 20 }
        return python
    }

    private static func make(
        _ tool: EnvironmentSettings.Tool, _ settings: EnvironmentSettings, _ log: Logger
    ) async throws -> any Tool {
        switch tool {
        case .calculator: return try CalculatorTool()
        case .python:
            let sandbox = try await PythonSandbox(SandboxConfiguration(settings.python))
            let open = sandbox.notEnforced.sorted().map(\.rawValue)
            if !open.isEmpty {
                log.warning(
                    """
                    environment.python: this host does NOT keep the model's code from \(open.joined(separator: ", ")), \
                    and environment.python.waive says to go on: run such code only where it may do that
                    """)
            }
            do { return try PythonTool(sandbox) } catch {
                await sandbox.shutdown()
                throw error
            }
        }
    }
}

extension ToolEnvironment.Shaping {
    init(_ settings: ShapingSettings) {
        self.init(
            firstSuccess: settings.firstSuccess, malformedReply: settings.malformedReply,
            answerWithoutTool: settings.answerWithoutTool)
    }
}

extension SandboxConfiguration {
    init(_ settings: PythonToolSettings) {
        self.init()
        interpreter = settings.interpreter
        preloaded = settings.preload
        time = .seconds(settings.timeoutSeconds)
        processorSeconds = settings.processorSeconds
        memory = settings.memoryLimitMB << 20
        concurrency = settings.concurrency
        waived = Set(settings.waive.compactMap { SandboxMeasure(rawValue: $0.rawValue) })
    }
}

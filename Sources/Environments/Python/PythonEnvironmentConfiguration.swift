/// How a Python environment is run.
public struct PythonEnvironmentConfiguration: Hashable, Sendable {
    /// The file that defines the class. Its folder is the working directory and the first place for imports.
    public var file: String
    public var name = "Environment"
    /// A name to look up in PATH, or a path: a virtual environment's `bin/python` brings that environment's packages.
    public var interpreter = "python3"
    /// The most time that one `reset`, `step`, `cut_off` or `close` may take.
    public var deadline: Duration = .seconds(30)
    /// The most time that loading the file, with all its imports, may take.
    public var startDeadline: Duration = .seconds(120)
    /// How long the process that episodes fork from may take to end one, before it is ended itself with all of them.
    public var killGrace: Duration = .seconds(30)
    /// The most address space of an episode's process (RLIMIT_AS), in bytes; nil is no limit.
    public var memoryLimit: Int? = 8 << 30
    /// The most processor time of one call (RLIMIT_CPU), in seconds, over all threads.
    public var cpuSeconds = 600
    /// The most files that an episode may have open (RLIMIT_NOFILE).
    public var openFiles = 256
    /// The most bytes of one observation, as JSON.
    public var observationBytes = 1 << 20
    /// Variables to set beside the few that are passed on; see `PythonRewardConfiguration`.
    public var environment: [String: String] = [:]

    public init(file: String) { self.file = file }

    func check() throws {
        let isValid =
            deadline > .zero && startDeadline > .zero && killGrace > .zero && cpuSeconds > 0 && openFiles >= 128
            && observationBytes >= 1024
            && memoryLimit.map { $0 > 0 } ?? true
        guard isValid else {
            throw EnvironmentError(
                .badSetting,
                "a Python environment needs deadlines, CPU seconds and a memory limit above 0, at least 128 open files "
                    + "and observations of at least 1024 bytes; it has \(self)")
        }
    }
}

/// How a Python reward file is run.
public struct PythonRewardConfiguration: Hashable, Sendable {
    /// The file that defines the function. Its folder is the working directory and the first place for imports.
    public var file: String
    /// verl's `custom_reward_function.name`.
    public var function = "compute_score"
    /// A name to look up in PATH, or a path: a virtual environment's `bin/python` brings that environment's packages.
    public var interpreter = "python3"
    /// Processes that score at the same time.
    public var workers = 2
    /// The most time that one item may take.
    public var deadline: Duration = .seconds(10)
    /// The most time that loading the file, with all its imports, may take.
    public var startDeadline: Duration = .seconds(120)
    /// How often an item whose worker died or hung is tried again. One that raises or gives garbage is not.
    public var retries = 0
    /// The most address space of a worker (RLIMIT_AS), in bytes; nil is no limit.
    public var memoryLimit: Int? = 8 << 30
    /// The most processor time that one item may use (RLIMIT_CPU), in seconds, over all threads.
    public var cpuSeconds = 600
    /// The most files that a worker may have open (RLIMIT_NOFILE).
    public var openFiles = 256
    /// Variables to set beside the few that are passed on (PATH, HOME, USER, LANG, LC_ALL, LC_CTYPE, TZ, TMPDIR,
    /// LD_LIBRARY_PATH); no other variable of this process reaches a worker, since some hold secrets.
    public var environment: [String: String] = [:]

    public init(file: String) { self.file = file }

    func check() throws {
        let isValid =
            workers > 0 && deadline > .zero && startDeadline > .zero && retries >= 0 && cpuSeconds > 0
            && openFiles >= 16 && memoryLimit.map { $0 > 0 } ?? true
        guard isValid else {
            throw RewardError(
                .badSetting,
                "a Python reward needs workers, deadlines, CPU seconds and a memory limit above 0, retries of at least 0 "
                    + "and at least 16 open files; it has \(self)")
        }
    }
}

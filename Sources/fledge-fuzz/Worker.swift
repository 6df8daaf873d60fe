import Fuzzing

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// The process that runs the inputs, and that they may kill.
struct Worker {
    /// The exit code for an input whose outcome cannot be right; its number is in the shared progress.
    static let brokenProperty: Int32 = 3

    let run: FuzzRun
    let progressPath: String
    let memoryMB: Int

    /// Runs inputs from `first` until the time or the inputs are up.
    func work(from first: Int, to end: Int?, seconds: Double) throws {
        let progress = try Progress(path: progressPath, isNew: false)
        try System.limitMemory(memoryMB << 20)
        progress.ready()
        let stop = System.now + Int64(min(seconds, 1e9) * 1e9)
        var number = first
        while System.now < stop, number < end ?? .max {
            progress.begin(number)
            switch run.outcome(of: run.input(number)) {
            case .accepted: progress.end(number, code: nil)
            case .refused(let code): progress.end(number, code: code)
            case .broken(let what):
                print("broken: \(what)")
                fflush(nil)
                exit(Self.brokenProperty)
            }
            number += 1
        }
    }
}

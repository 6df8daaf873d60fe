import Testing

/// All suites that run the executable: one process at a time, since they would only fight for the cores.
@Suite(.serialized) enum CommandSuites {}

import Testing

@testable import Fuzzing

@Suite struct FuzzingTests {}

import Flow
import Testing

@Suite struct LoopStateTests {
    @Test func `Measures at an earlier end are not those of a longer run`() {
        let state = LoopState(
            step: 4, promptState: "", evaluations: ["before:val/exact_match": 0.1, "after:val/exact_match": 0.3])
        #expect(state.goingOn(to: 4) == state)
        #expect(state.goingOn(to: 8).evaluations == ["before:val/exact_match": 0.1])
    }
}

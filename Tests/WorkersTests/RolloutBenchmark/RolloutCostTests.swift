import Testing

@testable import Workers

/// The arithmetic of what generation costs at the least, against sums done by hand.
@Suite struct RolloutCostTests {
    private let sizes = DecoderSizes(
        vocabulary: 10, hidden: 4, layers: 2, queryHeads: 2, keyValueHeads: 1, headDim: 2, intermediate: 8)
    private let machine = MachineSpeed(bandwidth: 10, peak: 20)

    @Test func countsWeights() {
        // A layer: 8x4 + 4x4 + 16x4 + 4x8 = 144; the head 10x4.
        #expect(sizes.productWeights == 2 * 144 + 40)
        #expect(sizes.layerProducts.map { $0.outputs * $0.inputs } == [32, 16, 64, 32])
        // Keys and values of one head of 2, in 2 bytes.
        #expect(sizes.cacheBytesPerToken == 8)
    }

    @Test func countsWork() {
        #expect(sizes.product(rows: 3, outputs: 8, inputs: 4) == KernelWork(bytes: 64, operations: 192))
        #expect(sizes.head(rows: 3) == KernelWork(bytes: 80 + 60, operations: 240))
        #expect(sizes.decodeAttention(rows: 3, context: 5) == KernelWork(bytes: 3 * 6 * 8, operations: 240))
        #expect(sizes.prefillAttention(prompts: 2, length: 3) == KernelWork(bytes: 96, operations: 192))
    }

    @Test func takesTheSlowerOfMemoryAndArithmetic() {
        #expect(KernelWork(bytes: 100, operations: 100).seconds(on: machine) == 10)
        #expect(KernelWork(bytes: 10, operations: 100).seconds(on: machine) == 5)
    }

    @Test func oneRowIsBoundByMemory() {
        // Products 6.4 + 3.2 + 12.8 + 6.4, attention 4.8, twice; the head 10.
        let seconds = sizes.decodeStepSeconds(rows: 1, context: 5, on: machine)
        #expect(abs(seconds - 77.2) < 1e-9)
    }

    @Test func manyRowsAreBoundByArithmetic() {
        // Products 32 + 16 + 64 + 32; attention by memory 48, twice; the head 40.
        let seconds = sizes.decodeStepSeconds(rows: 10, context: 5, on: machine)
        #expect(abs(seconds - 424) < 1e-9)
    }

    @Test func prefillSeesEveryTokenButGivesOneRowOfLogitsEach() {
        // 6 rows: 19.2 + 9.6 + 38.4 + 19.2; attention max(9.6, 9.6); the head of 2 rows max(12, 8).
        let seconds = sizes.prefillSeconds(prompts: 2, length: 3, on: machine)
        #expect(abs(seconds - (2 * (86.4 + 9.6) + 12)) < 1e-9)
    }

    @Test func stepsGrowWithTheContextAndRowsComeInWaves() {
        let work = RolloutCase(prompts: 5, input: 3, output: 3)
        let limit = RolloutLimit(work, samples: 1, maxRows: 2, sizes: sizes, machine: machine)
        func step(_ rows: Int, _ context: Int) -> Double {
            sizes.decodeStepSeconds(rows: rows, context: context, on: machine)
        }
        #expect(limit.decodeSteps == 6)
        let expected = 2 * (step(2, 4) + step(2, 5)) + step(1, 4) + step(1, 5)
        #expect(abs(limit.decodeSeconds - expected) < 1e-9)
        #expect(limit.prefillSeconds == sizes.prefillSeconds(prompts: 5, length: 3, on: machine))
        #expect(limit.seconds == limit.prefillSeconds + limit.decodeSeconds)
    }

    @Test func samplesShareAPrefill() {
        let work = RolloutCase(prompts: 2, input: 3, output: 2)
        let limit = RolloutLimit(work, samples: 4, maxRows: 8, sizes: sizes, machine: machine)
        #expect(limit.prefillSeconds == sizes.prefillSeconds(prompts: 2, length: 3, on: machine))
        #expect(limit.decodeSeconds == sizes.decodeStepSeconds(rows: 8, context: 4, on: machine))
    }

    @Test func oneTokenIsAllPrefill() {
        let limit = RolloutLimit(
            RolloutCase(prompts: 2, input: 3, output: 1), samples: 1, maxRows: 2, sizes: sizes, machine: machine)
        #expect(limit.decodeSteps == 0 && limit.decodeSeconds == 0 && limit.meanStepSeconds == 0)
    }
}

@Suite struct RolloutCaseTests {
    @Test func reads() {
        #expect(RolloutCase("256x128x1024") == RolloutCase(prompts: 256, input: 128, output: 1024))
        #expect(RolloutCase(prompts: 1, input: 2, output: 3).description == "1x2x3")
    }

    @Test(arguments: [
        "", "1x2", "1x2x3x4", "0x1x1", "1x-2x3", "+1x2x3", " 1x2x3", "1xx3", "1x2x", "ax2x3", "1X2X3", "1x2x9999999999",
        "1x2x99999999999999999999", "٣x2x3",
    ])
    func refuses(_ text: String) { #expect(RolloutCase(text) == nil) }
}

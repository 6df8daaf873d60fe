import TensorCore
import Testing

@Suite struct TensorTests {
    @Test func addsElementwise() throws {
        let a = try Tensor([1, 2, 3] as [Float])
        #expect(try a.adding(a).values(Float.self) == [2, 4, 6])
    }

    @Test func viewsAlias() throws {
        let a = try Tensor.zeros([2, 3])
        try a.narrowed(1, 1..<2).fill(5)
        #expect(try a.values(Float.self) == [0, 5, 0, 0, 5, 0])
        #expect(try a.selected(0, 1).sharesStorage(with: a))
    }

    @Test func errorsNameTheOpAndTheShapes() throws {
        let error = #expect(throws: TorchError.self) {
            try Tensor.zeros([2, 3]).matmul(Tensor.zeros([2, 3]))
        }
        let text = try #require(error).description
        #expect(text.contains("matmul") && text.contains("float32[2, 3]@cpu") && text.contains("2x3"))
    }

    @Test func refusesACountThatDoesNotFitTheShape() throws {
        #expect(throws: TorchError.self) { try Tensor([1, 2, 3] as [Float], shape: [2, 2]) }
    }

    @Test func generatorStateComesBack() throws {
        let generator = try RandomGenerator(seed: 3)
        _ = try Tensor.random([5], generator: generator)
        let state = try generator.state()
        let first = try Tensor.randomNormal([9], generator: generator).values(Float.self)
        try generator.restore(state)
        #expect(try Tensor.randomNormal([9], generator: generator).values(Float.self) == first)
    }

    @Test func gradModeIsScoped() throws {
        let x = try Tensor([2, 3] as [Float])
        try x.setRequiresGrad()
        let silent = try withNoGrad { try x.squared() }
        #expect(!silent.requiresGrad)
        try withGrad { try x.squared().sum().backward() }
        #expect(try x.grad()?.values(Float.self) == [4, 6])
    }

    @Test func checkpointGivesTheSameGradients() throws {
        let generator = try RandomGenerator(seed: 5)
        let weight = try Tensor.randomNormal([4, 4], generator: generator)
        let x = try Tensor.randomNormal([3, 4], generator: generator)
        try weight.setRequiresGrad()
        try x.setRequiresGrad()
        func body(_ input: Tensor) throws -> Tensor { try input.linear(weight).tanh().linear(weight) }
        try withGrad { try body(x).squared().sum().backward() }
        let expected = try [x, weight].map { try #require(try $0.grad()).values(Float.self) }
        try x.setGrad(nil)
        try weight.setGrad(nil)
        var runs = 0
        try withGrad {
            let result = try checkpoint([x]) {
                runs += 1
                return [try body($0[0])]
            }
            #expect(runs == 1)
            try result[0].squared().sum().backward()
        }
        #expect(runs == 2)
        #expect(try [x, weight].map { try #require(try $0.grad()).values(Float.self) } == expected)
    }

    @Test func checkpointCarriesTheErrorOfItsBody() throws {
        let x = try Tensor.ones([2])
        let error = #expect(throws: TorchError.self) {
            try checkpoint([x]) { [try $0[0].matmul(Tensor.zeros([3, 3]))] }
        }
        #expect(try #require(error).description.contains("matmul"))
    }

    @Test func fusedAdamWIsTheFormula() throws {
        let p = try Tensor([1, -2] as [Float]), g = try Tensor([0.5, 0.25] as [Float])
        let m = try Tensor.zeros([2]), v = try Tensor.zeros([2]), step = try Tensor.zeros([])
        try fusedAdamW(
            parameters: [p], grads: [g], expAvgs: [m], expAvgSqs: [v], steps: [step],
            options: AdamWOptions(learningRate: 0.1, weightDecay: 0.5))
        // First step: decay by 1 - lr * wd, then -lr * sign(g) after bias correction.
        let expected: [Float] = [1 * 0.95 - 0.1, -2 * 0.95 - 0.1]
        for (a, b) in zip(try p.values(Float.self), expected) { #expect(abs(a - b) < 1e-6) }
        #expect(try step.item() == 1)
    }

    @Test func memoryOfTheCPUIsReported() throws {
        let memory = try Device.cpu.memory()
        #expect(memory.allocated > 0 && memory.peakAllocated >= memory.allocated / 2 && memory.total > memory.free)
    }

    @Test func cudaWithoutALibraryIsAClearError() throws {
        let error = #expect(throws: TorchError.self) { try Torch.loadCUDA(from: "/nowhere") }
        #expect(try #require(error).code == .device && error?.message.contains("device=cpu") == true)
    }
}

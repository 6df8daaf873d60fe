import Models
import TensorCore
import Testing

/// Frequencies against those that `transformers` computes from the same parameters, over heads of 16.
@Suite struct RotaryTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let frequencies: RotaryFrequencies
        var length = 1
        let expected: [Float]
        var attentionFactor = 1.0
    }

    static let longRope = RotaryFrequencies(
        headDim: 16, theta: 10000,
        scaling: .longRope(
            .init(
                short: [1, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6], long: [1.5, 2, 3, 4, 6, 8, 12, 16], originalLength: 32,
                factor: 4)))
    static let dynamic = RotaryFrequencies(headDim: 16, theta: 500000, scaling: .dynamic(factor: 2, length: 128))

    static let cases: [Case] = {
        var blunt = RotaryFrequencies.YaRN(factor: 8, originalLength: 16, mscale: 1, mscaleAllDim: 0.5)
        (blunt.betaFast, blunt.betaSlow, blunt.truncates) = (8, 2, false)
        return [
            Case(
                testDescription: "linear",
                frequencies: RotaryFrequencies(headDim: 16, theta: 10000, scaling: .linear(factor: 2.5)),
                expected: [
                    0.400000006, 0.1264911, 0.0399999991, 0.0126491114, 0.00399999972, 0.00126491114, 0.000400000019,
                    0.000126491112,
                ]),
            Case(
                testDescription: "llama3",
                frequencies: RotaryFrequencies(
                    headDim: 16, theta: 500000,
                    scaling: .llama3(factor: 8, lowFrequency: 1, highFrequency: 4, originalLength: 64)),
                expected: [
                    1.0, 0.079403013, 0.00470075384, 0.000911583134, 0.000176776681, 3.42810235e-05, 6.64786967e-06,
                    1.28917316e-06,
                ]),
            Case(
                testDescription: "yarn",
                frequencies: RotaryFrequencies(
                    headDim: 16, theta: 10000, scaling: .yarn(.init(factor: 4, originalLength: 32))),
                expected: [
                    1.0, 0.197642356, 0.0250000004, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012,
                    7.90569466e-05,
                ], attentionFactor: 1.138629436111989),
            Case(
                testDescription: "yarn with mscale and untruncated ramp",
                frequencies: RotaryFrequencies(headDim: 16, theta: 10000, scaling: .yarn(blunt)),
                expected: [
                    1.0, 0.0395284705, 0.0125000002, 0.00395284733, 0.00124999997, 0.000395284733, 0.000125000006,
                    3.95284733e-05,
                ], attentionFactor: 1.094179988101349),
            Case(
                testDescription: "dynamic at its length", frequencies: dynamic, length: 128,
                expected: [
                    1.0, 0.193922758, 0.0376060307, 0.00729266508, 0.00141421345, 0.000274248188, 5.31829573e-05,
                    1.03133852e-05,
                ]),
            Case(
                testDescription: "dynamic beyond", frequencies: dynamic, length: 200,
                expected: [
                    1.0, 0.174125835, 0.0303198043, 0.00527946092, 0.000919290411, 0.000160072203, 2.78727039e-05,
                    4.8533575e-06,
                ]),
            Case(
                testDescription: "longrope, short", frequencies: longRope, length: 32,
                expected: [
                    1.0, 0.301169306, 0.0909090936, 0.0263523124, 0.0076923077, 0.00225876993, 0.00066666666,
                    0.000197642366,
                ], attentionFactor: 1.1832159566199232),
            Case(
                testDescription: "longrope, long", frequencies: longRope, length: 33,
                expected: [
                    0.666666687, 0.158113882, 0.0333333351, 0.00790569466, 0.00166666671, 0.000395284733,
                    8.33333324e-05, 1.97642366e-05,
                ], attentionFactor: 1.1832159566199232),
        ]
    }()

    @Test(arguments: cases) func frequencies(test: Case) {
        let got = test.frequencies.inverse(length: test.length)
        #expect(got.count == test.expected.count)
        for (a, b) in zip(got, test.expected) { #expect(abs(a - b) <= 3e-7 * b, "\(a) for \(b)") }
        #expect(abs(test.frequencies.attentionFactor - test.attentionFactor) < 1e-12)
    }

    // MARK: - Sequences of several lengths in one pass

    static func segments(_ lengths: [(Int, Int?)]) -> [PackedSegment] {
        var start = 0
        return lengths.map { length, parent in
            defer { start += length }
            return PackedSegment(start: start, length: length, parent: parent)
        }
    }

    @Test func extentsSpanTheSequencesThroughARun() {
        let extents = PackedAttention(segments: Self.segments([(4, nil), (3, 0), (2, 1), (9, 1), (6, nil), (1, 0)]))
            .extents()
        #expect(extents.map(\.shortest) == [5, 9, 9, 16, 6, 5])
        #expect(extents.map(\.longest) == [16, 16, 9, 16, 6, 5])
        #expect(extents[2].tokens == 7..<9)
    }
}

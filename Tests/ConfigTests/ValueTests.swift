import Testing

@testable import Config

@Suite struct ValueTests {
    typealias Value = ConfigNode.Scalar.Value

    @Test(arguments: [
        ("", Value.null), ("~", .null), ("null", .null), ("NULL", .null), ("nUll", .string), ("true", .bool(true)),
        ("False", .bool(false)), ("yes", .string), ("no", .string), ("on", .string), ("0", .integer(0)),
        ("-12", .integer(-12)), ("+3", .integer(3)), ("0x1F", .integer(31)), ("0o17", .integer(15)), ("0x-1", .string),
        ("0x", .string), ("012", .string), ("1_000", .string), ("9223372036854775807", .integer(.max)),
        ("9223372036854775808", .oversizeInteger), ("1e-6", .number(1e-6)), ("1E+3", .number(1000)),
        (".5", .number(0.5)),
        ("5.", .number(5)), ("-0.25", .number(-0.25)), ("1e", .string), ("e5", .string), (".", .string), ("+", .string),
        ("-", .string), ("1e5x", .string), ("0.5.1", .string), (".inf", .number(.infinity)), ("inf", .string),
        ("12:30", .string),
        ("1e999", .number(.infinity)), ("٣", .string),
    ])
    func coreSchema(_ text: String, _ value: Value) {
        #expect(ConfigNode.Scalar(text: text, isPlain: true).value == value)
        #expect(ConfigNode.Scalar(text: text, isPlain: false).value == .string)
    }

    @Test(arguments: [
        ("kl", KLEstimator(.logRatio)), ("k1", KLEstimator(.logRatio)), ("abs", KLEstimator(.absolute)),
        ("mse", KLEstimator(.meanSquared)), ("k2", KLEstimator(.meanSquared)),
        ("low_var_kl", KLEstimator(.lowVariance)),
        ("k3", KLEstimator(.lowVariance)), ("k3+", KLEstimator(.lowVariance, usesSquaredGradient: true)),
        ("kl+", KLEstimator(.logRatio, usesSquaredGradient: true)),
    ])
    func estimators(_ word: String, _ estimator: KLEstimator) throws {
        #expect(try read(minimal, "actor.kl_loss_type=\(word)").actor.klLossType == estimator)
    }

    @Test(arguments: [("cpu", RunConfig.Device.cpu), ("auto", .auto), ("cuda", .cuda(nil)), ("cuda:3", .cuda(3))])
    func devices(_ word: String, _ device: RunConfig.Device) throws {
        #expect(try read(minimal, "device=\(word)").device == device)
        #expect(device.word == word)
    }

    @Test(arguments: ["cuda:", "cuda:-1", "cuda:01", "cuda:+1", "cuda:99999", "gpu", "CPU"])
    func noDevice(_ word: String) {
        #expect(problems(minimal, ["device='\(word)'"]).map(\.code) == [.outOfRange])
    }

    @Test func arithmeticForms() throws {
        let config = try read(minimal, "data.arithmetic.forms=['+', '*-']")
        #expect(config.data.arithmetic.forms.map(\.signs) == [[.add], [.multiply, .subtract]])
        #expect(problems(minimal, ["data.arithmetic.forms=['+', '/']"]).map(\.code) == [.outOfRange])
        #expect(problems(minimal, ["data.arithmetic.forms='++++'"]).map(\.code) == [.outOfRange])
    }

    @Test func clipDefaults() throws {
        let actor = try read(minimal, "actor.clip_ratio=0.1", "actor.clip_ratio_high=0.3").actor
        #expect(actor.clipLow == 0.1)
        #expect(actor.clipHigh == 0.3)
    }

    @Test(arguments: [
        ("", "abc", 3), ("kitten", "sitting", 3), ("temperature", "tempertaure", 1), ("lr", "lr", 0), ("ab", "ba", 1),
        ("n", "", 1),
    ])
    func distance(_ left: String, _ right: String, _ expected: Int) {
        #expect(editDistance(Array(left.utf8), Array(right.utf8)) == expected)
        #expect(editDistance(Array(right.utf8), Array(left.utf8)) == expected)
    }

    /// What is said to be a setting's name here is one.
    @Test func peersNamesLeadToSettings() {
        let declared = Set(RunConfig.described(by: KnownNames()).map(\.keyPath))
        for (name, answer) in PeerNames.table {
            #expect(!declared.contains(name), "\(name) is a setting")
            guard case .here(let text) = answer, let first = text.split(whereSeparator: { " :,".contains($0) }).first
            else { continue }
            #expect(declared.contains(String(first)), "\(name) leads to \(first)")
        }
        #expect(Set(PeerNames.table.map(\.name)).count == PeerNames.table.count)
    }
}

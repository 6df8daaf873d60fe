import Flow
import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// What a worker process finds in its environment: its name, its controller, and the run's token.
public struct WorkerPlace: Sendable, Hashable {
    public var name: String
    public var controller: Address
    public var settings: TransportSettings

    public init(name: String, controller: Address, settings: TransportSettings) {
        self.name = name
        self.controller = controller
        self.settings = settings
    }

    private enum Names {
        static let name = "FLEDGE_WORKER"
        static let controller = "FLEDGE_CONTROLLER"
        static let token = "FLEDGE_TOKEN"
        static let beat = "FLEDGE_BEAT_MS"
        static let lost = "FLEDGE_LOST_AFTER_MS"
        static let limit = "FLEDGE_MESSAGE_LIMIT"
    }

    public var variables: [String: String] {
        var all = settings.tls?.variables ?? [:]
        all[Names.name] = name
        all[Names.controller] = "\(controller)"
        all[Names.token] = settings.token.text
        all[Names.beat] = "\(settings.beat / .milliseconds(1))"
        all[Names.lost] = "\(settings.lostAfter / .milliseconds(1))"
        all[Names.limit] = "\(settings.messageLimit)"
        return all
    }

    /// The place that `variables` give; nil where this process is nobody's worker.
    /// - Throws: ``ClusterError`` with code `badEnvironment`.
    public static func given(_ variables: [String: String]) throws(ClusterError) -> WorkerPlace? {
        guard let name = variables[Names.name], !name.isEmpty else { return nil }
        guard let controller = variables[Names.controller], let token = variables[Names.token].flatMap(RunToken.init)
        else {
            throw ClusterError(
                .badEnvironment,
                "\(Names.name) is '\(name)', but \(Names.controller) or \(Names.token) is missing or no token")
        }
        var settings = TransportSettings(token: token, tls: try TransportSettings.TLS.given(variables))
        func duration(_ name: String) -> Duration? {
            variables[name].flatMap(Double.init).flatMap { $0 > 0 ? .milliseconds($0) : nil }
        }
        if let beat = duration(Names.beat) { settings.beat = beat }
        if let lost = duration(Names.lost) { settings.lostAfter = lost }
        if let limit = variables[Names.limit].flatMap(Int.init), limit > 0 { settings.messageLimit = limit }
        return WorkerPlace(name: name, controller: try Address(controller), settings: settings)
    }

    /// Takes the token out of this process's environment, so that what it starts does not get it.
    public static func forgetToken() { unsetenv(Names.token) }

    /// Tells the controller where this worker is.
    /// - Throws: ``Flow/WorkerCallError``.
    public func register(at address: Address, within deadline: Duration = .seconds(60)) async throws {
        let client = try WorkerClient(name: "the controller", address: controller, settings: settings)
        defer { client.close() }
        let introduction = WorkerIntroduction(name: name, address: address, processID: getpid())
        _ = try await client.introduce(introduction, timeout: deadline)
    }
}

extension TransportSettings.TLS {
    private enum Names {
        static let authority = "FLEDGE_TLS_CA"
        static let certificate = "FLEDGE_TLS_CERTIFICATE"
        static let key = "FLEDGE_TLS_KEY"
    }

    var variables: [String: String] {
        [Names.authority: authority, Names.certificate: certificate, Names.key: key]
    }

    /// The files that `variables` name; nil where they name none.
    /// - Throws: ``ClusterError`` with code `badEnvironment` where some but not all are named.
    public static func given(_ variables: [String: String]) throws(ClusterError) -> TransportSettings.TLS? {
        let found = [Names.authority, Names.certificate, Names.key].map { name in
            variables[name].flatMap { $0.isEmpty ? nil : $0 }
        }
        if let authority = found[0], let certificate = found[1], let key = found[2] {
            return TransportSettings.TLS(authority: authority, certificate: certificate, key: key)
        }
        guard found.allSatisfy({ $0 == nil }) else {
            throw ClusterError(
                .badEnvironment,
                "\(Names.authority), \(Names.certificate) and \(Names.key) go together: PEM files of the authority, of "
                    + "this host's certificate and of its key")
        }
        return nil
    }
}

/// How a worker presents itself to its controller.
struct WorkerIntroduction: Codable, Sendable {
    var name: String
    var address: Address
    var processID: Int32
}

extension WorkerClient {
    func introduce(_ introduction: WorkerIntroduction, timeout: Duration) async throws -> [UInt8] {
        try await ask(
            Wire.Registry.register, try CallCoder.encode(introduction), timeout: timeout)
    }
}

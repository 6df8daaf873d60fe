/// How the controller and its workers talk.
public struct TransportSettings: Sendable, Hashable {
    /// Certificates for both ends of every connection, as PEM files. Each end must show one that the authority signed.
    public struct TLS: Sendable, Hashable {
        public var authority: String
        public var certificate: String
        public var key: String

        public init(authority: String, certificate: String, key: String) {
            self.authority = authority
            self.certificate = certificate
            self.key = key
        }
    }

    public var token: RunToken
    /// nil: no encryption, which is meant for loopback and for networks that are closed.
    public var tls: TLS?
    /// The longest message, in bytes.
    public var messageLimit = 1 << 30
    /// Time between two heartbeats.
    public var beat = Duration.seconds(1)
    /// A worker that answers no heartbeat for so long is lost, however its last call is doing. A worker that gets none for three
    /// times as long ends.
    public var lostAfter = Duration.seconds(30)
    /// Time without traffic after which a connection is tried.
    public var keepAlive = Duration.seconds(20)

    public init(token: RunToken = .random(), tls: TLS? = nil) {
        self.token = token
        self.tls = tls
    }

    /// How many heartbeats in a row may fail, each within its part of ``lostAfter``. A process that stood still, and sees one fail
    /// because of that, so blames nobody.
    static let beatsUntilLost = 4
    var beatTimeout: Duration { max(.milliseconds(50), lostAfter / Self.beatsUntilLost) }
}

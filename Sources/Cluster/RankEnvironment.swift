/// This process's place among the ranks, as the environment gives it: that of ``Launcher``, or of torchrun, mpirun or Slurm.
public struct RankEnvironment: Sendable, Hashable {
    public var rank: Int
    public var size: Int
    /// The place on this host, which decides the device.
    public var localRank: Int
    /// Where the ranks find one another.
    public var host: String
    public var port: Int
    /// A listening socket for the store, which rank 0 inherited.
    public var storeSocket: Int32?
    /// Whether somebody else keeps the store (torchrun's agent); else rank 0 does.
    public var hasForeignStore: Bool
    /// Goes before the keys of the store, which may be older than this process.
    public var storePrefix: String
    /// The process id of the ``Launcher``; nil where another one started this process.
    public var launcher: Int32?
    /// The ranks that are lost and started anew together, of which this is one; nil: all.
    public var gang: [Int]?
    /// Where there are several gangs: the port of the store by which they find one another, on this host.
    public var linkPort: Int?

    /// How many ranks a host may have, and a job.
    static let most = 65_536

    init(
        rank: Int, size: Int, localRank: Int, host: String, port: Int, storeSocket: Int32? = nil,
        hasForeignStore: Bool = false, storePrefix: String = "", launcher: Int32? = nil
    ) {
        self.rank = rank
        self.size = size
        self.localRank = localRank
        self.host = host
        self.port = port
        self.storeSocket = storeSocket
        self.hasForeignStore = hasForeignStore
        self.storePrefix = storePrefix
        self.launcher = launcher
    }

    /// The place that `variables` give; nil where they give none, and this process is alone.
    ///
    /// `RANK` and `WORLD_SIZE` count before Open MPI's and Slurm's variables. Slurm's are heeded only where `MASTER_ADDR` is
    /// set, since it sets its own for the script of a batch job too.
    /// - Throws: ``ClusterError`` with code `badEnvironment`.
    public static func given(_ variables: [String: String]) throws(ClusterError) -> RankEnvironment? {
        let families: [(rank: String, size: String, local: String)] = [
            ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
            ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
        ]
        let isSet = { (name: String) in variables[name].map { !$0.isEmpty } ?? false }
        guard
            let family = families.first(where: {
                isSet($0.rank) && isSet($0.size) && (!$0.rank.hasPrefix("SLURM") || isSet("MASTER_ADDR"))
            })
        else { return nil }
        func number(_ name: String, in range: Range<Int>) throws(ClusterError) -> Int {
            guard let text = variables[name], !text.isEmpty else {
                throw ClusterError(.badEnvironment, "\(family.rank) is set, but \(name) is not")
            }
            guard let number = Int(text), range.contains(number) else {
                throw ClusterError(
                    .badEnvironment,
                    "the environment's \(name) is '\(text)': it must be an integer from \(range.lowerBound) to \(range.upperBound - 1)"
                )
            }
            return number
        }
        let size = try number(family.size, in: 1..<most)
        // One rank that somebody else started is a run like any other.
        if size == 1 { return nil }
        guard let host = variables["MASTER_ADDR"], !host.isEmpty else {
            throw ClusterError(
                .badEnvironment,
                "\(family.rank) and \(family.size) say that this is one rank of \(size); set MASTER_ADDR and MASTER_PORT to an address "
                    + "of rank 0's host that all ranks reach, or unset them to let fledge start the ranks")
        }
        let restarts = variables["TORCHELASTIC_RESTART_COUNT"] ?? "0"
        var place = RankEnvironment(
            rank: try number(family.rank, in: 0..<size), size: size, localRank: try number(family.local, in: 0..<size),
            host: host, port: try number("MASTER_PORT", in: 1..<65_536),
            storeSocket: variables[Names.socket].flatMap(Int32.init),
            hasForeignStore: variables["TORCHELASTIC_USE_AGENT_STORE"] == "True", storePrefix: "fledge/\(restarts)/",
            launcher: variables[Names.launcher].flatMap(Int32.init))
        if let text = variables[Names.gang] {
            guard let gang = RankSpans.ranks(text), gang.contains(place.rank), gang.allSatisfy({ $0 < size }) else {
                throw ClusterError(
                    .badEnvironment, "the environment's \(Names.gang) is '\(text)': no ranks, or without this one")
            }
            place.gang = gang
            place.linkPort = try number(Names.link, in: 1..<65_536)
        }
        return place
    }

    /// This rank's place among those of its gang, and how many these are.
    public var placeInGang: Int { gang?.firstIndex(of: rank) ?? rank }
    public var gangSize: Int { gang?.count ?? size }

    enum Names {
        static let socket = "FLEDGE_STORE_SOCKET"
        static let launcher = "FLEDGE_LAUNCHER"
        static let gang = "FLEDGE_GANG"
        static let link = "FLEDGE_LINK_PORT"
    }

    /// The variables of this place, for a process that is to take it.
    var variables: [String: String] {
        var all = [
            "RANK": "\(rank)", "WORLD_SIZE": "\(size)", "LOCAL_RANK": "\(localRank)", "MASTER_ADDR": host,
            "MASTER_PORT": "\(port)",
        ]
        all[Names.socket] = storeSocket.map { "\($0)" }
        all[Names.launcher] = launcher.map { "\($0)" }
        all[Names.gang] = gang.map(RankSpans.text)
        all[Names.link] = linkPort.map { "\($0)" }
        return all
    }
}

/// Numbers of ranks as text: `0-3,8`.
enum RankSpans {
    static func text(_ ranks: [Int]) -> String {
        var spans: [ClosedRange<Int>] = []
        for rank in ranks {
            if let last = spans.last, last.upperBound + 1 == rank {
                spans[spans.count - 1] = last.lowerBound...rank
            } else {
                spans.append(rank...rank)
            }
        }
        return spans.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }
            .joined(separator: ",")
    }

    /// Ascending; nil where the text has none.
    static func ranks(_ text: String) -> [Int]? {
        var ranks: [Int] = []
        for span in text.split(separator: ",", omittingEmptySubsequences: false) {
            let ends = span.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
            guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2, first <= last,
                first > ranks.last ?? -1, last < RankEnvironment.most
            else { return nil }
            ranks += first...last
        }
        return ranks
    }
}

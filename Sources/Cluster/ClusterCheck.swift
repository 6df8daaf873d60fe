import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What a host says of itself before a run of several hosts starts.
public struct HostFacts: Sendable, Hashable, Codable {
    public var address: String
    public var hostname = ""
    /// The same for all that run on one machine.
    public var boot = ""
    /// Names and versions of what must be the same everywhere.
    public var versions: [String: String] = [:]
    public var interfaces: [NetworkInterface] = []
    /// InfiniBand or RoCE adapters with a port that is up.
    public var infiniBand: [String] = []
    /// Variables that steer NCCL and Gloo.
    public var variables: [String: String] = [:]
    /// Bytes of `/dev/shm`: all, and free.
    public var sharedMemory = 0, freeSharedMemory = 0
    public var openFiles = 0
    public var gpus = 0
    /// Why the next host's address cannot be reached from this one; nil: it can.
    public var unreachable: String?
    /// Whether the run's folder shows what rank 0's host wrote to it; nil: nobody asked.
    public var seesRunFolder: Bool?

    public init(address: String) { self.address = address }

    /// This host's.
    public static func here(
        address: String, versions: [String: String], variables: [String: String]
    ) -> HostFacts {
        var facts = HostFacts(address: address)
        var name = utsname()
        if uname(&name) == 0 {
            facts.hostname = withUnsafeBytes(of: name.nodename) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
        }
        facts.boot = ThisHost.boot
        facts.versions = versions
        facts.interfaces = NetworkInterface.all()
        facts.infiniBand = infiniBandHere()
        facts.variables = variables.filter { $0.key.hasPrefix("NCCL_") || $0.key.hasPrefix("GLOO_") }
        var disk = statvfs()
        if statvfs("/dev/shm", &disk) == 0 {
            facts.sharedMemory = Int(disk.f_blocks) * Int(disk.f_frsize)
            facts.freeSharedMemory = Int(disk.f_bavail) * Int(disk.f_frsize)
        }
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
            facts.openFiles = Int(min(limit.rlim_cur, 1 << 40))
        }
        facts.gpus = VisibleDevices.count()
        return facts
    }

    private static func infiniBandHere() -> [String] {
        let root = "/sys/class/infiniband"
        let devices = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
        return devices.sorted().filter { device in
            let ports = (try? FileManager.default.contentsOfDirectory(atPath: "\(root)/\(device)/ports")) ?? []
            return ports.contains {
                (try? String(contentsOfFile: "\(root)/\(device)/ports/\($0)/state", encoding: .utf8))?.contains(
                    "ACTIVE")
                    ?? false
            }
        }
    }
}

/// Settings of several hosts that people get wrong, looked at before the first step.
public enum ClusterCheck {
    public struct Finding: Sendable, Hashable, CustomStringConvertible {
        /// Whether the run cannot go well; else it may be slow, or fail later.
        public var isFatal: Bool
        public var message: String
        public var description: String { message }
    }

    /// The fewest files that a rank needs open beside many others: sockets to each of them, data, checkpoints.
    static let leastOpenFiles = 4096
    /// NCCL's and Gloo's buffers, and the boards.
    static let leastSharedMemory = 1 << 30

    /// What is wrong with hosts that are to work together.
    public static func findings(_ hosts: [HostFacts]) -> [Finding] {
        var found: [Finding] = []
        func add(_ isFatal: Bool, _ message: String) { found.append(Finding(isFatal: isFatal, message: message)) }
        let machines = Set(hosts.map(\.boot)).count
        for host in hosts {
            let name = "host \(host.address) (\(host.hostname))"
            if let unreachable = host.unreachable { add(true, unreachable) }
            let interface = host.interfaces.first { $0.address == host.address }
            if machines > 1, host.address.hasPrefix("127.") || interface?.isLoopback == true {
                add(
                    true,
                    "\(name) would be reached by a loopback address, which leads nowhere from the other hosts; set cluster.interface, "
                        + "or mend its entry in /etc/hosts")
            }
            if host.seesRunFolder == false {
                add(
                    true,
                    "\(name) does not see the run's folder as rank 0's host writes it; make trainer.default_local_dir a folder that all "
                        + "hosts share")
            }
            if host.openFiles > 0, host.openFiles < leastOpenFiles {
                add(false, "\(name) lets a process open \(host.openFiles) files only; raise it: ulimit -n 65536")
            }
            if host.gpus > 0, host.sharedMemory > 0, host.freeSharedMemory < leastSharedMemory {
                add(
                    false,
                    "\(name) has \(host.freeSharedMemory >> 20) MiB free of \(host.sharedMemory >> 20) in /dev/shm; NCCL keeps its buffers "
                        + "there: start the container with --shm-size=8g or --ipc=host")
            }
            infiniBand(host, name, add)
        }
        for name in Set(hosts.flatMap(\.versions.keys)).sorted() {
            let versions = Set(hosts.map { $0.versions[name] ?? "none" }).sorted()
            guard versions.count > 1 else { continue }
            let text = hosts.map { "\($0.address) has \($0.versions[name] ?? "none")" }.joined(separator: ", ")
            add(true, "the hosts have different versions of \(name): \(text); install the same everywhere")
        }
        for name in Set(hosts.flatMap(\.variables.keys)).sorted() where !isOfHost(name) {
            let values = Set(hosts.map { $0.variables[name] ?? "unset" })
            guard values.count > 1 else { continue }
            let text = hosts.map { "\($0.address): \($0.variables[name] ?? "unset")" }.joined(separator: ", ")
            add(false, "\(name) is not the same on all hosts (\(text)); NCCL may hang where it is not")
        }
        if Set(hosts.map(\.infiniBand.isEmpty)).count > 1 {
            let lacking = hosts.filter(\.infiniBand.isEmpty).map(\.address).joined(separator: ", ")
            add(false, "InfiniBand is up on some hosts and not on \(lacking): all of them will use the slow network")
        }
        return found
    }

    /// Interfaces and adapters have other names on other machines.
    private static func isOfHost(_ variable: String) -> Bool {
        ["NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_TOPO_FILE", "NCCL_DEBUG_FILE"].contains(
            variable)
    }

    private static func infiniBand(_ host: HostFacts, _ name: String, _ add: (Bool, String) -> Void) {
        let isOff = host.variables["NCCL_IB_DISABLE"].map { $0 != "0" && !$0.isEmpty } ?? false
        if !host.infiniBand.isEmpty, isOff {
            add(
                false,
                "\(name) has InfiniBand (\(host.infiniBand.joined(separator: ", "))), and NCCL_IB_DISABLE turns it off; unset it"
            )
        }
        if host.infiniBand.isEmpty, let adapters = host.variables["NCCL_IB_HCA"], !adapters.isEmpty, !isOff {
            add(
                false,
                "\(name) has no InfiniBand port that is up, and NCCL_IB_HCA asks for \(adapters); unset it, or mend the port"
            )
        }
        guard let wanted = host.variables["NCCL_SOCKET_IFNAME"], !wanted.isEmpty else { return }
        // `^` excludes, `=` is exact, else a name's beginning.
        let excludes = wanted.hasPrefix("^")
        let names = wanted.drop { $0 == "^" || $0 == "=" }.split(separator: ",").map(String.init)
        let fitting = host.interfaces.filter { interface in
            interface.isUp && names.contains { interface.name.hasPrefix($0) } != excludes
        }
        if fitting.isEmpty {
            let there = host.interfaces.map(\.name).joined(separator: ", ")
            add(true, "\(name) has no interface for NCCL_SOCKET_IFNAME=\(wanted); it has \(there)")
        } else if host.interfaces.contains(where: { $0.address == host.address }),
            !fitting.contains(where: { $0.address == host.address })
        {
            add(
                false,
                "\(name) is reached by \(host.address), and NCCL by \(fitting.map(\.name).joined(separator: ", ")) "
                    + "(NCCL_SOCKET_IFNAME=\(wanted)); set cluster.interface to the same")
        }
    }

    /// What is wrong with the places that Ray gave.
    public static func findings(_ places: [RayPlace], nodes: [RayNode]) -> [Finding] {
        var found: [Finding] = []
        var seen: Set<String> = []
        for place in places where seen.insert(place.node).inserted {
            let name = "node \(place.node) (\(place.hostname))"
            let store = Int(nodes.first { $0.address == place.node }?.store ?? 0)
            if place.shmTotal > 0, store > place.shmTotal {
                found.append(
                    Finding(
                        isFatal: false,
                        message:
                            "\(name): Ray's object store of \(store >> 20) MiB is more than /dev/shm, \(place.shmTotal >> 20) MiB, and lies on "
                            + "the disk; start the container with a larger --shm-size, or Ray with a smaller --object-store-memory"
                    ))
            }
            if place.shmTotal > 0, place.shmFree < 64 << 20 {
                found.append(
                    Finding(
                        isFatal: false,
                        message:
                            "\(name) has \(place.shmFree >> 20) MiB free in /dev/shm; ranks of one node show one another there what they do"
                    ))
            }
            if place.spillFree < 1 << 30 {
                found.append(
                    Finding(
                        isFatal: false,
                        message:
                            "\(name) has \(place.spillFree >> 20) MiB free where Ray spills objects and writes logs; a full disk ends the node: "
                            + "give it a larger --temp-dir"))
            }
            if place.openFiles < leastOpenFiles {
                found.append(
                    Finding(
                        isFatal: false,
                        message:
                            "\(name) lets a process open \(place.openFiles) files only; raise it before ray start: ulimit -n 65536"
                    ))
            }
        }
        return found
    }
}

import Testing

@testable import Cluster

@Suite struct ClusterCheckTests {
    /// Two hosts with nothing wrong.
    private func hosts(_ change: (inout [HostFacts]) -> Void = { _ in }) -> [HostFacts] {
        var hosts = [1, 2].map { number in
            var facts = HostFacts(address: "10.0.0.\(number)")
            facts.hostname = "node\(number)"
            facts.boot = "boot\(number)"
            facts.versions = ["fledge": "1", "torch": "2.11.0"]
            facts.interfaces = [
                NetworkInterface(name: "lo", address: "127.0.0.1", isUp: true, isLoopback: true),
                NetworkInterface(name: "eth0", address: "10.0.0.\(number)", isUp: true, isLoopback: false),
                NetworkInterface(name: "ib0", address: "10.1.0.\(number)", isUp: true, isLoopback: false),
            ]
            facts.infiniBand = ["mlx5_0"]
            facts.sharedMemory = 64 << 30
            facts.freeSharedMemory = 60 << 30
            facts.openFiles = 65536
            facts.gpus = 8
            return facts
        }
        change(&hosts)
        return hosts
    }

    @Test func hostsWithNothingWrongHaveNoFindings() { #expect(ClusterCheck.findings(hosts()).isEmpty) }

    struct Case: Sendable, CustomTestStringConvertible {
        var message: String
        var isFatal: Bool
        var change: @Sendable (inout [HostFacts]) -> Void
        var testDescription: String { message }
    }

    static let cases: [Case] = [
        Case(message: "no answer", isFatal: true) { $0[1].unreachable = "host 10.0.0.1 …: there is no answer" },
        Case(message: "loopback address", isFatal: true) { $0[1].address = "127.0.1.1" },
        Case(message: "different versions of torch: 10.0.0.1 has 2.11.0, 10.0.0.2 has 2.10.0", isFatal: true) {
            $0[1].versions["torch"] = "2.10.0"
        },
        Case(message: "does not see the run's folder", isFatal: true) { $0[1].seesRunFolder = false },
        Case(message: "open 1024 files only", isFatal: false) { $0[0].openFiles = 1024 },
        Case(message: "64 MiB free of 64 in /dev/shm", isFatal: false) {
            $0[0].sharedMemory = 64 << 20
            $0[0].freeSharedMemory = 64 << 20
        },
        Case(message: "NCCL_IB_DISABLE turns it off", isFatal: false) {
            for host in $0.indices { $0[host].variables["NCCL_IB_DISABLE"] = "1" }
        },
        Case(message: "NCCL_IB_HCA asks for mlx5", isFatal: false) {
            for host in $0.indices {
                $0[host].infiniBand = []
                $0[host].variables["NCCL_IB_HCA"] = "mlx5"
            }
        },
        Case(message: "InfiniBand is up on some hosts and not on 10.0.0.2", isFatal: false) { $0[1].infiniBand = [] },
        Case(message: "no interface for NCCL_SOCKET_IFNAME=bond; it has lo, eth0, ib0", isFatal: true) {
            $0[0].variables["NCCL_SOCKET_IFNAME"] = "bond"
        },
        Case(message: "reached by 10.0.0.1, and NCCL by ib0", isFatal: false) {
            $0[0].variables["NCCL_SOCKET_IFNAME"] = "ib"
        },
        Case(message: "NCCL_ALGO is not the same on all hosts (10.0.0.1: Ring, 10.0.0.2: unset)", isFatal: false) {
            $0[0].variables["NCCL_ALGO"] = "Ring"
        },
    ]

    @Test(arguments: cases) func whatIsWrongIsSaid(wrong: Case) {
        let found = ClusterCheck.findings(hosts(wrong.change))
        #expect(!found.isEmpty)
        for finding in found {
            #expect(finding.message.contains(wrong.message) && finding.isFatal == wrong.isFatal, "\(found)")
        }
    }

    @Test func containersOfOneMachineMayUseLoopback() {
        let found = ClusterCheck.findings(
            hosts {
                for host in $0.indices {
                    $0[host].boot = "same"
                    $0[host].address = "127.0.0.\(host + 2)"
                }
            })
        #expect(found.isEmpty, "\(found)")
    }

    @Test func raysPlacesAreLookedAt() {
        let node = RayNode(address: "10.0.0.1", hostname: "n", id: "x", cpus: 8, gpus: 0, store: Double(2 << 30))
        var place = RayPlace(
            node: "10.0.0.1", hostname: "n", gpus: [], port: nil, directory: "/", cores: 8, shmTotal: 4 << 30,
            shmFree: 3 << 30, spillFree: 100 << 30, openFiles: 65536)
        #expect(ClusterCheck.findings([place, place], nodes: [node]).isEmpty)
        place.shmTotal = 64 << 20
        place.shmFree = 1 << 20
        place.spillFree = 100 << 20
        place.openFiles = 1024
        let found = ClusterCheck.findings([place, place], nodes: [node])
        #expect(found.count == 4 && !found.contains(where: \.isFatal), "\(found)")
        #expect(found[0].message.contains("object store of 2048 MiB is more than /dev/shm, 64 MiB"), "\(found)")
    }

    @Test func thisHostIsDescribed() {
        let facts = HostFacts.here(
            address: "127.0.0.1", versions: ["fledge": "1"], variables: ["NCCL_DEBUG": "INFO", "HOME": "/root"])
        #expect(facts.variables == ["NCCL_DEBUG": "INFO"] && !facts.boot.isEmpty && !facts.hostname.isEmpty)
        #expect(facts.openFiles > 0 && facts.interfaces.contains { $0.isLoopback && $0.address == "127.0.0.1" })
    }

    @Test func doorsAreKnockedAt() throws {
        let door = try HostDoor(address: "127.0.0.2")
        let port = door.port
        #expect(HostDoor.knock("127.0.0.2", port, from: "127.0.0.3") == nil)
        door.close()
        #expect(
            HostDoor.knock("127.0.0.2", port, from: "127.0.0.3")?.contains("cannot be reached from 127.0.0.3") == true)
        #expect(throws: ClusterError.self) { try HostDoor(address: "192.0.2.77") }
    }

    @Test func interfacesGiveTheAddress() throws {
        let place = try ThisHost.place([:], interface: "lo", peer: "127.0.0.1", memory: "/tmp")
        #expect(place.address == "127.0.0.1")
        #expect(throws: ClusterError.self) {
            try ThisHost.place([:], interface: "none7", peer: "127.0.0.1", memory: "/tmp")
        }
        let given = try ThisHost.place([ThisHost.addressVariable: "127.0.0.9"], peer: "127.0.0.1", memory: "/tmp")
        #expect(given.address == "127.0.0.9" && given.identity != place.identity)
        #expect(
            try ThisHost.place([:], peer: "127.0.0.1", memory: "/tmp")
                == ThisHost.place([:], peer: "127.0.0.1", memory: "/tmp"))
    }
}

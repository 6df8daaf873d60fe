// swift-tools-version: 6.2
import PackageDescription

// `scripts/setup` leaves libtorch here: an unpacked wheel, or a link to the install that FLEDGE_TORCH names.
let torch = Context.packageDirectory + "/.deps/torch"

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let linkTorch: [LinkerSetting] = [
    .unsafeFlags([
        "-L\(torch)/lib", "-Xlinker", "-rpath", "-Xlinker", "\(torch)/lib",
        // Only what every host has: libtorch_cuda is opened at run time, when a CUDA device is asked for.
        "-Xlinker", "--as-needed",
    ]),
    .linkedLibrary("torch_cpu"),
    .linkedLibrary("c10"),
]

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let asyncHTTPClient = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let grpc = Target.Dependency.product(name: "GRPCCore", package: "grpc-swift-2")
let grpcTransport = Target.Dependency.product(name: "GRPCNIOTransportHTTP2Posix", package: "grpc-swift-nio-transport")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let orderedCollections = Target.Dependency.product(name: "OrderedCollections", package: "swift-collections")
let subprocess = Target.Dependency.product(name: "Subprocess", package: "swift-subprocess")
let systemPackage = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

func layer(_ name: String, _ dependencies: [Target.Dependency] = [], resources: [Resource] = []) -> Target {
    .target(name: name, dependencies: dependencies, resources: resources, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .testTarget(
        name: name + "Tests", dependencies: [.target(name: name), "TestSupport"] + dependencies, resources: resources,
        swiftSettings: strict)
}

let package = Package(
    name: "fledge",
    products: [.executable(name: "fledge", targets: ["fledge"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/grpc/grpc-swift-2", from: "2.4.3"),
        .package(url: "https://github.com/grpc/grpc-swift-nio-transport", from: "2.9.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    ],
    targets: [
        // Layer 0
        .target(
            name: "CTorch",
            // Text for NVRTC, embedded.
            exclude: ["cuda"],
            cxxSettings: [
                .headerSearchPath("gloo_names"),
                .unsafeFlags([
                    "-I\(torch)/include", "-I\(torch)/include/torch/csrc/api/include", "-O3", "-fno-math-errno",
                    "-Wno-deprecated-declarations",
                ]),
            ],
            linkerSettings: linkTorch),
        .target(name: "CNoICUData"),
        .target(name: "CProcess"),
        // Only a header: scripts/setup --parquet builds shim/, which is opened at run time.
        .target(name: "CArrow", exclude: ["shim"]),
        // Layer 1
        layer("TensorCore", ["CTorch"]),
        // Layer 1, torch-free
        layer("RolloutCore", [heap]),
        layer("ChatTemplates", [orderedCollections]),
        layer("Tokenizers", [orderedCollections]),
        layer("Conversations", ["ChatTemplates", "Tokenizers"]),
        layer("Telemetry", [logging, orderedCollections]),
        layer("Config", [yams, orderedCollections]),
        // Layer 2
        layer("Collectives", ["TensorCore"]),
        layer("Checkpoints", ["TensorCore", "Collectives", orderedCollections]),
        // Layer 3
        layer("Models", ["TensorCore", "Collectives", "Checkpoints"]),
        layer("PolicyAlgorithms", ["TensorCore"]),
        // Layer 4
        layer("RolloutEngine", ["TensorCore", "Collectives", "Models", "RolloutCore"]),
        layer("TrainingEngine", ["TensorCore", "Collectives", "Models", "PolicyAlgorithms", "Checkpoints"]),
        layer("PythonProcesses", [subprocess, systemPackage]),
        layer("Rewards", ["PythonProcesses", asyncHTTPClient, nioCore, nioHTTP1, nioSSL, orderedCollections]),
        layer("Datasets", ["CArrow"]),
        layer(
            "Environments",
            [
                "ChatTemplates", "Conversations", "Datasets", "PythonProcesses", "Rewards", "Tokenizers",
                orderedCollections,
            ]),
        // Layer 5, torch-free
        layer("Flow", ["Telemetry", logging, orderedCollections]),
        layer(
            "Cluster",
            ["CProcess", "Flow", "PythonProcesses", asyncHTTPClient, grpc, grpcTransport, logging, nioCore, nioHTTP1]),
        // Layer 6
        layer(
            "Workers",
            [
                "PolicyAlgorithms", "ChatTemplates", "Checkpoints", "Cluster", "Collectives", "Config", "Conversations",
                "Datasets", "Environments", "Flow", "Models", "Rewards", "RolloutCore", "RolloutEngine", "Telemetry",
                "TensorCore", "Tokenizers", "TrainingEngine",
                logging,
                orderedCollections,
            ]),
        // Layer 8
        .executableTarget(
            name: "fledge",
            dependencies: [
                "CNoICUData", "PolicyAlgorithms", "ChatTemplates", "Checkpoints", "Cluster", "Collectives", "Config",
                "Conversations", "Datasets", "Environments", "Flow", "Models", "Rewards", "RolloutCore",
                "RolloutEngine",
                "Telemetry", "TensorCore", "Tokenizers", "TrainingEngine", "Workers",
                argumentParser, logging, orderedCollections,
            ],
            swiftSettings: strict),
        // Development tools: no product, and in no bundle
        layer(
            "Fuzzing", ["ChatTemplates", "Checkpoints", "Models", "TensorCore", "Tokenizers", orderedCollections]),
        .executableTarget(
            name: "fledge-fuzz", dependencies: ["Fuzzing", argumentParser], swiftSettings: strict),
        // Tests
        .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: strict),
        .target(
            name: "ChatTestSupport", dependencies: ["ChatTemplates", "Conversations", "TestSupport", "Tokenizers"],
            path: "Tests/ChatTestSupport", swiftSettings: strict),
        tests("TensorCore", []),
        tests("Collectives", ["TensorCore"]),
        tests("Cluster", ["Flow", asyncHTTPClient, grpc, logging]),
        tests("Flow", ["Telemetry", logging, orderedCollections]),
        tests("ChatTemplates", [orderedCollections]),
        tests("Tokenizers", []),
        tests("Conversations", ["ChatTemplates", "ChatTestSupport", "Tokenizers"], resources: [.copy("Fixtures")]),
        tests("Telemetry", [orderedCollections]),
        tests("Config", []),
        tests("Checkpoints", ["TensorCore", "Collectives"]),
        tests("Models", ["TensorCore", "Collectives", "Checkpoints", orderedCollections]),
        tests("PolicyAlgorithms", ["TensorCore"]),
        tests("RolloutCore", []),
        tests("RolloutEngine", ["TensorCore", "Collectives", "Models", "RolloutCore", "Tokenizers"]),
        tests(
            "TrainingEngine",
            ["TensorCore", "Collectives", "Models", "PolicyAlgorithms", "Checkpoints", orderedCollections]),
        tests("Rewards", [nioCore, nioHTTP1, nioPosix, nioSSL, orderedCollections]),
        tests("Datasets", []),
        tests(
            "Environments",
            [
                "ChatTemplates", "ChatTestSupport", "Conversations", "Datasets", "PythonProcesses", "Rewards",
                "Tokenizers", orderedCollections,
            ]),
        tests("Fuzzing", ["fledge-fuzz"]),
        tests("Workers", ["Config", "Flow", "Rewards", "Datasets", "Telemetry", logging, orderedCollections]),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "TestSupport", "fledge", "ChatTemplates", "Checkpoints", "Config", "Environments", "Flow", "Models",
                "Rewards", "Telemetry", "TensorCore", "Workers", logging, orderedCollections, subprocess, systemPackage,
            ],
            swiftSettings: strict),
    ],
    cxxLanguageStandard: .cxx20
)

public import Flow
import Synchronization

/// Pulls rows from the workers that keep them; connections are made once and kept.
public final class RowsPuller: RowsSource {
    private let settings: TransportSettings
    private let own: (address: String, rows: RowsStore)?
    private let clients = Mutex<[String: WorkerClient]>([:])

    /// - Parameter own: this process's rows, which need no connection.
    public init(_ settings: TransportSettings, own: (address: String, rows: RowsStore)? = nil) {
        self.settings = settings
        self.own = own
    }

    public func pull(_ reference: RowsReference) async throws -> [[UInt8]] {
        if let own, own.address == reference.address {
            guard let rows = own.rows.rows(reference.id, reference.rows.map(\.index)) else {
                throw WorkerCallError(
                    .missingRows, "\(reference.owner) keeps no rows \(reference.id): they were released",
                    worker: reference.owner)
            }
            return rows
        }
        return try await client(reference).pull(reference)
    }

    private func client(_ reference: RowsReference) throws -> WorkerClient {
        let address = try Address(reference.address)
        return try clients.withLock { clients in
            if let known = clients[reference.address] { return known }
            let made = try WorkerClient(name: reference.owner, address: address, settings: settings)
            clients[reference.address] = made
            return made
        }
    }

    public func close() {
        for client in clients.withLock({ clients in
            defer { clients = [:] }
            return Array(clients.values)
        }) { client.close() }
    }
}

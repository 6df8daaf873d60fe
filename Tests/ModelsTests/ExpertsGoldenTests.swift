import Checkpoints
import Foundation
import Models
import TensorCore
import TestSupport
import Testing

/// Experts are stored as one here; what leaves is what came.
@Suite struct ExpertsGoldenTests {
    @Test(arguments: ModelsGoldenTests.Fixture.all) func namesAndValuesOfAnExportAreTheCheckpoints(
        fixture: ModelsGoldenTests.Fixture
    ) throws {
        let source = try ModelSource.open(fixture.folder.path)
        let model = try ModelRegistry.load(source)
        guard model.experts != nil else { return }
        let exported = try model.namedTensors()
        #expect(Set(exported.map(\.name)) == Set(source.tensorNames))
        for (name, tensor) in exported {
            #expect(try tensor.contiguous().equals(source.tensor(named: name, dtype: .float32)), "\(name)")
        }
    }
}

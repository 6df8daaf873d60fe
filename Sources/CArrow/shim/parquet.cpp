// libfledge-parquet.so: Parquet through Arrow's C++ library, behind the C interface of carrow.h.
// Arrow's C++ interface changes with each major version: scripts/setup builds this against the one it will run with.
#include "carrow.h"

#include <arrow/api.h>
#include <arrow/c/bridge.h>
#include <arrow/io/file.h>
#include <arrow/json/api.h>
#include <arrow/util/config.h>
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/schema.h>
#include <parquet/arrow/writer.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

char *copy(const std::string &text) {
    char *owned = static_cast<char *>(malloc(text.size() + 1));
    if (owned) memcpy(owned, text.c_str(), text.size() + 1);
    return owned;
}

// Runs `body`, turning whatever it throws into an owned message: the one place where C++ exceptions end.
template <class Body> int guarded(char **error, Body &&body) noexcept {
    try {
        body();
        return 0;
    } catch (const std::exception &failure) {
        *error = copy(failure.what());
    } catch (...) {
        *error = copy("unknown C++ exception");
    }
    return -1;
}

void check(const arrow::Status &status) {
    if (!status.ok()) throw std::runtime_error(status.message());
}
template <class Value> Value take(arrow::Result<Value> result) {
    check(result.status());
    return std::move(result).ValueUnsafe();
}

} // namespace

struct fp_reader {
    std::unique_ptr<parquet::arrow::FileReader> file;
    std::shared_ptr<arrow::Schema> schema;
    std::unique_ptr<arrow::RecordBatchReader> rows;
};

namespace {

int open(const char *path, fp_reader **out, char **error) {
    return guarded(error, [&] {
        parquet::ReaderProperties properties(arrow::default_memory_pool());
        // Column chunks are read as they are decoded, not whole.
        properties.enable_buffered_stream();
        parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
        arrow_properties.set_pre_buffer(false);
        parquet::arrow::FileReaderBuilder builder;
        check(builder.Open(take(arrow::io::ReadableFile::Open(path)), properties));
        builder.properties(arrow_properties);
        auto reader = std::make_unique<fp_reader>();
        reader->file = take(builder.Build());
        check(reader->file->GetSchema(&reader->schema));
        *out = reader.release();
    });
}

void close(fp_reader *reader) { delete reader; }

int summary(fp_reader *reader, fp_summary *out, char **error) {
    return guarded(error, [&] {
        const auto metadata = reader->file->parquet_reader()->metadata();
        *out = {metadata->num_rows(), metadata->num_row_groups(), 0};
        for (int group = 0; group < metadata->num_row_groups(); ++group)
            out->bytes += metadata->RowGroup(group)->total_byte_size();
    });
}

int schema(fp_reader *reader, ArrowSchema *out, char **error) {
    return guarded(error, [&] { check(arrow::ExportSchema(*reader->schema, out)); });
}

void add_leaves(const parquet::arrow::SchemaField &field, std::vector<int> &leaves) {
    if (field.children.empty() && field.column_index >= 0) leaves.push_back(field.column_index);
    for (const auto &child : field.children) add_leaves(child, leaves);
}

int start(fp_reader *reader, const int *columns, int count, int64_t batch_rows, ArrowSchema *out, char **error) {
    return guarded(error, [&] {
        const auto &fields = reader->file->manifest().schema_fields;
        std::vector<int> leaves, groups(reader->file->num_row_groups());
        for (int i = 0; i < count; ++i) {
            if (columns[i] < 0 || static_cast<size_t>(columns[i]) >= fields.size())
                throw std::out_of_range("no column " + std::to_string(columns[i]));
            add_leaves(fields[columns[i]], leaves);
        }
        for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int>(i);
        reader->rows.reset();
        reader->file->set_batch_size(batch_rows);
        reader->rows = take(reader->file->GetRecordBatchReader(groups, leaves));
        check(arrow::ExportSchema(*reader->rows->schema(), out));
    });
}

int next(fp_reader *reader, ArrowArray *out, bool *has_batch, char **error) {
    return guarded(error, [&] {
        if (!reader->rows) throw std::logic_error("no pass was begun");
        const auto batch = take(reader->rows->Next());
        *has_batch = batch != nullptr;
        if (!batch) return;
        // Offsets inside their buffers, text that is UTF-8: who reads the buffers need not doubt them.
        check(batch->ValidateFull());
        check(arrow::ExportRecordBatch(*batch, out));
    });
}

const char *loaded() { return arrow::GetBuildInfo().version_string.c_str(); }

// Reads the types of carrow.h.
class TypeText {
  public:
    explicit TypeText(const char *text) : at(text) {}

    std::shared_ptr<arrow::DataType> type(int depth = 0) {
        if (depth > 128) throw std::invalid_argument("types nest too deeply");
        switch (*at++) {
        case 's': return arrow::utf8();
        case 'i': return arrow::int64();
        case 'd': return arrow::float64();
        case 'b': return arrow::boolean();
        case 'n': return arrow::null();
        case '[': return arrow::list(type(depth + 1));
        case '{': {
            const size_t count = number();
            skip(' ');
            arrow::FieldVector fields;
            for (size_t i = 0; i < count; ++i) {
                const size_t length = number();
                skip(':');
                if (strnlen(at, length) != length) throw std::invalid_argument("a name is cut short");
                std::string name(at, length);
                at += length;
                fields.push_back(arrow::field(std::move(name), type(depth + 1)));
            }
            return arrow::struct_(fields);
        }
        default: throw std::invalid_argument("unknown type");
        }
    }

  private:
    const char *at;

    size_t number() {
        char *end;
        const size_t value = strtoull(at, &end, 10);
        if (end == at) throw std::invalid_argument("a number is missing");
        at = end;
        return value;
    }
    void skip(char expected) {
        if (*at++ != expected) throw std::invalid_argument("unexpected character");
    }
};

int write_json(const char *json_lines, const char *types, const char *path, int64_t row_group_bytes, char **error) {
    return guarded(error, [&] {
        auto parse = arrow::json::ParseOptions::Defaults();
        parse.explicit_schema = arrow::schema(TypeText(types).type()->fields());
        parse.unexpected_field_behavior = arrow::json::UnexpectedFieldBehavior::Error;
        auto read = arrow::json::ReadOptions::Defaults();
        read.use_threads = false;
        read.block_size = static_cast<int32_t>(row_group_bytes);
        auto rows = take(arrow::json::StreamingReader::Make(take(arrow::io::ReadableFile::Open(json_lines)), read, parse));
        auto file = take(arrow::io::FileOutputStream::Open(path));
        auto properties = parquet::WriterProperties::Builder().compression(arrow::Compression::ZSTD)->build();
        // The Arrow schema is kept, so that types that Parquet lacks (null) come back.
        auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
        auto writer = take(parquet::arrow::FileWriter::Open(
            *parse.explicit_schema, arrow::default_memory_pool(), file, properties, arrow_properties));
        while (auto batch = take(rows->Next())) {
            auto table = take(arrow::Table::FromRecordBatches({batch}));
            check(writer->WriteTable(*table, std::max<int64_t>(1, table->num_rows())));
        }
        check(writer->Close());
        check(file->Close());
    });
}

const fp_api api = {FP_INTERFACE, ARROW_VERSION_STRING, loaded, open, close, summary, schema, start, next, write_json};

} // namespace

extern "C" __attribute__((visibility("default"))) const fp_api *fledge_parquet(void) { return &api; }

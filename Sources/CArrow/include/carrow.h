// The plain C face of the Parquet reader: libfledge-parquet.so, which `scripts/setup --parquet` builds from
// shim/parquet.cpp against one version of Arrow's C++ library. It is opened at run time, when a Parquet file is named;
// nothing links it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The Arrow C Data Interface: https://arrow.apache.org/docs/format/CDataInterface.html
#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE
struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};
struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};
#endif

typedef struct fp_reader fp_reader;

typedef struct fp_summary {
    int64_t rows;
    int64_t row_groups;
    // Of all columns, decompressed.
    int64_t bytes;
} fp_summary;

// The version of this interface: a library that reports another is not called.
#define FP_INTERFACE 1

// Functions that can fail give 0, or -1 with an owned text in `error` for free(). No C++ exception leaves them.
// A reader or writer is used by one thread at a time.
typedef struct fp_api {
    int interface;
    // Arrow's version at compile time (`26.0.1`), and of the library that was loaded.
    const char *built_for;
    const char *(*loaded)(void);

    int (*open)(const char *path, fp_reader **out, char **error);
    void (*close)(fp_reader *);
    int (*summary)(fp_reader *, fp_summary *out, char **error);
    // The top-level columns; the caller releases it.
    int (*schema)(fp_reader *, struct ArrowSchema *out, char **error);
    // Begins a pass over all rows with the top-level columns `columns`, at most `batch_rows` at a time. `out` gets their
    // schema, in the file's order.
    int (*start)(fp_reader *, const int *columns, int count, int64_t batch_rows, struct ArrowSchema *out, char **error);
    // The next rows as a validated struct array; false in `has_batch` after the last. The caller releases it.
    int (*next)(fp_reader *, struct ArrowArray *out, bool *has_batch, char **error);

    // Writes the rows of a JSON Lines file as Parquet (zstd). `types` names the columns and their types:
    //   s string, i int64, d double, b boolean, n null, [T list of T, {N k:name T … struct of N fields, k bytes of name.
    // A whole schema is a struct. `row_group_bytes` is about the JSON text of a row group, and bounds memory.
    int (*write_json)(const char *json_lines, const char *types, const char *path, int64_t row_group_bytes, char **error);
} fp_api;

// The library's only symbol, by this name.
typedef const fp_api *(*fp_entry)(void);
#define FP_ENTRY "fledge_parquet"

#ifdef __cplusplus
}
#endif

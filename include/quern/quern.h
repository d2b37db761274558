/* quern from C: the compiled library only (quern::quern, quern::core). Nothing here throws.
 *
 *   quern_error* e = NULL;
 *   quern_model* m; quern_engine* g; quern_session* s; quern_tensor out;
 *   if (quern_model_load("m.onnx", NULL, &m, &e) || quern_model_compile(m, NULL, &g, &e) || quern_session_create(g, &s, &e) ||
 *       quern_session_bind(s, "x", &x, &e) || quern_session_run(s, &e) || quern_session_output(s, "y", &out, &e))
 *       puts(quern_error_message(e));
 *
 * Functions that may fail return a status and, where `error` is not null, put an error there that the caller frees; outputs are
 * set on success only. Every handle has a free function, which takes null too; handles may be freed in any order. */
#ifndef QUERN_H
#define QUERN_H
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define QUERN_C_API
#else
#define QUERN_C_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum quern_status {
    QUERN_OK = 0,
    QUERN_INVALID_ARGUMENT = 1, /* the caller passed something that cannot be meant */
    QUERN_INVALID_MODEL = 2,    /* not a well-formed ONNX model */
    QUERN_UNSUPPORTED = 3,      /* well-formed, but an operator, type or revision is not implemented */
    QUERN_SHAPE_MISMATCH = 4,   /* shapes or types of inputs do not fit the model */
    QUERN_IO = 5,
    QUERN_OUT_OF_MEMORY = 6,    /* an allocation failed or a limit would be exceeded */
    QUERN_CANCELLED = 7,
    QUERN_DEADLINE_EXCEEDED = 8,
    QUERN_DEVICE = 9,           /* the accelerator or its driver reported a failure */
    QUERN_INTERNAL = 10,        /* a defect of quern */
    QUERN_STATUS_WIDTH = 0x7fffffff /* no status: makes every int a value of the type, so that a wrong one can be refused */
} quern_status;

/* ONNX's numbers of element types. */
typedef enum quern_dtype {
    QUERN_UNDEFINED = 0, QUERN_FLOAT = 1, QUERN_UINT8 = 2, QUERN_INT8 = 3, QUERN_UINT16 = 4, QUERN_INT16 = 5, QUERN_INT32 = 6, QUERN_INT64 = 7,
    QUERN_STRING = 8, QUERN_BOOL = 9, QUERN_FLOAT16 = 10, QUERN_DOUBLE = 11, QUERN_UINT32 = 12, QUERN_UINT64 = 13, QUERN_COMPLEX64 = 14, QUERN_COMPLEX128 = 15,
    QUERN_BFLOAT16 = 16, QUERN_FLOAT8E4M3FN = 17, QUERN_FLOAT8E4M3FNUZ = 18, QUERN_FLOAT8E5M2 = 19, QUERN_FLOAT8E5M2FNUZ = 20,
    QUERN_UINT4 = 21, QUERN_INT4 = 22, QUERN_FLOAT4E2M1 = 23, QUERN_FLOAT8E8M0 = 24, QUERN_UINT2 = 25, QUERN_INT2 = 26, QUERN_FLOAT6E2M3 = 27, QUERN_FLOAT6E3M2 = 28,
    QUERN_DTYPE_WIDTH = 0x7fffffff /* no type, as above */
} quern_dtype;

typedef struct quern_error quern_error;
typedef struct quern_model quern_model;     /* a loaded model; immutable */
typedef struct quern_engine quern_engine;   /* compiled for this machine; immutable, shared by threads */
typedef struct quern_session quern_session; /* the memory of one run; one for each thread */

/* A dense row-major tensor that belongs to someone else. The data of strings are `const char* const*`. */
typedef struct quern_tensor {
    quern_dtype dtype;
    int32_t rank;
    const int64_t* dims;
    void* data;
} quern_tensor;

/* An input or output as the model declares it; valid as long as the model. */
typedef struct quern_port {
    const char* name;
    quern_dtype dtype;
    int32_t rank;        /* -1: not known before running */
    const int64_t* dims; /* -1: not known before running */
} quern_port;

/* Set `size` to sizeof and all else to 0 for the defaults. */
typedef struct quern_options {
    size_t size;
    const char* device;    /* null: "cpu" */
    int32_t threads;       /* 0: as many as the process may use */
    int32_t portable_only; /* not 0: only the portable kernels */
    int32_t not_optimized; /* not 0: without the optimizations that are not needed to run */
    size_t memory_limit;   /* bytes; 0: none */
    double deadline;       /* seconds of one run; 0: none */
} quern_options;

/* An ONNX function as the meaning of an operator: a serialized FunctionProto, in force from opset `since` of its domain on. */
typedef struct quern_function {
    const void* bytes;
    size_t size;
    int64_t since;
} quern_function;

struct quern_custom_op;
typedef struct quern_load_options {
    size_t size;
    const char* external_data_dir;                       /* null: the model file's folder */
    size_t memory_limit;
    const struct quern_custom_op* const* custom_ops;     /* copied */
    size_t custom_op_count;
    const quern_function* functions;                     /* for operators that quern lacks or has in an older revision; copied */
    size_t function_count;
} quern_load_options;

/* 10000 * major + 100 * minor + patch */
QUERN_C_API uint32_t quern_version(void);
QUERN_C_API const char* quern_status_name(quern_status status);
QUERN_C_API quern_status quern_error_status(const quern_error* error);
/* What is wrong, what would be accepted, and where. */
QUERN_C_API const char* quern_error_message(const quern_error* error);
QUERN_C_API void quern_error_free(quern_error* error);

QUERN_C_API quern_status quern_model_load(const char* path, const quern_load_options* options, quern_model** model, quern_error** error);
/* The bytes must stay as they are as long as the model and its engines live. */
QUERN_C_API quern_status quern_model_from_bytes(const void* bytes, size_t size, const quern_load_options* options, quern_model** model, quern_error** error);
QUERN_C_API void quern_model_free(quern_model* model);
QUERN_C_API size_t quern_model_input_count(const quern_model* model);
QUERN_C_API size_t quern_model_output_count(const quern_model* model);
/* Null where there are not so many. */
QUERN_C_API const quern_port* quern_model_input(const quern_model* model, size_t i);
QUERN_C_API const quern_port* quern_model_output(const quern_model* model, size_t i);

QUERN_C_API quern_status quern_model_compile(const quern_model* model, const quern_options* options, quern_engine** engine, quern_error** error);
QUERN_C_API void quern_engine_free(quern_engine* engine);
QUERN_C_API quern_status quern_session_create(const quern_engine* engine, quern_session** session, quern_error** error);
QUERN_C_API void quern_session_free(quern_session* session);

/* The data are read where they are and must stay until the run has ended (strings are copied). */
QUERN_C_API quern_status quern_session_bind(quern_session* session, const char* name, const quern_tensor* tensor, quern_error** error);
/* Output `name` is written there, directly where that is possible; a run that gives another type or shape fails. Not for strings. */
QUERN_C_API quern_status quern_session_bind_output(quern_session* session, const char* name, const quern_tensor* tensor, quern_error** error);
/* Keys or values of text decoding that grow where they are, without being copied: `memory` is float [B, H, C, D] with room for C positions, of which
 * `input` [B, H, P, D] is the first `length` of each head. A run writes what `output` has beyond that behind them, and the next run's input is as long as
 * this output was. Its memory must stay until the session ends or another is bound (quern_session_bind ends the cache); quern_session_output gives it.
 * QUERN_UNSUPPORTED: the message names the pairs that can grow so. A run that would need more room fails with QUERN_SHAPE_MISMATCH and changes nothing. */
QUERN_C_API quern_status quern_session_bind_cache(quern_session* session, const char* input, const char* output, const quern_tensor* memory, int64_t length,
                                                  quern_error** error);
QUERN_C_API quern_status quern_session_run(quern_session* session, quern_error** error);
/* A view of the last run's output, valid until the next one. */
QUERN_C_API quern_status quern_session_output(quern_session* session, const char* name, quern_tensor* tensor, quern_error** error);

/* ---- operators of the application ---- */

typedef struct quern_infer quern_infer; /* a node before it runs */
typedef struct quern_call quern_call;   /* one run of a node */

/* A dimension of an output that is not known yet: infer() is asked again when all are, and sizes() tells what is open even then. */
#define QUERN_DIM_UNKNOWN ((int64_t)-1)
/* The same as dimension d of input i, known or not. */
#define QUERN_DIM_OF(i, d) (INT64_MIN + (int64_t)(i) * 64 + (d))

/* Functions return QUERN_OK, or a status after quern_infer_fail() or quern_call_fail(). They are called from any thread, several at a
 * time. Strings are not passed to them. */
typedef struct quern_custom_op {
    size_t size; /* sizeof(quern_custom_op) */
    const char* domain;
    const char* name;
    int32_t min_inputs, max_inputs, min_outputs, max_outputs;
    int32_t impure;           /* not 0: same inputs may give other outputs */
    int32_t replaces_builtin; /* not 0: takes the place of an operator that quern has */
    void* user;               /* handed to each function; must live as long as models and engines that use the operator */
    quern_status (*infer)(void* user, quern_infer* node);
    quern_status (*run)(void* user, const quern_call* call);
    quern_status (*sizes)(void* user, quern_call* call); /* null, or: quern_call_set_size for each size that infer() left open */
} quern_custom_op;

QUERN_C_API int32_t quern_infer_input_count(const quern_infer* node);
/* dims hold -1 where a size is not known; data is null but for constants. False: there is no such input. */
QUERN_C_API int quern_infer_input(const quern_infer* node, int32_t i, quern_tensor* input);
QUERN_C_API void quern_infer_output(quern_infer* node, int32_t o, quern_dtype dtype, int32_t rank, const int64_t* dims);
QUERN_C_API quern_status quern_infer_fail(quern_infer* node, quern_status status, const char* message);
QUERN_C_API int64_t quern_infer_attribute_int(const quern_infer* node, const char* name, int64_t otherwise);
QUERN_C_API float quern_infer_attribute_float(const quern_infer* node, const char* name, float otherwise);
/* Valid until the function returns; null where absent. */
QUERN_C_API const char* quern_infer_attribute_string(const quern_infer* node, const char* name);

QUERN_C_API int quern_call_input(const quern_call* call, int32_t i, quern_tensor* input);
QUERN_C_API int quern_call_output(const quern_call* call, int32_t o, quern_tensor* output);
QUERN_C_API void quern_call_set_size(quern_call* call, int32_t output, int32_t dim, int64_t size);
QUERN_C_API quern_status quern_call_fail(const quern_call* call, quern_status status, const char* message);
QUERN_C_API int64_t quern_call_attribute_int(const quern_call* call, const char* name, int64_t otherwise);
QUERN_C_API float quern_call_attribute_float(const quern_call* call, const char* name, float otherwise);
QUERN_C_API const char* quern_call_attribute_string(const quern_call* call, const char* name);
/* tile(context, i) once for each i in [0, n), on the run's threads. */
QUERN_C_API void quern_call_parallel(const quern_call* call, int64_t n, void (*tile)(void* context, int64_t i), void* context);

#ifdef __cplusplus
}
#endif
#endif

/* quern from C: a model, its ports, a run, errors, and an operator of the program's own in place of Softmax. */
#include <quern/quern.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

static int failures = 0;
static void expect(int what, const char* text) {
    if (!what) printf("failed: %s\n", text), ++failures;
}
#define EXPECT(x) expect(!!(x), #x)

/* The exponentials alone: the probabilities times a common factor. */
static quern_status infer(void* user, quern_infer* node) {
    quern_tensor x;
    int64_t dims[2] = {QUERN_DIM_OF(0, 0), QUERN_DIM_OF(0, 1)};
    ++*(int*)user;
    if (!quern_infer_input(node, 0, &x) || x.rank != 2) return quern_infer_fail(node, QUERN_SHAPE_MISMATCH, "a matrix is accepted");
    quern_infer_output(node, 0, x.dtype, 2, dims);
    return QUERN_OK;
}
struct Rows { const float* x; float* y; int64_t width; };
static void row(void* context, int64_t r) {
    struct Rows* t = (struct Rows*)context;
    int64_t i;
    for (i = r * t->width; i < (r + 1) * t->width; ++i) t->y[i] = expf(t->x[i]);
}
static quern_status run(void* user, const quern_call* call) {
    quern_tensor x, y;
    struct Rows rows;
    (void)user;
    if (!quern_call_input(call, 0, &x) || !quern_call_output(call, 0, &y)) return quern_call_fail(call, QUERN_INVALID_ARGUMENT, "ports are missing");
    if (quern_call_attribute_int(call, "axis", 99) == 99) return quern_call_fail(call, QUERN_INVALID_MODEL, "axis is missing");
    rows.x = (const float*)x.data, rows.y = (float*)y.data, rows.width = x.dims[1];
    quern_call_parallel(call, x.dims[0], row, &rows);
    return QUERN_OK;
}

static void once(const quern_model* model, float* p) {
    quern_error* e = NULL;
    quern_engine* engine = NULL;
    quern_session* session = NULL;
    quern_options options;
    float image[64];
    int64_t dims[4] = {1, 1, 8, 8};
    quern_tensor in, out;
    int i;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.threads = 2;
    for (i = 0; i < 64; ++i) image[i] = i % 8 == 3 || i % 8 == 4 ? 1.0f : 0.0f;
    in.dtype = QUERN_FLOAT, in.rank = 4, in.dims = dims, in.data = image;
    if (quern_model_compile(model, &options, &engine, &e) || quern_session_create(engine, &session, &e) || quern_session_bind(session, "image", &in, &e) ||
        quern_session_run(session, &e) || quern_session_output(session, "prob", &out, &e)) {
        printf("%s\n", quern_error_message(e));
        ++failures;
    } else {
        EXPECT(out.rank == 2 && out.dims[0] == 1 && out.dims[1] == 10 && out.dtype == QUERN_FLOAT);
        memcpy(p, out.data, 10 * sizeof(float));
        EXPECT(quern_session_bind(session, "picture", &in, &e) == QUERN_INVALID_ARGUMENT);
        EXPECT(e && strstr(quern_error_message(e), "picture") && quern_error_status(e) == QUERN_INVALID_ARGUMENT);
    }
    quern_error_free(e);
    quern_engine_free(engine); /* before its session */
    quern_session_free(session);
}

int main(int argc, char** argv) {
    quern_error* e = NULL;
    quern_model* model = NULL;
    quern_load_options load;
    quern_custom_op op;
    const quern_custom_op* ops[1];
    const quern_port* port;
    float plain[10], own[10];
    int calls = 0, best = 0, i;
    if (argc != 2) return 64;
    EXPECT(quern_version() >= 100);
    if (quern_model_load(argv[1], NULL, &model, &e)) return printf("%s\n", quern_error_message(e)), 1;
    EXPECT(quern_model_input_count(model) == 1 && quern_model_output_count(model) == 1 && !quern_model_input(model, 1));
    port = quern_model_input(model, 0);
    EXPECT(port && !strcmp(port->name, "image") && port->rank == 4 && port->dims[0] == -1 && port->dims[3] == 8);
    once(model, plain);
    quern_model_free(model);
    for (i = 1; i < 10; ++i)
        if (plain[i] > plain[best]) best = i;
    EXPECT(best == 1);

    memset(&op, 0, sizeof op);
    op.size = sizeof op;
    op.name = "Softmax";
    op.min_inputs = op.max_inputs = op.min_outputs = op.max_outputs = 1;
    op.user = &calls;
    op.infer = infer, op.run = run;
    ops[0] = &op;
    memset(&load, 0, sizeof load);
    load.size = sizeof load;
    load.custom_ops = ops, load.custom_op_count = 1;
    EXPECT(quern_model_load(argv[1], &load, &model, NULL) == QUERN_INVALID_ARGUMENT); /* it is one of quern's own */
    op.replaces_builtin = 1;
    if (quern_model_load(argv[1], &load, &model, &e)) return printf("%s\n", quern_error_message(e)), 1;
    once(model, own);
    quern_model_free(model);
    EXPECT(calls > 0);
    for (i = 0; i < 10; ++i) EXPECT(fabsf(own[i] / own[best] - plain[i] / plain[best]) < 1e-4f);

    EXPECT(quern_model_load("/nowhere.onnx", NULL, &model, &e) == QUERN_IO && e);
    quern_error_free(e);
    EXPECT(!strcmp(quern_status_name(QUERN_IO), "io"));
    return failures != 0;
}

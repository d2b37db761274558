// The C interface: handles around the C++ objects, every function guarded.
#include <quern/quern.h>

#include <deque>
#include <new>

#include <quern/base/guard.hpp>
#include <quern/quern.hpp>

struct quern_error { quern::Error error; };
struct quern_model {
    quern::Model model;
    struct Ports {
        std::vector<std::vector<std::int64_t>> dims;
        std::vector<quern_port> list;
    } inputs, outputs;
};
struct quern_engine { quern::Engine engine; };
struct quern_session {
    quern::Session session;
    std::deque<std::vector<const char*>> words;           // of the outputs asked for since the last run
};
struct quern_infer {
    quern::CustomInfer& node;
    mutable std::deque<std::vector<std::int64_t>> dims;
    mutable std::deque<quern::Tensor> constants;
    mutable std::deque<std::string> text;
    mutable std::string why;
};
struct quern_call {
    const quern::CustomRun& run;
    std::span<std::vector<std::int64_t>> sizes;
    mutable std::deque<std::string> text;
    mutable std::string why;
};

namespace {
using quern::DType;
using quern::ErrorCode;

static_assert(QUERN_INVALID_ARGUMENT == 1 + static_cast<int>(ErrorCode::invalid_argument) && QUERN_INTERNAL == 1 + static_cast<int>(ErrorCode::internal));
quern_status status_of(ErrorCode c) { return static_cast<quern_status>(1 + static_cast<int>(c)); }

template <class F>
quern_status call(quern_error** error, F&& f) noexcept {
    quern::Result<void> r = quern::guarded([&] { f(); });
    if (r) return QUERN_OK;
    if (error) {
        auto made = quern::guarded([&] { return new quern_error{r.error()}; });
        *error = made ? *made : nullptr;
    }
    return status_of(r.error().code());
}
template <class T>
T& need(T* p, const char* what) {
    if (!p) quern::raise(ErrorCode::invalid_argument, std::string(what) + " is null");
    return *p;
}
/// The fields of `given` that its size says it has; the rest is 0.
template <class T>
T read(const T* given, const char* what) {
    T t{};
    if (!given) return t;
    if (given->size < sizeof(std::size_t) || given->size > 4096) quern::raise(ErrorCode::invalid_argument, std::string(what) + "->size is not set to sizeof(" + what + ")");
    std::memcpy(&t, given, std::min(given->size, sizeof(T)));
    return t;
}

quern_model::Ports ports_of(const std::vector<quern::PortInfo>& from) {
    quern_model::Ports p;
    for (auto& port : from) {
        auto& dims = p.dims.emplace_back();
        for (auto& d : port.dims) dims.push_back(d.value ? *d.value : -1);
    }
    for (std::size_t i = 0; i < from.size(); ++i)
        p.list.push_back({from[i].name.c_str(), static_cast<quern_dtype>(from[i].dtype), from[i].ranked ? static_cast<int32_t>(from[i].dims.size()) : -1, p.dims[i].data()});
    return p;
}

/// The caller's memory as a tensor; strings are copied.
quern::Tensor tensor_of(const quern_tensor& t) {
    if (t.rank < 0 || t.rank > 64) quern::raise(ErrorCode::invalid_argument, "a tensor of rank " + std::to_string(t.rank) + "; accepted: 0 to 64");
    if (t.rank && !t.dims) quern::raise(ErrorCode::invalid_argument, "a tensor's dims are null");
    std::int64_t count = 1;
    for (int d = 0; d < t.rank; ++d)
        if (t.dims[d] < 0 || __builtin_mul_overflow(count, t.dims[d], &count)) quern::raise(ErrorCode::invalid_argument, "dimension " + std::to_string(d) + " of a tensor is negative or too large");
    if (static_cast<int>(t.dtype) < 1 || static_cast<int>(t.dtype) >= quern::dtype_count) quern::raise(ErrorCode::invalid_argument, "no element type has number " + std::to_string(static_cast<int>(t.dtype)));
    if (count && !t.data) quern::raise(ErrorCode::invalid_argument, "a tensor's data are null");
    quern::Shape shape(std::span<const std::int64_t>(t.dims, static_cast<std::size_t>(t.rank)));
    if (t.dtype != QUERN_STRING) return quern::Tensor::borrow(static_cast<DType>(t.dtype), std::move(shape), t.data);
    quern::Tensor words(DType::string, std::move(shape));
    auto* from = static_cast<const char* const*>(t.data);
    for (std::int64_t i = 0; i < count; ++i) words.strings()[static_cast<std::size_t>(i)] = from[i] ? from[i] : "";
    return words;
}

void check(quern_status s, const std::string& why, const char* who) {
    if (s == QUERN_OK && why.empty()) return;
    const int code = static_cast<int>(s);
    quern::raise(code >= 1 && code <= QUERN_INTERNAL && s != QUERN_INTERNAL ? static_cast<ErrorCode>(code - 1) : ErrorCode::invalid_argument,
                 why.empty() ? std::string(who) + " returned status " + std::to_string(code) : why);
}
std::shared_ptr<const quern::CustomOp> op_of(const quern_custom_op* given) {
    const quern_custom_op c = read(given, "quern_custom_op");
    if (!given || !c.name || !c.infer || !c.run) quern::raise(ErrorCode::invalid_argument, "a custom operator is null or has no name, infer or run");
    quern::CustomOp op;
    op.domain = c.domain ? c.domain : "";
    op.name = c.name;
    op.min_inputs = c.min_inputs, op.max_inputs = c.max_inputs;
    op.min_outputs = c.min_outputs, op.max_outputs = c.max_outputs;
    op.pure = !c.impure;
    op.replaces_builtin = c.replaces_builtin != 0;
    op.infer = [c](quern::CustomInfer& node) {
        for (int i = 0; i < node.inputs(); ++i)
            if (node.has_input(i) && node.type(i) == DType::string) node.unsupported("input " + std::to_string(i) + " is string, which operators written in C do not take");
        quern_infer n{node, {}, {}, {}, {}};
        check(c.infer(c.user, &n), n.why, "infer()");
    };
    op.run = [c](const quern::CustomRun& run) {
        quern_call n{run, {}, {}, {}};
        check(c.run(c.user, &n), n.why, "run()");
    };
    if (c.sizes)
        op.sizes = [c](const quern::CustomRun& run, std::span<std::vector<std::int64_t>> dims) {
            quern_call n{run, dims, {}, {}};
            check(c.sizes(c.user, &n), n.why, "sizes()");
        };
    return std::make_shared<const quern::CustomOp>(std::move(op));
}
quern::LoadOptions load_options(const quern_load_options* given) {
    const quern_load_options o = read(given, "quern_load_options");
    quern::LoadOptions l;
    if (o.external_data_dir) l.external_data_dir = o.external_data_dir;
    l.memory_limit = o.memory_limit;
    for (std::size_t i = 0; i < o.function_count; ++i) {
        const quern_function& f = (&need(o.functions, "functions"))[i];
        l.functions.push_back({std::string(&need(static_cast<const char*>(f.bytes), "functions[].bytes"), f.size), f.since});
    }
    return l;
}
quern::CustomOps custom_ops(const quern_load_options* given) {
    const quern_load_options o = read(given, "quern_load_options");
    quern::CustomOps ops;
    for (std::size_t i = 0; i < o.custom_op_count; ++i) ops.push_back(op_of((&need(o.custom_ops, "custom_ops"))[i]));
    return ops;
}
quern_model* wrap(quern::Model m) {
    auto inputs = ports_of(m.inputs()), outputs = ports_of(m.outputs());
    return new quern_model{std::move(m), std::move(inputs), std::move(outputs)};
}
/// Leaves a message for the C++ side; never fails.
template <class N>
quern_status leave(const N* n, quern_status status, const char* message) noexcept {
    if (n) (void)quern::guarded([&] { n->why = message && *message ? message : "the operator failed"; });
    return status == QUERN_OK ? QUERN_INVALID_ARGUMENT : status;
}
/// Attributes of the wrong type raise within the application's function: the message waits until it has returned.
template <class N, class T, class F>
T attribute(const N* n, T otherwise, F&& f) noexcept {
    auto r = quern::guarded([&] { return f(); });
    if (r) return *r;
    leave(n, QUERN_INVALID_MODEL, r.error().what());
    return otherwise;
}
template <class N>
const char* text(const N* n, const quern::CustomAttributes& a, const char* name) noexcept {
    return attribute(n, static_cast<const char*>(nullptr), [&]() -> const char* {
        if (!a.has(name)) return nullptr;
        return n->text.emplace_back(a.s(name)).c_str();
    });
}
}  // namespace

extern "C" {

uint32_t quern_version(void) {
    quern::Version v = quern::library_version();
    return static_cast<uint32_t>(10000 * v.major + 100 * v.minor + v.patch);
}
const char* quern_status_name(quern_status s) {
    if (s == QUERN_OK) return "ok";
    return s > QUERN_OK && s <= QUERN_INTERNAL ? quern::error_code_name(static_cast<ErrorCode>(static_cast<int>(s) - 1)) : "unknown";
}
quern_status quern_error_status(const quern_error* e) { return e ? status_of(e->error.code()) : QUERN_OK; }
const char* quern_error_message(const quern_error* e) { return e ? e->error.what() : ""; }
void quern_error_free(quern_error* e) { delete e; }

quern_status quern_model_load(const char* path, const quern_load_options* options, quern_model** model, quern_error** error) {
    return call(error, [&] { need(model, "model") = wrap(quern::Model::load(&need(path, "path"), load_options(options), custom_ops(options))); });
}
quern_status quern_model_from_bytes(const void* bytes, size_t size, const quern_load_options* options, quern_model** model, quern_error** error) {
    return call(error, [&] {
        if (!bytes && size) quern::raise(ErrorCode::invalid_argument, "bytes is null");
        need(model, "model") = wrap(quern::Model::from_bytes({static_cast<const std::byte*>(bytes), size}, load_options(options), custom_ops(options)));
    });
}
void quern_model_free(quern_model* m) { delete m; }
size_t quern_model_input_count(const quern_model* m) { return m ? m->inputs.list.size() : 0; }
size_t quern_model_output_count(const quern_model* m) { return m ? m->outputs.list.size() : 0; }
const quern_port* quern_model_input(const quern_model* m, size_t i) { return i < quern_model_input_count(m) ? &m->inputs.list[i] : nullptr; }
const quern_port* quern_model_output(const quern_model* m, size_t i) { return i < quern_model_output_count(m) ? &m->outputs.list[i] : nullptr; }

quern_status quern_model_compile(const quern_model* model, const quern_options* options, quern_engine** engine, quern_error** error) {
    return call(error, [&] {
        const quern_options given = read(options, "quern_options");
        quern::Options o;
        if (given.device) o.device = given.device;
        o.threads = given.threads;
        o.accelerated = !given.portable_only;
        o.optimize = !given.not_optimized;
        o.memory_limit = given.memory_limit;
        o.deadline = given.deadline;
        need(engine, "engine") = new quern_engine{need(model, "model").model.compile(o)};
    });
}
void quern_engine_free(quern_engine* e) { delete e; }
quern_status quern_session_create(const quern_engine* engine, quern_session** session, quern_error** error) {
    return call(error, [&] { need(session, "session") = new quern_session{quern::Session(need(engine, "engine").engine), {}}; });
}
void quern_session_free(quern_session* s) { delete s; }

quern_status quern_session_bind(quern_session* s, const char* name, const quern_tensor* t, quern_error** error) {
    return call(error, [&] { need(s, "session").session.bind(&need(name, "name"), tensor_of(need(t, "tensor"))); });
}
quern_status quern_session_bind_output(quern_session* s, const char* name, const quern_tensor* t, quern_error** error) {
    return call(error, [&] {
        if (need(t, "tensor").dtype == QUERN_STRING) quern::raise(ErrorCode::unsupported, "outputs of strings cannot be bound; quern_session_output gives them");
        need(s, "session").session.bind_output(&need(name, "name"), tensor_of(*t));
    });
}
quern_status quern_session_bind_cache(quern_session* s, const char* input, const char* output, const quern_tensor* memory, int64_t length, quern_error** error) {
    return call(error, [&] { need(s, "session").session.bind_cache(&need(input, "input"), &need(output, "output"), tensor_of(need(memory, "memory")), length); });
}
quern_status quern_session_run(quern_session* s, quern_error** error) {
    return call(error, [&] {
        need(s, "session").words.clear();
        s->session.run();
    });
}
quern_status quern_session_output(quern_session* s, const char* name, quern_tensor* out, quern_error** error) {
    return call(error, [&] {
        const quern::Tensor& t = need(s, "session").session.output(&need(name, "name"));
        quern_tensor& o = need(out, "tensor");
        void* data = const_cast<void*>(t.raw());
        if (t.dtype() == DType::string) {
            auto& list = s->words.emplace_back();
            for (auto& word : t.strings()) list.push_back(word.c_str());
            data = list.data();
        }
        o = {static_cast<quern_dtype>(t.dtype()), static_cast<int32_t>(t.shape().rank()), t.shape().data(), data};
    });
}

int32_t quern_infer_input_count(const quern_infer* n) { return n ? n->node.inputs() : 0; }
int quern_infer_input(const quern_infer* n, int32_t i, quern_tensor* out) {
    if (!n || !out || !n->node.has_input(i)) return 0;
    return attribute(n, 0, [&] {
        auto& dims = n->dims.emplace_back();
        for (auto& d : n->node.dims(i)) dims.push_back(d.is_const() ? d.value() : -1);
        quern::Tensor& c = n->constants.emplace_back(n->node.constant(i));
        *out = {static_cast<quern_dtype>(n->node.type(i)), n->node.ranked(i) ? static_cast<int32_t>(dims.size()) : -1, dims.data(), c.raw()};
        return 1;
    });
}
void quern_infer_output(quern_infer* n, int32_t o, quern_dtype dtype, int32_t rank, const int64_t* dims) {
    if (!n) return;
    attribute(n, 0, [&] {
        if (static_cast<int>(dtype) < 1 || static_cast<int>(dtype) >= quern::dtype_count || dtype == QUERN_STRING || o < 0 || o >= n->node.outputs() || rank > 64 || (rank > 0 && !dims))
            quern::raise(ErrorCode::invalid_argument, "quern_infer_output was called for output " + std::to_string(o) + " with element type " + std::to_string(static_cast<int>(dtype)) + " and rank " + std::to_string(rank));
        if (rank < 0) return n->node.set_unranked(o, static_cast<DType>(dtype)), 0;
        std::vector<quern::Dim> out;
        for (int32_t d = 0; d < rank; ++d) {
            if (dims[d] >= 0) out.emplace_back(dims[d]);
            else if (dims[d] == QUERN_DIM_UNKNOWN) out.push_back(n->node.unknown());
            else {
                const std::int64_t code = dims[d] - INT64_MIN, i = code / 64, k = code % 64;
                if (i >= n->node.inputs() || k >= static_cast<std::int64_t>(n->node.dims(static_cast<int>(i)).size()))
                    quern::raise(ErrorCode::invalid_argument, "quern_infer_output was given " + std::to_string(dims[d]) + " for a dimension");
                out.push_back(n->node.dims(static_cast<int>(i))[static_cast<std::size_t>(k)]);
            }
        }
        n->node.set(o, static_cast<DType>(dtype), std::move(out));
        return 0;
    });
}
quern_status quern_infer_fail(quern_infer* n, quern_status status, const char* message) { return leave(n, status, message); }
int64_t quern_infer_attribute_int(const quern_infer* n, const char* name, int64_t otherwise) {
    return attribute(n, otherwise, [&] { return n->node.i(name, otherwise); });
}
float quern_infer_attribute_float(const quern_infer* n, const char* name, float otherwise) {
    return attribute(n, otherwise, [&] { return n->node.f(name, otherwise); });
}
const char* quern_infer_attribute_string(const quern_infer* n, const char* name) { return text(n, n->node, name); }

int quern_call_input(const quern_call* c, int32_t i, quern_tensor* out) {
    if (!c || !out || !c->run.has_input(i)) return 0;
    auto shape = c->run.shape(i);
    *out = {static_cast<quern_dtype>(c->run.type(i)), static_cast<int32_t>(shape.size()), shape.data(), const_cast<void*>(c->run.data(i))};
    return 1;
}
int quern_call_output(const quern_call* c, int32_t o, quern_tensor* out) {
    if (!c || !out || !c->run.has_output(o)) return 0;
    auto shape = c->run.output_shape(o);
    *out = {static_cast<quern_dtype>(c->run.output_type(o)), static_cast<int32_t>(shape.size()), shape.data(), c->run.output_data(o)};
    return 1;
}
void quern_call_set_size(quern_call* c, int32_t o, int32_t d, int64_t size) {
    if (c && o >= 0 && static_cast<std::size_t>(o) < c->sizes.size() && d >= 0 && static_cast<std::size_t>(d) < c->sizes[static_cast<std::size_t>(o)].size())
        c->sizes[static_cast<std::size_t>(o)][static_cast<std::size_t>(d)] = size;
    else
        leave(c, QUERN_INVALID_ARGUMENT, "quern_call_set_size names no dimension of an output, or is called outside of sizes()");
}
quern_status quern_call_fail(const quern_call* c, quern_status status, const char* message) { return leave(c, status, message); }
int64_t quern_call_attribute_int(const quern_call* c, const char* name, int64_t otherwise) {
    return attribute(c, otherwise, [&] { return c->run.attributes().i(name, otherwise); });
}
float quern_call_attribute_float(const quern_call* c, const char* name, float otherwise) {
    return attribute(c, otherwise, [&] { return c->run.attributes().f(name, otherwise); });
}
const char* quern_call_attribute_string(const quern_call* c, const char* name) { return text(c, c->run.attributes(), name); }
void quern_call_parallel(const quern_call* c, int64_t n, void (*tile)(void*, int64_t), void* context) {
    auto r = quern::guarded([&] { c->run.for_each(n, [&](std::int64_t i) { tile(context, i); }); });
    if (!r) leave(c, status_of(r.error().code()), r.error().what());
}

}  // extern "C"

// Everything, for the header-only form.
#pragma once
#include "../base/cpu_info-inl.hpp"
#include "../base/error-inl.hpp"
#include "../base/mapped_file-inl.hpp"
#include "../base/pages-inl.hpp"
#include "../base/thread_pool-inl.hpp"
#include "../tensor/shape-inl.hpp"
#include "../tensor/tensor-inl.hpp"
#include "../tensor/value-inl.hpp"
#include "../onnx/external-inl.hpp"
#include "../onnx/proto-inl.hpp"
#include "../onnx/tensor_proto-inl.hpp"
#include "../onnx/writer-inl.hpp"
#include "../graph/dim-inl.hpp"
#include "../graph/dump-inl.hpp"
#include "../graph/graph-inl.hpp"
#include <quern/ops/all-inl.hpp>
#include "../ops/custom-inl.hpp"
#include "../ops/evaluate-inl.hpp"
#include "../ops/op-inl.hpp"
#include "../import/exporter-inl.hpp"
#include "../import/importer-inl.hpp"
#include "../passes/passes-inl.hpp"
#include "../plan/engine_file-inl.hpp"
#include "../plan/packs-inl.hpp"
#include "../plan/plan-inl.hpp"
#include "control-inl.hpp"
#include "runner-inl.hpp"
#include "runner_device-inl.hpp"
#include "runner_late-inl.hpp"
#include "engine-inl.hpp"
#include <quern/kernels/core_backend-inl.hpp>
#include <quern/kernels/quant/loops-inl.hpp>
#include <quern/kernels/vec/functions-inl.hpp>
#include <quern/kernels/vec/table-inl.hpp>
QUERN_BEGIN
inline std::span<const Backend* const> linked_backends() noexcept {
    static const Backend* const list[] = {&core::backend()};
    return list;
}
QUERN_END

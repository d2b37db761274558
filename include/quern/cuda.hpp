// Device memory of the application in and out of a session, without copies.
//
//   Engine engine = model.compile({.device = "cuda", .device_io = true});
//   Session session(engine);
//   session.stream(my_stream);                                          // a cudaStream_t; optional
//   session.bind("x", cuda::borrow(DType::f32, {1, 3, 224, 224}, x));   // x from cudaMalloc, cudaMallocAsync, a framework's tensor ...
//   session.run();                                                      // enqueued; nothing waits
//   const void* y = session.output("y").raw();                          // device memory, there when the stream has come so far
#pragma once
#include "session.hpp"

QUERN_BEGIN
namespace cuda {

/// The caller's device memory (row-major, shape.count() elements, aligned to 16 bytes for speed) as a tensor; it must outlive every
/// copy of the tensor and all runs that were enqueued with it. What fills it has to be enqueued on the session's stream before
/// run(), or to have finished.
inline Tensor borrow(DType dtype, Shape shape, void* data) { return Tensor::borrow_device(Device::cuda, dtype, std::move(shape), data); }

}  // namespace cuda
QUERN_END

// Device memory of the application in and out of a session, without copies.
//
//   Engine engine = model.compile({.device = "cuda", .device_io = true});
//   Session session(engine);
//   session.stream(my_stream);                                          // a cudaStream_t; optional
//   session.bind("x", cuda::borrow(DType::f32, {1, 3, 224, 224}, x));   // x from cudaMalloc, cudaMallocAsync, a framework's tensor ...
//   session.run();                                                      // enqueued; nothing waits
//   const void* y = session.output("y").raw();                          // device memory, there when the stream has come so far
//
// run() waits only where a node on the CPU reads what the device computes (inspect and Engine::describe() show CopyToHost; Options::strict_device
// makes it an error) and, in the first run of a shape, for memory. What was enqueued before run() on the stream is seen by it; what is enqueued
// behind it sees the outputs, until the next run of the session, which writes over them. The session's end, and another stream, wait for its
// runs. A failed run has waited for what it had enqueued. Runs are replayed as a CUDA graph where inputs lie at the addresses of the run
// before. The application may record a run into a graph of its own (cudaStreamBeginCapture) once the session has run that shape with these
// addresses; as long as the graph lives the session and the tensors must, and the session runs no other shape.
//
// Engines may be used by any thread; a session by one at a time. Sessions may share a stream. The calling thread's device stays as it is.
#pragma once
#include "session.hpp"

QUERN_BEGIN
namespace cuda {

/// The caller's memory on the engine's device (row-major, shape.count() elements, aligned to 16 bytes for speed) as a tensor; it must
/// outlive every copy of the tensor and all runs that were enqueued with it: cudaFreeAsync on the session's stream behind run() is right,
/// once another tensor is bound. What fills it has to be enqueued on that stream before run(), or to have finished.
inline Tensor borrow(DType dtype, Shape shape, void* data) { return Tensor::borrow_device(Device::cuda, dtype, std::move(shape), data); }

}  // namespace cuda
QUERN_END

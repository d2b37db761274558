#include <quern/onnx/external-inl.hpp>
#include <quern/onnx/proto-inl.hpp>
#include <quern/onnx/tensor_proto-inl.hpp>
#include <quern/onnx/writer-inl.hpp>

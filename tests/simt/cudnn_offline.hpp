// cuDNN without a device: what a DEVICEPROP descriptor made of text says stands for one.
#pragma once
#include <fstream>
#include <sstream>
#include <string>

#include <quern/kernels/cuda/cudnn_graph.hpp>

inline quern::cuda::DnnDescriptor device_properties(const quern::cuda::Cudnn& dnn, const char* path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    const std::string json = text.str();
    quern::cuda::DnnDescriptor d(dnn, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    d.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, std::span<const char>(json.c_str(), json.size() + 1));
    d.finish("the device's properties");
    return d;
}

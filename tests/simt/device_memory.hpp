// A device buffer of a test, through the CUDA runtime or its emulated twin.
#pragma once
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

template <class T>
class DeviceBuffer {
public:
    explicit DeviceBuffer(std::size_t n) : size_(n) {
        EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), n * sizeof(T)), cudaSuccess);
    }
    DeviceBuffer(DeviceBuffer&& o) noexcept : data_(std::exchange(o.data_, nullptr)), size_(o.size_) {}
    DeviceBuffer(const DeviceBuffer&) = delete;
    DeviceBuffer& operator=(const DeviceBuffer&) = delete;
    ~DeviceBuffer() { cudaFree(data_); }
    T* data() const { return data_; }
    void upload(const std::vector<T>& v, std::size_t at = 0) {
        ASSERT_LE(at + v.size(), size_);
        ASSERT_EQ(cudaMemcpy(data_ + at, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
    }
    std::vector<T> download() const {
        std::vector<T> v(size_);
        EXPECT_EQ(cudaMemcpy(v.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
        return v;
    }

private:
    T* data_ = nullptr;
    std::size_t size_;
};

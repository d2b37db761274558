// The device layer over the CUDA runtime.
#pragma once
#include <memory>

#include <quern/kernels/device.hpp>
#include <quern/options.hpp>

QUERN_BEGIN
namespace cuda {

/// Device number `ordinal`. Raises unsupported where there is no driver, no such device, or one older than sm_80.
std::shared_ptr<DeviceApi> open_device(int ordinal, const Options& options);

}  // namespace cuda
QUERN_END

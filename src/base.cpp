#include <quern/base/cpu_info-inl.hpp>
#include <quern/base/error-inl.hpp>
#include <quern/base/mapped_file-inl.hpp>
#include <quern/base/pages-inl.hpp>
#include <quern/base/thread_pool-inl.hpp>

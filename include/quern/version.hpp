// quern: version, ABI namespace and the macros that every header shares.
#pragma once

#define QUERN_VERSION_MAJOR 0
#define QUERN_VERSION_MINOR 1
#define QUERN_VERSION_PATCH 0

// The compiled and the header-only form are the same sources in different inline namespaces, so a
// program that meets both (through two of its libraries) still links correctly.
#if defined(QUERN_HEADER_ONLY)
#define QUERN_ABI v0_1_header_only
#define QUERN_INLINE inline
#define QUERN_API
#else
#define QUERN_ABI v0_1
#define QUERN_INLINE
#if defined(_WIN32)
#define QUERN_API
#else
#define QUERN_API __attribute__((visibility("default")))
#endif
#endif

#define QUERN_BEGIN                                                                                \
    namespace quern {                                                                              \
    inline namespace QUERN_ABI {
#define QUERN_END                                                                                  \
    }                                                                                              \
    }

QUERN_BEGIN
struct Version {
    int major, minor, patch;
};
/// The version of these headers.
constexpr Version header_version() {
    return {QUERN_VERSION_MAJOR, QUERN_VERSION_MINOR, QUERN_VERSION_PATCH};
}
/// The version of the library that is linked (equal to header_version() in the header-only form).
QUERN_API Version library_version() noexcept;
QUERN_END

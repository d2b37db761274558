// Errors as values and as exceptions. Public headers never throw themselves: raise() does, out of line.
#pragma once
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "version.hpp"

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#define QUERN_HAS_EXCEPTIONS 1
#else
#define QUERN_HAS_EXCEPTIONS 0
#endif

QUERN_BEGIN

enum class ErrorCode {
    invalid_argument,   ///< the caller passed something that cannot be meant (unknown name, wrong type)
    invalid_model,      ///< the bytes are not a well-formed ONNX model
    unsupported,        ///< well-formed, but an operator, type or revision is not implemented
    shape_mismatch,     ///< shapes or types of inputs do not fit the model
    io,                 ///< a file could not be read or written
    out_of_memory,      ///< an allocation failed or a declared limit would be exceeded
    cancelled,          ///< the caller asked to stop
    deadline_exceeded,  ///< the run took longer than allowed
    device,             ///< the accelerator or its driver reported a failure
    internal,           ///< a defect of quern; please report it
};
QUERN_API const char* error_code_name(ErrorCode) noexcept;

/// A failure: a code, one sentence saying what is wrong and what would be accepted, and the chain of
/// places (file, node, operator and opset), innermost first. Copyable; owns its text. A std::exception, so that a
/// program's last `catch` shows it.
class QUERN_API Error : public std::exception {
public:
    Error(ErrorCode code, std::string message);
    Error(const Error&) = default;
    Error(Error&&) noexcept = default;
    Error& operator=(const Error&) = default;
    Error& operator=(Error&&) noexcept = default;
    ~Error() override;
    ErrorCode code() const noexcept { return code_; }
    const std::string& message() const noexcept { return message_; }
    const std::vector<std::string>& context() const noexcept { return context_; }
    Error& at(std::string place) &;   ///< adds an outer place; returns *this
    Error&& at(std::string place) &&;
    /// "unsupported: message\n  in node 'x' (Conv, opset 11)\n  in model 'm.onnx'"
    const char* what() const noexcept override { return what_.c_str(); }

private:
    void compose();
    ErrorCode code_;
    std::string message_, what_;
    std::vector<std::string> context_;
};

/// Throws `e`. Out of line so that headers stay free of throw; aborts only if the *library* itself was
/// built without exceptions (the header-only form under -fno-exceptions).
[[noreturn]] QUERN_API void raise(Error e);
[[noreturn]] QUERN_API void raise(ErrorCode code, std::string message);

/// Either a T or an Error. value() raises the error; error() may only be asked when !ok().
template <class T>
class Result {
public:
    Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}
    Result(Error e) : v_(std::in_place_index<1>, std::move(e)) {}
    bool ok() const noexcept { return v_.index() == 0; }
    explicit operator bool() const noexcept { return ok(); }
    const Error& error() const noexcept { return *std::get_if<1>(&v_); }
    T& operator*() & noexcept { return *std::get_if<0>(&v_); }
    const T& operator*() const& noexcept { return *std::get_if<0>(&v_); }
    T&& operator*() && noexcept { return std::move(*std::get_if<0>(&v_)); }
    T* operator->() noexcept { return std::get_if<0>(&v_); }
    const T* operator->() const noexcept { return std::get_if<0>(&v_); }
#if QUERN_HAS_EXCEPTIONS
    T& value() & { if (!ok()) raise(error()); return **this; }
    T&& value() && { if (!ok()) raise(error()); return std::move(**this); }
#endif

private:
    std::variant<T, Error> v_;
};
template <>
class Result<void> {
public:
    Result() = default;
    Result(Error e) : e_(std::move(e)) {}
    bool ok() const noexcept { return !e_; }
    explicit operator bool() const noexcept { return ok(); }
    const Error& error() const noexcept { return *e_; }
#if QUERN_HAS_EXCEPTIONS
    void value() { if (e_) raise(*e_); }
#endif

private:
    std::optional<Error> e_;
};

QUERN_END
#if defined(QUERN_HEADER_ONLY)
#include "base/error-inl.hpp"
#endif

// Operators of the application as OpDefs.
#pragma once
#include <deque>
#include <memory>
#include <span>
#include <string_view>

#include "../custom_op.hpp"
#include "op.hpp"

QUERN_BEGIN

struct CustomDef : OpDef {
    std::shared_ptr<const CustomOp> custom;
};

/// The operators of one load. Nodes point into it: it lives as long as their graphs.
class QUERN_API CustomTable {
public:
    /// Raises invalid_argument for an operator without name, infer or run, given twice, or of quern's own without replaces_builtin.
    explicit CustomTable(std::span<const std::shared_ptr<const CustomOp>> ops);
    /// Null: no such operator.
    const OpDef* find(std::string_view domain, std::string_view name) const noexcept;

private:
    std::deque<CustomDef> defs_;
};

QUERN_END

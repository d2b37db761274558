// quern: an embeddable inference library. This header is all that most programs include.
#pragma once
#include "custom_op.hpp"
#include "dtype.hpp"
#include "engine.hpp"
#include "error.hpp"
#include "executor.hpp"
#include "model.hpp"
#include "options.hpp"
#include "session.hpp"
#include "shape.hpp"
#include "tensor.hpp"
#include "value.hpp"
#include "version.hpp"
#if defined(QUERN_HEADER_ONLY)
#include "session/all-inl.hpp"
#endif

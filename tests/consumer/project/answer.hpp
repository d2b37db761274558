// What each consumer does: the digits of a blank image sum to one.
#pragma once
#include <cmath>

#include <quern/quern.hpp>

template <class Span>
bool is_distribution(const Span& p) {
    double sum = 0;
    for (float v : p) sum += v;
    return p.size() == 10 && std::fabs(sum - 1) < 1e-4;
}

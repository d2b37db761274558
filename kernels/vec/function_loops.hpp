// Bodies of vec::FunctionTable. What has steep or hidden corners is computed in double: half as many lanes, no error to speak of.
#pragma once
#include <quern/kernels/vec/functions.hpp>
#include <quern/kernels/vec/reduce_loops.hpp>

QUERN_VEC_BEGIN

using UL = Vec<std::uint64_t>;
/// Coefficients from the highest down.
template <class... C> QUERN_VEC_INL D polynomial(D x, double top, C... rest) {
    D p = splat(top);
    ((p = fma(p, x, splat(rest))), ...);
    return p;
}
constexpr double magic = 6755399441055744.;  ///< 1.5 * 2^52: x + magic has round(x) in its low bits
/// ln x for normal x > 0, relative error 1e-11.
QUERN_VEC_INL D log_double(D x) {
    constexpr std::uint64_t root = 0x3fe6a09e00000000;  // of one half: x = 2^e * m with m from there to twice that
    UL b = (UL)x - root;  // unsigned: exponents of negative x and NaN wrap
    UL biased = (b + (std::uint64_t{1023} << 52)) >> 52;
    D e = (D)(biased | 0x4330000000000000) - splat(0x1p52 + 1023);
    D m = (D)((b & 0x000fffffffffffff) + root), one = splat(1.);
    D s = (m - one) / (m + one), z = s * s;
    D p = polynomial(z, 0.23617408362064204, 0.2853499031998461, 0.40000385769707447, 0.6666666524114665, 2.0000000000084173);
    return fma(e, splat(0.69314718055994531), s * p);
}
/// e^x for |x| <= 700, relative error 1e-10; anything for NaN.
QUERN_VEC_INL D exp_double(D x) {
    D t = fma(x, splat(1.4426950408889634), splat(magic)), n = t - splat(magic);
    D r = fma(n, splat(-0.69314718055994531), x);
    D p = polynomial(r, 0.00019915880839720777, 0.0013948589956413659, 0.008333266072098576, 0.041666218137208513, 0.16666666891181106, 0.50000001077987932,
                     0.99999999997976752, 0.99999999995952427);
    return (D)((UL)p + ((UL)t << 52));
}
constexpr double half_pi = 1.5707963267948966;
/// asin s / s for s^2 in [0, 1/4].
QUERN_VEC_INL D arc_sine_ratio(D z) {
    return polynomial(z, 0.037806361885981084, 0.014198827706511763, 0.031884143042772206, 0.044505242006680018, 0.075005915020102093, 0.16666657213876862,
                      1.000000000245304);
}
template <bool cosine> QUERN_VEC_INL D arc(D x) {
    D a = abs(x), one = splat(1.);
    L steep = a > splat(0.5);
    D z = select(steep, (one - a) * splat(0.5), a * a), r = select(steep, sqrt(z), a) * arc_sine_ratio(z);
    D sine = with_sign(select(steep, splat(half_pi) - (r + r), r), x);
    sine = select(r != r, r, sine);
    if constexpr (!cosine) return sine;
    return select(x > splat(0.5), r + r, splat(half_pi) - sine);
}
QUERN_VEC_INL D arc_tangent(D x) {
    D a = abs(x), one = splat(1.);
    L high = a > splat(2.4142135623730951), middle = a > splat(0.41421356237309503);
    D over = select(high, -one, select(middle, a - one, a)), under = select(high, a, select(middle, a + one, one));
    D base = select(high, splat(half_pi), select(middle, splat(half_pi / 2), D{}));
    D t = over / under, z = t * t;
    D p = polynomial(z, 0.047129066378135263, -0.084590663865970708, 0.11041046650659408, -0.14281638657826415, 0.19999885877162787, -0.33333332127602172,
                     0.99999999997912292);
    D r = fma(t, p, base);
    return select(x != x, x, with_sign(r, x));
}
QUERN_VEC_INL D tangent(D x) {
    if (__builtin_expect(any(~(abs(x) <= splat(100000.))), 0)) {
        for (int i = 0; i < WD; ++i) x[i] = ::tan(x[i]);
        return x;
    }
    D t = fma(x, splat(0.63661977236758134), splat(magic)), n = t - splat(magic);
    D r = fma(n, splat(-6.07710050650619224932e-11), fma(n, splat(-1.57079632673412561417), x)), z = r * r;  // half pi in two parts
    D s = r * polynomial(z, 2.7173113970377285e-06, -0.00019839198567435075, 0.0083333287706655011, -0.16666666631473559, 0.99999999999565636);
    D c = polynomial(z, 2.4379461879224688e-05, -0.001388661408574657, 0.041666616566455546, -0.49999999613608653, 0.99999999995230826);
    L odd = ((L)t & 1) != 0;
    return select(odd, -c, s) / select(odd, s, c);
}
template <bool cosine> QUERN_VEC_INL D hyperbolic(D x) {
    D a = abs(x), e = exp_double(select(a > splat(100.), splat(100.), a)), inverse = splat(1.) / e;
    if constexpr (cosine) return select(x != x, x, (e + inverse) * splat(0.5));
    D z = x * x;
    D near = x * polynomial(z, 1. / 362880, 1. / 5040, 1. / 120, 1. / 6, 1.);
    D far = with_sign((e - inverse) * splat(0.5), x);
    return select(x != x, x, select(a < splat(0.35), near, far));
}
constexpr double tiny = 0x1p-12;  ///< below it the first two terms are enough
QUERN_VEC_INL D area_sine(D x) {
    D a = abs(x), r = log_double(a + sqrt(fma(a, a, splat(1.))));
    r = select(a < splat(tiny), fma(a * a * a, splat(-1. / 6), a), select(a > splat(1e300), a, r));
    return select(x != x, x, with_sign(r, x));
}
QUERN_VEC_INL D area_cosine(D x) {
    D one = splat(1.), r = log_double(x + sqrt((x - one) * (x + one)));
    return select(x >= one, select(x > splat(1e300), x, r), splat(__builtin_nan("")));
}
QUERN_VEC_INL D area_tangent(D x) {
    D a = abs(x), one = splat(1.), r = splat(0.5) * log_double((one + a) / (one - a));
    r = select(a < splat(tiny), fma(a * a * a, splat(1. / 3), a), select(a == one, splat(__builtin_inf()), r));
    return select(a <= one, with_sign(r, x), splat(__builtin_nan("")));
}
template <Function f> QUERN_VEC_INL D apply(D x) {
    if constexpr (f == Function::acos) return arc<true>(x);
    else if constexpr (f == Function::asin) return arc<false>(x);
    else if constexpr (f == Function::acosh) return area_cosine(x);
    else if constexpr (f == Function::asinh) return area_sine(x);
    else if constexpr (f == Function::atanh) return area_tangent(x);
    else if constexpr (f == Function::atan) return arc_tangent(x);
    else if constexpr (f == Function::tan) return tangent(x);
    else if constexpr (f == Function::sinh) return hyperbolic<false>(x);
    else return hyperbolic<true>(x);
}
template <Function f> QUERN_VEC_FN void in_double(const float* x, float* y, i64 n, const Parameters&) {
    i64 i = 0;
    for (; i + WD <= n; i += WD) store_narrow(y + i, apply<f>(widened(x + i)));
    if (i == n) return;
    float t[WD] = {};
    for (i64 k = i; k < n; ++k) t[k - i] = x[k];
    store_narrow(t, apply<f>(widened(t)));
    for (i64 k = i; k < n; ++k) y[k] = t[k - i];
}

/// e^x - 1 for x <= 0.
QUERN_VEC_INL F exp_minus_one(F x) {
    x = max2(splat(-104.f), x);
    F n = round_small(x * 1.44269504f);
    F r = fma(n, splat(-0.693359375f), x);
    r = fma(n, splat(2.12194440e-4f), r);
    F p = splat(0.00139421371f);
    p = fma(p, r, splat(0.0083637693f));
    p = fma(p, r, splat(0.0416663637f));
    p = fma(p, r, splat(0.166665734f));
    p = fma(p, r, splat(0.500000003f));
    p = fma(p, r * r, r);
    return scale2(p, n) + (scale2(splat(1.f), n) - 1.f);
}
struct Constants {
    F alpha, beta, gamma;
};
template <Function f> QUERN_VEC_INL F apply(F x, const Constants& k) {
    F zero{}, one = splat(1.f);
    if constexpr (f == Function::round) return round_even(x);
    else if constexpr (f == Function::sign) return select(x != x, x, select(x > zero, one, select(x < zero, -one, zero)));
    else if constexpr (f == Function::softsign) return x / (one + abs(x));
    else if constexpr (f == Function::elu) return select(x < zero, k.alpha * exp_minus_one(min2(zero, x)), x);
    else if constexpr (f == Function::selu) return k.gamma * select(x <= zero, k.alpha * exp_minus_one(min2(zero, x)), x);
    else if constexpr (f == Function::celu) return select(x < zero, k.alpha * exp_minus_one(min2(zero, x / k.alpha)), x);
    else if constexpr (f == Function::thresholded_relu) return select(x > k.alpha, x, zero);
    else if constexpr (f == Function::shrink) return select(x < -k.alpha, x + k.beta, select(x > k.alpha, x - k.beta, zero));
    else return swish(x, k.alpha);
}
template <Function f> QUERN_VEC_FN void with_parameters(const float* x, float* y, i64 n, const Parameters& p) {
    const Constants k{splat(p.alpha), splat(p.beta), splat(p.gamma)};
    i64 i = 0;
    for (; i + W <= n; i += W) store(y + i, apply<f>(load(x + i), k));
    if (i < n) store_n(y + i, apply<f>(load_n(x + i, n - i), k), n - i);
}

/// Finite y; x finite or infinite lanes are the caller's.
QUERN_VEC_INL D power(D x, D y) {
    D a = abs(x), zero{}, one = splat(1.), inf = splat(__builtin_inf());
    D t = y * log_double(a);
    t = select(t > splat(120.), splat(120.), select(t < splat(-120.), splat(-120.), t));
    D r = exp_double(t);
    r = select(a == zero, select(y > zero, zero, inf), r);
    r = select(a == one, one, r);
    D m = abs(y), big = splat(0x1p52);
    D whole = (m + big) - big;
    L is_whole = (whole == m) | (m >= big);
    L is_odd = is_whole & (m < big) & (((L)(whole + big) & 1) != 0);
    r = select(((L)x < 0) & is_odd, -r, r);
    r = select((x < zero) & ~is_whole, splat(__builtin_nan("")), r);
    return select(y == zero, one, r);
}
QUERN_VEC_INL void power_lanes(const float* x, const float* y, float* z) {
    D a = widened(x), b = widened(y), big = splat(3.5e38);
    if (__builtin_expect(any(~((abs(a) < big) & (abs(b) < big))), 0)) {
        float t[WD];
        for (int i = 0; i < WD; ++i) t[i] = ::powf(x[i], y[i]);
        for (int i = 0; i < WD; ++i) z[i] = t[i];
        return;
    }
    store_narrow(z, power(a, b));
}
QUERN_VEC_FN void pow_f32(const float* x, i64 sx, const float* y, i64 sy, float* z, i64 n) {
    if (n <= 0) return;
    float a[WD], b[WD], t[WD];
    for (int k = 0; k < WD; ++k) a[k] = *x, b[k] = *y;
    i64 i = 0;
    for (; i + WD <= n; i += WD) power_lanes(sx ? x + i : a, sy ? y + i : b, z + i);
    for (i64 k = i; k < n; ++k) a[k - i] = x[k * sx], b[k - i] = y[k * sy];
    if (i < n) power_lanes(a, b, t);
    for (i64 k = i; k < n; ++k) z[k] = t[k - i];
}
QUERN_VEC_FN void prelu_f32(const float* x, const float* y, i64 sy, float* z, i64 n) {
    if (n <= 0) return;
    const F one = splat(*y);
    auto f = [](F a, F slope) QUERN_VEC_INLINED { return select(a < F{}, a * slope, a); };
    i64 i = 0;
    for (; i + W <= n; i += W) store(z + i, f(load(x + i), sy ? load(y + i) : one));
    if (i < n) store_n(z + i, f(load_n(x + i, n - i), sy ? load_n(y + i, n - i) : one), n - i);
}
QUERN_VEC_FN i64 find_f32(const float* x, i64 n, float v, bool last) { return find_in<float>(x, n, &v, last); }
constexpr FunctionTable make_function_table() {
    using enum Function;
    return FunctionTable{
        .unary_f32 = {in_double<acos>, in_double<acosh>, in_double<asin>, in_double<asinh>, in_double<atan>, in_double<atanh>, in_double<tan>,
                      in_double<sinh>, in_double<cosh>, with_parameters<round>, with_parameters<sign>, with_parameters<softsign>, with_parameters<elu>,
                      with_parameters<selu>, with_parameters<celu>, with_parameters<thresholded_relu>, with_parameters<shrink>, with_parameters<swish>},
        .pow_f32 = pow_f32,
        .prelu_f32 = prelu_f32,
        .find_f32 = find_f32,
    };
}

QUERN_VEC_END

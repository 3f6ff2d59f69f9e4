// Activation functions of four elements. All are 0 at 0, so padding stays zero.
override ACTIVATION: u32 = 0u; // 0 none, 1 SiLU, 2 GELU (exact), 3 quick-GELU, 4 ReLU, 5 soft clamp

fn activate(x: vec4f) -> vec4f {
    if ACTIVATION == 1u {
        return x * sigmoid(x);
    }
    if ACTIVATION == 2u {
        return gelu(x);
    }
    if ACTIVATION == 3u {
        return x * sigmoid(1.702 * x);
    }
    if ACTIVATION == 4u {
        // By select, since max need not keep NaN.
        return select(x, vec4f(0.0), x < vec4f(0.0));
    }
    if ACTIVATION == 5u {
        return soft_clamp(x);
    }
    return x;
}

// By exp(-|x|), which cannot overflow.
fn sigmoid(x: vec4f) -> vec4f {
    let e = exp(-abs(x));
    return select(e, vec4f(1.0), x >= vec4f(0.0)) / (1.0 + e);
}

// 3 tanh(x / 3). Where the quotient of exponentials would lose digits, the first terms of the series.
fn soft_clamp(x: vec4f) -> vec4f {
    let t = x / 3.0;
    let square = t * t;
    var series = fma(square, vec4f(-0.053968254), vec4f(0.13333333));
    series = fma(square, series, vec4f(-0.33333333));
    series = fma(square * t, series, t);
    let e = exp(-2.0 * abs(t));
    let quotient = sign(t) * (1.0 - e) / (1.0 + e);
    return 3.0 * select(quotient, series, abs(t) < vec4f(0.25));
}

// x Φ(x) = x erfc(-x / sqrt 2) / 2. The tail erfc(|x| / sqrt 2) is computed by itself, to 2e-7 relative (and what the
// device's exp adds), so that large negative x lose no digits to 1 - erf.
fn gelu(x: vec4f) -> vec4f {
    // Beyond 16.9 the exponential is zero in f32; the limit keeps infinities out of q.
    let z = min(abs(x) * 0.70710678, vec4f(12.0));
    // (1 + 2 z) exp(z^2) erfc(z) is smooth on the half-line: a polynomial in q (Shepherd and Laframboise 1981).
    let q = (z - 3.0) / (z + 3.0);
    var p = fma(q, vec4f(-0.0002601643), vec4f(-0.000753348));
    p = fma(q, p, vec4f(0.0020225035));
    p = fma(q, p, vec4f(0.0025632531));
    p = fma(q, p, vec4f(-0.0238100928));
    p = fma(q, p, vec4f(0.0682931306));
    p = fma(q, p, vec4f(-0.1192688997));
    p = fma(q, p, vec4f(0.129647033));
    p = fma(q, p, vec4f(-0.0475625016));
    p = fma(q, p, vec4f(-0.1356211658));
    p = fma(q, p, vec4f(1.25300806));
    let tail = 0.5 * exp(-0.5 * x * x) * p / (1.0 + 2.0 * z);
    return x * select(tail, 1.0 - tail, x >= vec4f(0.0));
}

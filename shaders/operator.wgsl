// The observation operator's point-wise function h and its derivative. CPU: src/problem/operator.rs.

//% if FUNCTION == "identity"
fn h(x: real) -> real {
    return x;
}
fn h_derivative(x: real) -> real {
    return real(1.0);
}
//% elif FUNCTION == "square"
fn h(x: real) -> real {
    return x * x;
}
fn h_derivative(x: real) -> real {
    return x + x;
}
//% elif FUNCTION == "cubic"
fn h(x: real) -> real {
    return x * x * x;
}
fn h_derivative(x: real) -> real {
    return real(3.0) * (x * x);
}
//% elif FUNCTION == "softplus"
// log(1 + e^x) from our own exponential and logarithm: the built-in ones are silently wrong in f64 on some drivers.
const LOG2_E: real = 1.4426950408889634;
const LN2_HIGH: real = 0.693145751953125;
const LN2_LOW: real = 1.4286068203094172e-6;

// e^a for a <= 0: a = k ln 2 + r, Taylor's series on |r| <= ln 2 / 2, and 2^k from the bits of -k.
fn exp_negative(a: real) -> real {
    let k = floor(fma(a, LOG2_E, HALF));
    let r = fma(-k, LN2_LOW, fma(-k, LN2_HIGH, a));
    var p: real = ${EXP_COEFFICIENTS[0]};
    //% for c in EXP_COEFFICIENTS[1:]
    p = fma(p, r, real(${c}));
    //% endfor
    let e = u32(min(-k, real(${SMALLEST_EXPONENT}.0)));
    //% for b in EXPONENT_BITS
    p *= select(real(1.0), real(${b.power}), (e & ${b.bit}u) != 0u);
    //% endfor
    return p;
}

// log(1 + u) for 0 < u <= 1: twice the inverse hyperbolic tangent of u / (2 + u) <= 1/3, by its series.
fn log_one_plus(u: real) -> real {
    let s = u / (real(2.0) + u);
    let z = s * s;
    var p: real = ${LOG_COEFFICIENTS[0]};
    //% for c in LOG_COEFFICIENTS[1:]
    p = fma(p, z, real(${c}));
    //% endfor
    return real(2.0) * s * p;
}

fn h(x: real) -> real {
    return max(x, ZERO) + log_one_plus(exp_negative(-abs(x)));
}
fn h_derivative(x: real) -> real {
    let u = exp_negative(-abs(x));
    return select(u, real(1.0), x >= ZERO) / (real(1.0) + u);
}
//% endif

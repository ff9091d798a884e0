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
// log(1 + e^x) from our own exponential and logarithm.
//% include "exponential.wgsl"

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

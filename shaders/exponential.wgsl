// Our own exponential: the built-in one may differ between adapters, and is silently wrong in f64 on some drivers.

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

//! Lorenz-63: dx/dt = sigma (y - x), dy/dt = x (rho - z) - y, dz/dt = x y - beta z (Lorenz 1963).

use super::{Dynamics, Number};
use std::ops::RangeInclusive;

/// The Lorenz-63 model. Three parameters: sigma, rho and beta.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lorenz63;

impl Dynamics for Lorenz63 {
    const NAME: &'static str = "lorenz63";
    const PARAMETERS: &'static [&'static str] = &["sigma", "rho", "beta"];
    const DEFAULTS: &'static [f64] = &[10.0, 28.0, 8.0 / 3.0];
    const SITES: RangeInclusive<usize> = 3..=3;
    const STEP: f64 = 0.01;
    const REACH: Option<[usize; 2]> = None;
    // A third of those of all three components, 8 in 4 + 3 and 12 in 6 + 2.
    const OPERATIONS: [[f64; 3]; 2] = [[8.0 / 3.0, 4.0 / 3.0, 1.0], [4.0, 2.0, 2.0 / 3.0]];

    #[inline(always)]
    fn tendency<R: Number>(parameters: &[R], x: &[R], mut emit: impl FnMut(usize, R)) {
        let ([sigma, rho, beta], [x, y, z]) = (three(parameters), three(x));
        emit(0, sigma * (y - x));
        emit(1, x * (rho - z) - y);
        emit(2, beta.neg_mul_add(z, x * y));
    }

    #[inline(always)]
    fn tangent<R: Number>(parameters: &[R], x: &[R], dx: &[R], mut emit: impl FnMut(usize, R)) {
        let ([sigma, rho, beta], [x, y, z], [dx, dy, dz]) = (three(parameters), three(x), three(dx));
        emit(0, sigma * (dy - dx));
        emit(1, x.neg_mul_add(dz, (rho - z) * dx - dy));
        emit(2, beta.neg_mul_add(dz, x.mul_add(dy, y * dx)));
    }

    #[inline(always)]
    fn adjoint<R: Number>(parameters: &[R], x: &[R], w: &[R], mut emit: impl FnMut(usize, R)) {
        let ([sigma, rho, beta], [x, y, z], [wx, wy, wz]) = (three(parameters), three(x), three(w));
        let sigma_wx = sigma * wx;
        emit(0, y.mul_add(wz, (rho - z) * wy - sigma_wx));
        emit(1, x.mul_add(wz, sigma_wx - wy));
        emit(2, x.neg_mul_add(wy, -(beta * wz)));
    }

    #[inline(always)]
    fn parameter_tangent<R: Number>(_: &[R], x: &[R], dp: &[R], mut emit: impl FnMut(usize, R)) {
        let ([x, y, z], [dsigma, drho, dbeta]) = (three(x), three(dp));
        emit(0, (y - x) * dsigma);
        emit(1, x * drho);
        emit(2, -(z * dbeta));
    }

    #[inline(always)]
    fn parameter_adjoint<R: Number>(_: &[R], x: &[R], w: &[R], mut emit: impl FnMut(usize, R)) {
        let ([x, y, z], [wx, wy, wz]) = (three(x), three(w));
        emit(0, (y - x) * wx);
        emit(1, x * wy);
        emit(2, -(z * wz));
    }
}

#[inline(always)]
fn three<R: Copy>(values: &[R]) -> [R; 3] {
    [values[0], values[1], values[2]]
}

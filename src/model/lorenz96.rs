//! Lorenz-96: dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F on a ring of sites (Lorenz 1996).

use super::ring::{self, Stencil};
use super::{Dynamics, Number, Rk4};
use std::ops::RangeInclusive;

/// The Lorenz-96 model. One parameter: the forcing F.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lorenz96;

impl Stencil for Lorenz96 {
    #[inline(always)]
    fn tendency_at<R: Number>(parameters: &[R], [back2, back1, here, next]: [R; 4]) -> R {
        (next - back2).mul_add(back1, parameters[0] - here)
    }

    /// The adjoint gathers: g_i = w_{i-1} x_{i-2} - w_{i+2} x_{i+1} + w_{i+1} (x_{i+2} - x_{i-1}) - w_i.
    #[inline(always)]
    fn adjoint_at<R: Number>(_: &[R], x: [R; 4], w: [R; 4]) -> R {
        let [x_back2, x_back1, x_next, x_next2] = x;
        let [w_back1, w_here, w_next, w_next2] = w;
        let g = w_next * (x_next2 - x_back1) - w_here;
        let g = w_back1.mul_add(x_back2, g);
        w_next2.neg_mul_add(x_next, g)
    }
}

impl Dynamics for Lorenz96 {
    const NAME: &'static str = "lorenz96";
    const PARAMETERS: &'static [&'static str] = &["forcing"];
    const DEFAULTS: &'static [f64] = &[8.0];
    const SITES: RangeInclusive<usize> = 4..=usize::MAX;
    const STEP: f64 = 0.05;
    const REACH: Option<[usize; 2]> = Some([2, 1]);
    const OPERATIONS: [[f64; 3]; 2] = [[4.0, 1.0, 2.0], [7.0, 3.0, 1.0]];

    #[inline(always)]
    fn tendency<R: Number>(parameters: &[R], x: &[R], mut emit: impl FnMut(usize, R)) {
        let n = x.len();
        let (mut back2, mut back1, mut here) = (x[n - 2], x[n - 1], x[0]);
        for i in 0..n {
            let next = if i + 1 < n { x[i + 1] } else { x[0] };
            emit(i, Self::tendency_at(parameters, [back2, back1, here, next]));
            (back2, back1, here) = (back1, here, next);
        }
    }

    #[inline(always)]
    fn tangent<R: Number>(_: &[R], x: &[R], dx: &[R], mut emit: impl FnMut(usize, R)) {
        let n = x.len();
        for i in 0..n {
            let (next, back1, back2) = ((i + 1) % n, (i + n - 1) % n, (i + n - 2) % n);
            let carried = (dx[next] - dx[back2]) * x[back1] - dx[i];
            emit(i, (x[next] - x[back2]).mul_add(dx[back1], carried));
        }
    }

    #[inline(always)]
    fn adjoint<R: Number>(parameters: &[R], x: &[R], w: &[R], mut emit: impl FnMut(usize, R)) {
        let n = x.len();
        for i in 0..n {
            let [back2, back1, next, next2] = [n - 2, n - 1, 1, 2].map(|k| (i + k) % n);
            emit(
                i,
                Self::adjoint_at(
                    parameters,
                    [x[back2], x[back1], x[next], x[next2]],
                    [w[back1], w[i], w[next], w[next2]],
                ),
            );
        }
    }

    #[inline(always)]
    fn parameter_tangent<R: Number>(_: &[R], x: &[R], dp: &[R], mut emit: impl FnMut(usize, R)) {
        (0..x.len()).for_each(|i| emit(i, dp[0]));
    }

    #[inline(always)]
    fn parameter_adjoint<R: Number>(_: &[R], _: &[R], w: &[R], mut emit: impl FnMut(usize, R)) {
        let mut sum = w[0];
        for w in &w[1..] {
            sum = sum + *w;
        }
        emit(0, sum);
    }

    #[inline(always)]
    fn step<R: Number, const KEEP: bool>(
        rk4: &mut Rk4<R>,
        parameters: &[R],
        x: &[R],
        stages: &mut [R],
        next: &mut [R],
    ) {
        ring::step::<Self, R, KEEP>(rk4, parameters, x, stages, next);
    }

    #[inline(always)]
    fn adjoint_step<R: Number>(rk4: &mut Rk4<R>, parameters: &[R], x: &[R], stages: &[R], w: &mut [R]) {
        ring::adjoint_step::<Self, R>(rk4, parameters, x, stages, w);
    }
}

//! Lorenz-96: dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F on a ring of sites (Lorenz 1996).

use super::{Dynamics, Number};

/// The Lorenz-96 model. One parameter: the forcing F.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lorenz96;

impl Dynamics for Lorenz96 {
    #[inline(always)]
    fn tendency<R: Number>(parameters: &[R], x: &[R], mut emit: impl FnMut(usize, R)) {
        let (n, forcing) = (x.len(), parameters[0]);
        let (mut back2, mut back1, mut here) = (x[n - 2], x[n - 1], x[0]);
        for i in 0..n {
            let next = if i + 1 < n { x[i + 1] } else { x[0] };
            emit(i, (next - back2).mul_add(back1, forcing - here));
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

    /// The adjoint gathers: g_i = w_{i-1} x_{i-2} - w_{i+2} x_{i+1} + w_{i+1} (x_{i+2} - x_{i-1}) - w_i.
    #[inline(always)]
    fn adjoint<R: Number>(_: &[R], x: &[R], w: &[R], mut emit: impl FnMut(usize, R)) {
        let n = x.len();
        let (mut x_back2, mut x_back1, mut x_here, mut x_next) = (x[n - 2], x[n - 1], x[0], x[1]);
        let (mut w_back1, mut w_here, mut w_next) = (w[n - 1], w[0], w[1]);
        let ahead = |a: &[R], i: usize| if i + 2 < n { a[i + 2] } else { a[i + 2 - n] };
        for i in 0..n {
            let (x_next2, w_next2) = (ahead(x, i), ahead(w, i));
            let g = w_next * (x_next2 - x_back1) - w_here;
            let g = w_back1.mul_add(x_back2, g);
            emit(i, w_next2.neg_mul_add(x_next, g));
            (x_back2, x_back1, x_here, x_next) = (x_back1, x_here, x_next, x_next2);
            (w_back1, w_here, w_next) = (w_here, w_next, w_next2);
        }
    }
}

//! RK4 steps of a model on a ring of sites whose tendency reads two neighbours behind and one ahead: two stages to a
//! pass over the sites, or from ten sites on all four, with the values between them in registers.
//!
//! A pass of one stage alone waits for memory: it loads and stores three numbers for five operations. The second stage
//! follows the first as close as its neighbours allow, and closes the ring at the end from the first three values. Four
//! sites to a turn of the loop let the windows over the sites slide without a move between registers.
//!
//! (Macros and no closures: a closure that is called in several places is not always inlined, and a call hands vectors
//! over through memory.)

use super::rk4::split;
use super::{Dynamics, Number, Rk4};

/// A tendency and its adjoint at one site, from its neighbours.
pub trait Stencil: Dynamics {
    /// f_i of x_{i-2}, x_{i-1}, x_i, x_{i+1}.
    fn tendency_at<R: Number>(parameters: &[R], x: [R; 4]) -> R;
    /// (F' w)_i of x_{i-2}, x_{i-1}, x_{i+1}, x_{i+2} and w_{i-1}, w_i, w_{i+1}, w_{i+2}.
    fn adjoint_at<R: Number>(parameters: &[R], x: [R; 4], w: [R; 4]) -> R;
}

/// Two stages of a step over `x: [n]`. The first block takes the first stage's tendency `k` at site `i`, stores what it
/// wants, and gives the second stage's state there with something to carry; the second block takes what was carried
/// and the second stage's tendency.
macro_rules! two_stages {
    ($M:ident, $parameters:ident, $x:ident, $n:ident, |$i:ident, $k:ident| $first:block, |$j:ident, $carried:ident, $l:ident| $second:block) => {{
        macro_rules! first {
            ($site:expr, $window:expr) => {{
                let ($i, $k) = ($site, $M::tendency_at($parameters, $window));
                $first
            }};
        }
        macro_rules! second {
            ($site:expr, $carry:expr, $window:expr) => {{
                let ($j, $carried, $l) = ($site, $carry, $M::tendency_at($parameters, $window));
                $second
            }};
        }
        let (y0, c0) = first!(0, [$x[$n - 2], $x[$n - 1], $x[0], $x[1]]);
        let (y1, c1) = first!(1, [$x[$n - 1], $x[0], $x[1], $x[2]]);
        let (y2, c2) = first!(2, [$x[0], $x[1], $x[2], $x[3]]);
        let (mut y, mut carry, mut window) = ([y0, y1, y2], c2, [$x[1], $x[2], $x[3]]);
        macro_rules! both {
            ($site:expr, $next:expr) => {{
                let (site, next) = ($site, $next);
                let (ahead, new) = first!(site, [window[0], window[1], window[2], next]);
                second!(site - 1, carry, [y[0], y[1], y[2], ahead]);
                (window, y, carry) = ([window[1], window[2], next], [y[1], y[2], ahead], new);
            }};
        }
        let turns = ($n - 4) / 4;
        for turn in 0..turns {
            let site = 4 * turn + 3;
            let next: &[_; 4] = $x[site + 1..].first_chunk().expect("within the ring");
            both!(site, next[0]);
            both!(site + 1, next[1]);
            both!(site + 2, next[2]);
            both!(site + 3, next[3]);
        }
        for site in 4 * turns + 3..$n {
            both!(site, if site + 1 < $n { $x[site + 1] } else { $x[0] });
        }
        second!($n - 1, carry, [y[0], y[1], y[2], y0]);
        second!(0, c0, [y[1], y[2], y0, y1]);
        second!(1, c1, [y[2], y0, y1, y2]);
    }};
}
/// Two stages of an adjoint step. `a`, `b: [n]` are the states of the two stages and `w: [n]` the cotangent that enters
/// the first; the blocks are those of [`two_stages`].
macro_rules! two_adjoint_stages {
    ($M:ident, $parameters:ident, [$a:ident, $b:ident], $w:ident, $n:ident, |$i:ident, $k:ident| $first:block, |$j:ident, $carried:ident, $l:ident| $second:block) => {{
        macro_rules! first {
            ($site:expr, $y:expr, $v:expr) => {{
                let ($i, $k) = ($site, $M::adjoint_at($parameters, $y, $v));
                $first
            }};
        }
        macro_rules! second {
            ($site:expr, $carry:expr, $y:expr, $v:expr) => {{
                let ($j, $carried, $l) = ($site, $carry, $M::adjoint_at($parameters, $y, $v));
                $second
            }};
        }
        let fifth = if $n == 4 { 0 } else { 4 };
        let (v0, c0) = first!(0, [$a[$n - 2], $a[$n - 1], $a[1], $a[2]], [$w[$n - 1], $w[0], $w[1], $w[2]]);
        let (v1, c1) = first!(1, [$a[$n - 1], $a[0], $a[2], $a[3]], [$w[0], $w[1], $w[2], $w[3]]);
        let (v2, c2) = first!(2, [$a[0], $a[1], $a[3], $a[fifth]], [$w[1], $w[2], $w[3], $w[fifth]]);
        let (mut v, mut carry, mut window) = ([v0, v1, v2], [c1, c2], [$w[2], $w[3], $w[fifth]]);
        let (mut ya, mut yb) = ([$a[1], $a[2], $a[3], $a[fifth]], [$b[$n - 1], $b[0], $b[1], $b[2]]);
        macro_rules! both {
            ($site:expr, $next_w:expr, $next_a:expr, $next_b:expr) => {{
                let (site, next_w, next_a, next_b) = ($site, $next_w, $next_a, $next_b);
                let (ahead, new) =
                    first!(site, [ya[0], ya[1], ya[3], next_a], [window[0], window[1], window[2], next_w]);
                second!(site - 2, carry[0], [yb[0], yb[1], yb[3], next_b], [v[0], v[1], v[2], ahead]);
                (ya, yb) = ([ya[1], ya[2], ya[3], next_a], [yb[1], yb[2], yb[3], next_b]);
                (window, v, carry) = ([window[1], window[2], next_w], [v[1], v[2], ahead], [carry[1], new]);
            }};
        }
        let turns = $n.saturating_sub(5) / 4;
        for turn in 0..turns {
            let site = 4 * turn + 3;
            let next_w: &[_; 4] = $w[site + 2..].first_chunk().expect("within the ring");
            let next_a: &[_; 4] = $a[site + 2..].first_chunk().expect("within the ring");
            let next_b: &[_; 4] = $b[site..].first_chunk().expect("within the ring");
            both!(site, next_w[0], next_a[0], next_b[0]);
            both!(site + 1, next_w[1], next_a[1], next_b[1]);
            both!(site + 2, next_w[2], next_a[2], next_b[2]);
            both!(site + 3, next_w[3], next_a[3], next_b[3]);
        }
        if $n % 4 == 0 && $n > 4 {
            both!($n - 5, $w[$n - 3], $a[$n - 3], $b[$n - 5]);
            both!($n - 4, $w[$n - 2], $a[$n - 2], $b[$n - 4]);
            both!($n - 3, $w[$n - 1], $a[$n - 1], $b[$n - 3]);
            both!($n - 2, $w[0], $a[0], $b[$n - 2]);
            both!($n - 1, $w[1], $a[1], $b[$n - 1]);
        } else {
            for site in 4 * turns + 3..$n {
                let ahead = if site + 2 < $n { site + 2 } else { site + 2 - $n };
                both!(site, $w[ahead], $a[ahead], $b[site]);
            }
        }
        let _ = (window, ya);
        second!($n - 2, carry[0], [yb[0], yb[1], yb[3], $b[0]], [v[0], v[1], v[2], v0]);
        second!($n - 1, carry[1], [yb[1], yb[2], $b[0], $b[1]], [v[1], v[2], v0, v1]);
        second!(0, c0, [yb[2], yb[3], $b[1], $b[2]], [v[2], v0, v1, v2]);
    }};
}

/// Fewest sites of a pass of all four stages of a step.
const FEWEST: usize = 10;

/// [`Rk4::step`], of at least 4 sites. `stages` holds nothing to rely on where the stage states are not kept.
#[inline(always)]
pub fn step<M: Stencil, R: Number, const KEEP: bool>(
    rk4: &mut Rk4<R>,
    parameters: &[R],
    x: &[R],
    stages: &mut [R],
    next: &mut [R],
) {
    if x.len() < FEWEST {
        return small_step::<M, R>(rk4, parameters, x, stages, next);
    }
    let n = x.len();
    let (half, full, sixth, two) = (rk4.half, rk4.full, rk4.sixth, rk4.two);
    let next = &mut next[..n];
    let [y2, y3, y4] = split(stages, n);
    // What a stage gives at a site: the next stage's state there, and the increments summed so far.
    macro_rules! first {
        ($i:expr, $x:expr) => {{
            let (i, k) = ($i, M::tendency_at(parameters, $x));
            let y = half.mul_add(k, x[i]);
            if KEEP {
                y2[i] = y;
            }
            (y, k)
        }};
    }
    macro_rules! second {
        ($i:expr, $y:expr, $sum:expr) => {{
            let (i, k) = ($i, M::tendency_at(parameters, $y));
            let y = half.mul_add(k, x[i]);
            if KEEP {
                y3[i] = y;
            }
            (y, two.mul_add(k, $sum))
        }};
    }
    macro_rules! third {
        ($i:expr, $y:expr, $sum:expr) => {{
            let (i, k) = ($i, M::tendency_at(parameters, $y));
            let y = full.mul_add(k, x[i]);
            if KEEP {
                y4[i] = y;
            }
            (y, two.mul_add(k, $sum))
        }};
    }
    macro_rules! fourth {
        ($i:expr, $y:expr, $sum:expr) => {{
            let (i, k) = ($i, M::tendency_at(parameters, $y));
            next[i] = sixth.mul_add($sum + k, x[i]);
        }};
    }
    // The second stage begins at site 2, the third at 4, the fourth at 6.
    let (b0, s0) = first!(0, [x[n - 2], x[n - 1], x[0], x[1]]);
    let (b1, s1) = first!(1, [x[n - 1], x[0], x[1], x[2]]);
    let (b2, s2) = first!(2, [x[0], x[1], x[2], x[3]]);
    let (b3, s3) = first!(3, [x[1], x[2], x[3], x[4]]);
    let (c2, t2) = second!(2, [b0, b1, b2, b3], s2);
    let (b4, s4) = first!(4, [x[2], x[3], x[4], x[5]]);
    let (c3, t3) = second!(3, [b1, b2, b3, b4], s3);
    let (b5, s5) = first!(5, [x[3], x[4], x[5], x[6]]);
    let (c4, t4) = second!(4, [b2, b3, b4, b5], s4);
    let (b6, s6) = first!(6, [x[4], x[5], x[6], x[7]]);
    let (c5, t5) = second!(5, [b3, b4, b5, b6], s5);
    let (d4, u4) = third!(4, [c2, c3, c4, c5], t4);
    let (b7, s7) = first!(7, [x[5], x[6], x[7], x[8]]);
    let (c6, t6) = second!(6, [b4, b5, b6, b7], s6);
    let (d5, u5) = third!(5, [c3, c4, c5, c6], t5);
    let (b8, s8) = first!(8, [x[6], x[7], x[8], x[9]]);
    let (c7, t7) = second!(7, [b5, b6, b7, b8], s7);
    let (d6, u6) = third!(6, [c4, c5, c6, c7], t6);
    let (mut a, mut b, mut c, mut d) = ([x[7], x[8], x[9]], [b6, b7, b8], [c5, c6, c7], [d4, d5, d6]);
    let (mut s, mut t, mut u) = (s8, t7, u6);
    macro_rules! all {
        ($i:expr, $next:expr) => {{
            let (i, an) = ($i, $next);
            let (bn, sn) = first!(i, [a[0], a[1], a[2], an]);
            let (cn, tn) = second!(i - 1, [b[0], b[1], b[2], bn], s);
            let (dn, un) = third!(i - 2, [c[0], c[1], c[2], cn], t);
            fourth!(i - 3, [d[0], d[1], d[2], dn], u);
            (a, b, c, d) = ([a[1], a[2], an], [b[1], b[2], bn], [c[1], c[2], cn], [d[1], d[2], dn]);
            (s, t, u) = (sn, tn, un);
        }};
    }
    let turns = (n - 10) / 4;
    for turn in 0..turns {
        let i = 4 * turn + 9;
        let ahead: &[_; 4] = x[i + 1..].first_chunk().expect("within the ring");
        all!(i, ahead[0]);
        all!(i + 1, ahead[1]);
        all!(i + 2, ahead[2]);
        all!(i + 3, ahead[3]);
    }
    if n.is_multiple_of(4) {
        all!(n - 3, x[n - 2]);
        all!(n - 2, x[n - 1]);
        all!(n - 1, x[0]);
    } else {
        for i in 4 * turns + 9..n {
            all!(i, if i + 1 < n { x[i + 1] } else { x[0] });
        }
    }
    let _ = a;
    let (cl, tl) = second!(n - 1, [b[0], b[1], b[2], b0], s);
    let (dk, uk) = third!(n - 2, [c[0], c[1], c[2], cl], t);
    fourth!(n - 3, [d[0], d[1], d[2], dk], u);
    let (c0, t0) = second!(0, [b[1], b[2], b0, b1], s0);
    let (dl, ul) = third!(n - 1, [c[1], c[2], cl, c0], tl);
    fourth!(n - 2, [d[1], d[2], dk, dl], uk);
    let (c1, t1) = second!(1, [b[2], b0, b1, b2], s1);
    let (d0, u0) = third!(0, [c[2], cl, c0, c1], t0);
    fourth!(n - 1, [d[2], dk, dl, d0], ul);
    let (d1, u1) = third!(1, [cl, c0, c1, c2], t1);
    fourth!(0, [dk, dl, d0, d1], u0);
    let (d2, u2) = third!(2, [c0, c1, c2, c3], t2);
    fourth!(1, [dl, d0, d1, d2], u1);
    let (d3, u3) = third!(3, [c1, c2, c3, c4], t3);
    fourth!(2, [d0, d1, d2, d3], u2);
    fourth!(3, [d1, d2, d3, d4], u3);
    fourth!(4, [d2, d3, d4, d5], u4);
    fourth!(5, [d3, d4, d5, d6], u5);
}

/// A step of 4 sites and more.
#[inline(always)]
fn small_step<M: Stencil, R: Number>(rk4: &mut Rk4<R>, parameters: &[R], x: &[R], stages: &mut [R], next: &mut [R]) {
    let n = x.len();
    let (half, full, sixth, two) = (rk4.half, rk4.full, rk4.sixth, rk4.two);
    let (sum, next) = (&mut rk4.sum[..n], &mut next[..n]);
    let [y2, y3, y4] = split(stages, n);
    two_stages!(
        M,
        parameters,
        x,
        n,
        |i, k| {
            let y = half.mul_add(k, x[i]);
            y2[i] = y;
            (y, k)
        },
        |i, k1, k| {
            y3[i] = half.mul_add(k, x[i]);
            sum[i] = two.mul_add(k, k1);
        }
    );
    two_stages!(
        M,
        parameters,
        y3,
        n,
        |i, k| {
            let y = full.mul_add(k, x[i]);
            y4[i] = y;
            (y, two.mul_add(k, sum[i]))
        },
        |i, total, k| {
            next[i] = sixth.mul_add(total + k, x[i]);
        }
    );
}

/// [`Rk4::adjoint`], of at least 4 sites.
#[inline(always)]
pub fn adjoint_step<M: Stencil, R: Number>(rk4: &mut Rk4<R>, parameters: &[R], x: &[R], stages: &[R], w: &mut [R]) {
    let n = x.len();
    let (half, full, sixth) = (rk4.half, rk4.full, rk4.sixth);
    let (sum, v, w) = (&mut rk4.sum[..n], &mut rk4.v[..n], &mut w[..n]);
    let (y2, y3, y4) = (&stages[..n], &stages[n..2 * n], &stages[2 * n..3 * n]);
    two_adjoint_stages!(M, parameters, [y4, y3], w, n, |i, g| { (half.mul_add(g, w[i]), g) }, |i, g4, g| {
        v[i] = half.mul_add(g, w[i]);
        sum[i] = g4 + (g + g);
    });
    two_adjoint_stages!(
        M,
        parameters,
        [y2, x],
        v,
        n,
        |i, g| { (full.mul_add(g, w[i]), sum[i] + (g + g)) },
        |i, total, g| {
            w[i] = sixth.mul_add(total + g, w[i]);
        }
    );
}

//! Rational-quadratic splines (Durkan, Bekasov, Murray & Papamakarios 2019): a growing function on [-5, 5] of bins whose
//! widths, heights and inner slopes are given; the identity outside, with slope 1 at both ends.
//!
//! Within a bin, with xi its share of the width, r = 1 - xi, s = height / width and d0, d1 the slopes at its ends:
//! y = y0 + height (s xi^2 + d0 xi r) / D, D = s + (d0 + d1 - 2 s) xi r,
//! dy/dx = s^2 (d1 xi^2 + 2 s xi r + d0 r^2) / D^2.

/// Bins.
const BINS: usize = 8;

/// Numbers of a spline: widths and heights before they are shared out, slopes before they are positive.
pub(super) const NUMBERS: usize = 3 * BINS - 1;

/// The domain is [-BOUND, BOUND].
const BOUND: f64 = 5.0;

/// Least width and height of a bin, as a share of the domain, and least slope.
const LEAST: f64 = 1e-3;

/// What shares of the domain are multiplied by to leave every bin its least one.
const SHARED: f64 = 1.0 - LEAST * BINS as f64;

/// One bin.
#[derive(Clone, Copy, Debug)]
struct Bin {
    index: usize,
    x0: f64,
    y0: f64,
    width: f64,
    height: f64,
    d0: f64,
    d1: f64,
}

/// y and log dy/dx at x.
pub(super) fn forward(x: f64, numbers: &[f32]) -> (f64, f64) {
    if !(-BOUND..BOUND).contains(&x) {
        return (x, 0.0);
    }
    let bin = Bin::of(x, numbers, false);
    let place = Place::new(&bin, (x - bin.x0) / bin.width);
    (bin.y0 + bin.height * place.rise / place.denominator, place.log_slope())
}

/// x, and log dy/dx there, at y.
pub(super) fn inverse(y: f64, numbers: &[f32]) -> (f64, f64) {
    if !(-BOUND..BOUND).contains(&y) {
        return (y, 0.0);
    }
    let bin = Bin::of(y, numbers, true);
    let (s, above) = (bin.height / bin.width, y - bin.y0);
    let bend = above * (bin.d0 + bin.d1 - 2.0 * s);
    let (a, b, c) = (bin.height * (s - bin.d0) + bend, bin.height * bin.d0 - bend, -s * above);
    // Of the two roots the one in [0, 1], in the form that does not cancel.
    let xi = 2.0 * c / (-b - (b * b - 4.0 * a * c).max(0.0).sqrt());
    (bin.x0 + xi * bin.width, Place::new(&bin, xi).log_slope())
}

/// From gradients with respect to y and log dy/dx to those with respect to x (returned) and the numbers.
pub(super) fn pull_back(x: f64, numbers: &[f32], by_y: f64, by_log_slope: f64, by_numbers: &mut [f32]) -> f64 {
    by_numbers.fill(0.0);
    if !(-BOUND..BOUND).contains(&x) {
        return by_y;
    }
    let bin = Bin::of(x, numbers, false);
    let Bin { index, width, height, d0, d1, .. } = bin;
    let place = Place::new(&bin, (x - bin.x0) / width);
    let Place { xi, s, product, rise, denominator, slope } = place;
    let rest = 1.0 - xi;

    // Backwards through the formulae above.
    let by_rise = by_y * height / denominator;
    let by_denominator = -by_rise * rise / denominator - 2.0 * by_log_slope / denominator;
    let by_slope = by_log_slope / slope;
    let by_product = by_rise * d0 + by_denominator * (d0 + d1 - 2.0 * s) + by_slope * 2.0 * s;
    let by_xi = by_rise * 2.0 * s * xi + by_slope * 2.0 * (d1 * xi - d0 * rest) + by_product * (rest - xi);
    let by_s =
        2.0 * by_log_slope / s + by_rise * xi * xi + by_denominator * (1.0 - 2.0 * product) + by_slope * 2.0 * product;
    let by_d0 = (by_rise + by_denominator) * product + by_slope * rest * rest;
    let by_d1 = by_denominator * product + by_slope * xi * xi;
    let by_x = by_xi / width;
    let by_width = -(by_s * s + by_xi * xi) / width;
    let by_height = by_y * rise / denominator + by_s / width;

    let (by_widths, rest) = by_numbers.split_at_mut(BINS);
    let (by_heights, by_slopes) = rest.split_at_mut(BINS);
    pull_back_sizes(&numbers[..BINS], index, -by_x, by_width, by_widths);
    pull_back_sizes(&numbers[BINS..2 * BINS], index, by_y, by_height, by_heights);
    let slopes = &numbers[2 * BINS..];
    if index > 0 {
        by_slopes[index - 1] = (by_d0 * positive(slopes[index - 1]).1) as f32;
    }
    if index < BINS - 1 {
        by_slopes[index] = (by_d1 * positive(slopes[index]).1) as f32;
    }
    by_x
}

/// Where in a bin, and what the formulae need there.
#[derive(Clone, Copy, Debug)]
struct Place {
    xi: f64,
    s: f64,
    /// xi (1 - xi)
    product: f64,
    /// s xi^2 + d0 xi r
    rise: f64,
    denominator: f64,
    /// d1 xi^2 + 2 s xi r + d0 r^2
    slope: f64,
}

impl Place {
    fn new(bin: &Bin, xi: f64) -> Self {
        let Bin { d0, d1, .. } = *bin;
        let (s, rest) = (bin.height / bin.width, 1.0 - xi);
        let product = xi * rest;
        Self {
            xi,
            s,
            product,
            rise: s * xi * xi + d0 * product,
            denominator: s + (d0 + d1 - 2.0 * s) * product,
            slope: d1 * xi * xi + 2.0 * s * product + d0 * rest * rest,
        }
    }

    fn log_slope(&self) -> f64 {
        let ratio = self.s / self.denominator;
        (ratio * ratio * self.slope).ln()
    }
}

impl Bin {
    /// The bin that x is in, or y where `by_height`.
    fn of(at: f64, numbers: &[f32], by_height: bool) -> Self {
        let (widths, heights) = (sizes(&numbers[..BINS]), sizes(&numbers[BINS..2 * BINS]));
        let (mut x0, mut y0, mut index) = (-BOUND, -BOUND, 0);
        // What rounding leaves beyond the last bin belongs to it.
        while index < BINS - 1 && at >= if by_height { y0 + heights[index] } else { x0 + widths[index] } {
            x0 += widths[index];
            y0 += heights[index];
            index += 1;
        }
        let slope = |inner: Option<&f32>| inner.map_or(1.0, |raw| positive(*raw).0);
        let slopes = &numbers[2 * BINS..];
        let before = index.checked_sub(1).map(|k| &slopes[k]);
        Self {
            index,
            x0,
            y0,
            width: widths[index],
            height: heights[index],
            d0: slope(before),
            d1: slope(slopes.get(index)),
        }
    }
}

/// Shares of 1.
fn shares(raw: &[f32]) -> [f64; BINS] {
    let largest = raw.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let powers: [f64; BINS] = std::array::from_fn(|k| f64::from((raw[k] - largest).exp()));
    let total: f64 = powers.iter().sum();
    powers.map(|power| power / total)
}

/// Sizes of bins that fill the domain, each at least [`LEAST`] of it.
fn sizes(raw: &[f32]) -> [f64; BINS] {
    shares(raw).map(|share| 2.0 * BOUND * (LEAST + SHARED * share))
}

/// From gradients with respect to the start and the size of bin `index` to those with respect to what sizes are made of.
fn pull_back_sizes(raw: &[f32], index: usize, by_start: f64, by_size: f64, by_raw: &mut [f32]) {
    let shares = shares(raw);
    let by_share = |k: usize| match k.cmp(&index) {
        std::cmp::Ordering::Less => by_start,
        std::cmp::Ordering::Equal => by_size,
        std::cmp::Ordering::Greater => 0.0,
    };
    let mean: f64 = (0..=index).map(|k| shares[k] * by_share(k)).sum();
    for (k, by_raw) in by_raw.iter_mut().enumerate() {
        *by_raw = (2.0 * BOUND * SHARED * shares[k] * (by_share(k) - mean)) as f32;
    }
}

/// A slope, 1 at 0 and never below [`LEAST`], with its derivative: a softplus of the number and what makes it 1 at 0.
fn positive(raw: f32) -> (f64, f64) {
    let at = f64::from(raw) + (1.0 - LEAST).exp_m1().ln();
    let softplus = at.max(0.0) + (-at.abs()).exp().ln_1p();
    (LEAST + softplus, 1.0 / (1.0 + (-at).exp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(seed: usize) -> Vec<f32> {
        (0..NUMBERS).map(|k| (1.7 * (k + 31 * seed) as f32 + 0.3).sin() * 1.5).collect()
    }

    /// Durkan et al.'s equations 4 and 5 with their appendix A.1, written out for one bin after the other.
    fn by_the_paper(x: f64, numbers: &[f32]) -> (f64, f64) {
        let raw = |k: usize| f64::from(numbers[k]);
        let sizes = |first: usize| -> Vec<f64> {
            let total: f64 = (0..8).map(|k| raw(first + k).exp()).sum();
            (0..8).map(|k| 10.0 * (0.001 + 0.992 * raw(first + k).exp() / total)).collect()
        };
        let (widths, heights) = (sizes(0), sizes(8));
        let inner = |k: usize| 0.001 + (1.0 + (raw(16 + k) + (0.999f64.exp() - 1.0).ln()).exp()).ln();
        let slope = |k: usize| if k == 0 || k == 8 { 1.0 } else { inner(k - 1) };
        let (mut x0, mut y0, mut k) = (-5.0, -5.0, 0);
        while x > x0 + widths[k] {
            (x0, y0, k) = (x0 + widths[k], y0 + heights[k], k + 1);
        }
        let (xi, s, d0, d1) = ((x - x0) / widths[k], heights[k] / widths[k], slope(k), slope(k + 1));
        let denominator = s + (d1 + d0 - 2.0 * s) * xi * (1.0 - xi);
        let y = y0 + heights[k] * (s * xi * xi + d0 * xi * (1.0 - xi)) / denominator;
        let numerator = s * s * (d1 * xi * xi + 2.0 * s * xi * (1.0 - xi) + d0 * (1.0 - xi) * (1.0 - xi));
        (y, (numerator / (denominator * denominator)).ln())
    }

    #[test]
    fn splines_are_those_of_the_paper() {
        for (seed, k) in (0..5).flat_map(|seed| (0..100).map(move |k| (seed, k))) {
            let (numbers, x) = (numbers(seed), -5.94 + 0.12 * f64::from(k));
            let (y, log_slope) = forward(x, &numbers);
            let want = if x.abs() < 5.0 { by_the_paper(x, &numbers) } else { (x, 0.0) };
            // The shares' exponentials are f32.
            assert!((y - want.0).abs() < 1e-5 && (log_slope - want.1).abs() < 1e-5, "{x}: {y}, {log_slope}, {want:?}");
            let (again, back) = inverse(y, &numbers);
            assert!((again - x).abs() < 1e-11 && (back - log_slope).abs() < 1e-9, "{x}: {again}");
        }
        let (y, log_slope) = forward(0.3, &[0.0; NUMBERS]);
        assert!((y - 0.3).abs() < 1e-14 && log_slope.abs() < 1e-14, "numbers of zero are not the identity");
    }

    /// Most of them: a difference across the end of a bin sees the gradients of both.
    #[test]
    fn spline_gradients_are_those_of_the_spline() {
        let (by_y, by_log_slope) = (0.7, -1.3);
        let mut errors = Vec::new();
        for (seed, k) in (0..5).flat_map(|seed| (0..40).map(move |k| (seed, k))) {
            let (numbers, x) = (numbers(seed), -5.7 + 0.29 * f64::from(k));
            let value = |x: f64, numbers: &[f32]| {
                let (y, log_slope) = forward(x, numbers);
                by_y * y + by_log_slope * log_slope
            };
            let mut by_numbers = vec![f32::NAN; NUMBERS];
            let by_x = pull_back(x, &numbers, by_y, by_log_slope, &mut by_numbers);
            let step = 1e-5;
            let difference = (value(x + step, &numbers) - value(x - step, &numbers)) / (2.0 * step);
            errors.push((by_x - difference).abs() / (1.0 + by_x.abs()));
            for j in 0..NUMBERS {
                let side = |sign: f32| {
                    let mut moved = numbers.clone();
                    moved[j] += sign / 1024.0;
                    value(x, &moved)
                };
                let (got, want) = (f64::from(by_numbers[j]), (side(1.0) - side(-1.0)) * 512.0);
                errors.push((got - want).abs() / (1.0 + want.abs()));
            }
        }
        errors.sort_by(f64::total_cmp);
        let share = |part: f64| errors[(part * errors.len() as f64) as usize];
        assert!(share(0.5) < 1e-4 && share(0.98) < 1e-2, "{} {} {}", share(0.5), share(0.9), share(0.98));
    }
}

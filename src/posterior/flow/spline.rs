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

/// A spline of given numbers.
pub(super) struct Spline<'a> {
    numbers: &'a [f32],
    /// What the bins' widths and heights share out.
    widths: [f64; BINS],
    heights: [f64; BINS],
}

/// The number whose softplus is 1 - LEAST: ln(e^0.999 - 1).
const ONE: f64 = 0.539742417236952;

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

impl<'a> Spline<'a> {
    pub fn new(numbers: &'a [f32]) -> Self {
        Self { numbers, widths: shares(&numbers[..BINS]), heights: shares(&numbers[BINS..2 * BINS]) }
    }

    /// The place of x; none outside the domain.
    pub fn at(&self, x: f64) -> Option<Place> {
        if !(-BOUND..BOUND).contains(&x) {
            return None;
        }
        let bin = self.bin(x, false);
        Some(Place::new(bin, (x - bin.x0) / bin.width))
    }

    /// x, and log dy/dx there, at y.
    pub fn inverse(&self, y: f64) -> (f64, f64) {
        if !(-BOUND..BOUND).contains(&y) {
            return (y, 0.0);
        }
        let bin = self.bin(y, true);
        let (s, above) = (bin.height / bin.width, y - bin.y0);
        let bend = above * (bin.d0 + bin.d1 - 2.0 * s);
        let (a, b, c) = (bin.height * (s - bin.d0) + bend, bin.height * bin.d0 - bend, -s * above);
        // Of the two roots the one in [0, 1], in the form that does not cancel.
        let xi = 2.0 * c / (-b - (b * b - 4.0 * a * c).max(0.0).sqrt());
        (bin.x0 + xi * bin.width, Place::new(bin, xi).log_slope())
    }

    /// From gradients with respect to y and log dy/dx at a place to those with respect to x (returned) and the numbers.
    pub fn pull_back(&self, place: &Place, by_y: f64, by_log_slope: f64, by_numbers: &mut [f32]) -> f64 {
        by_numbers.fill(0.0);
        let Place { bin: Bin { index, width, height, d0, d1, .. }, xi, s, product, rise, denominator, slope } = *place;
        let rest = 1.0 - xi;

        // Backwards through the formulae above.
        let by_rise = by_y * height / denominator;
        let by_denominator = -by_rise * rise / denominator - 2.0 * by_log_slope / denominator;
        let by_slope = by_log_slope / slope;
        let by_product = by_rise * d0 + by_denominator * (d0 + d1 - 2.0 * s) + by_slope * 2.0 * s;
        let by_xi = by_rise * 2.0 * s * xi + by_slope * 2.0 * (d1 * xi - d0 * rest) + by_product * (rest - xi);
        let by_s = 2.0 * by_log_slope / s
            + by_rise * xi * xi
            + by_denominator * (1.0 - 2.0 * product)
            + by_slope * 2.0 * product;
        let by_d0 = (by_rise + by_denominator) * product + by_slope * rest * rest;
        let by_d1 = by_denominator * product + by_slope * xi * xi;
        let by_x = by_xi / width;
        let by_width = -(by_s * s + by_xi * xi) / width;
        let by_height = by_y * rise / denominator + by_s / width;

        let (by_widths, others) = by_numbers.split_at_mut(BINS);
        let (by_heights, by_slopes) = others.split_at_mut(BINS);
        pull_back_sizes(&self.widths, index, -by_x, by_width, by_widths);
        pull_back_sizes(&self.heights, index, by_y, by_height, by_heights);
        let slopes = &self.numbers[2 * BINS..];
        if index > 0 {
            by_slopes[index - 1] = (by_d0 * positive(slopes[index - 1]).1) as f32;
        }
        if index < BINS - 1 {
            by_slopes[index] = (by_d1 * positive(slopes[index]).1) as f32;
        }
        by_x
    }

    /// The bin that x is in, or y where `by_height`.
    fn bin(&self, at: f64, by_height: bool) -> Bin {
        let (mut x0, mut y0, mut index) = (-BOUND, -BOUND, 0);
        loop {
            let (width, height) = (size(self.widths[index]), size(self.heights[index]));
            // What rounding leaves beyond the last bin belongs to it.
            if index == BINS - 1 || at < if by_height { y0 + height } else { x0 + width } {
                let slope = |inner: Option<&f32>| inner.map_or(1.0, |raw| positive(*raw).0);
                let slopes = &self.numbers[2 * BINS..];
                let before = index.checked_sub(1).map(|k| &slopes[k]);
                return Bin { index, x0, y0, width, height, d0: slope(before), d1: slope(slopes.get(index)) };
            }
            x0 += width;
            y0 += height;
            index += 1;
        }
    }
}

/// Where in a bin, and what the formulae need there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    bin: Bin,
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
    fn new(bin: Bin, xi: f64) -> Self {
        let Bin { d0, d1, .. } = bin;
        let (s, rest) = (bin.height / bin.width, 1.0 - xi);
        let product = xi * rest;
        Self {
            bin,
            xi,
            s,
            product,
            rise: s * xi * xi + d0 * product,
            denominator: s + (d0 + d1 - 2.0 * s) * product,
            slope: d1 * xi * xi + 2.0 * s * product + d0 * rest * rest,
        }
    }

    pub fn y(&self) -> f64 {
        self.bin.y0 + self.bin.height * self.rise / self.denominator
    }

    /// log dy/dx
    pub fn log_slope(&self) -> f64 {
        let ratio = self.s / self.denominator;
        (ratio * ratio * self.slope).ln()
    }
}

/// Shares of 1.
fn shares(raw: &[f32]) -> [f64; BINS] {
    let largest = raw.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let powers: [f64; BINS] = std::array::from_fn(|k| f64::from((raw[k] - largest).exp()));
    let scale = powers.iter().sum::<f64>().recip();
    powers.map(|power| power * scale)
}

/// The size of a bin of that share, at least [`LEAST`] of the domain.
fn size(share: f64) -> f64 {
    2.0 * BOUND * (LEAST + SHARED * share)
}

/// From gradients with respect to the start and the size of bin `index` to those with respect to what is shared out.
fn pull_back_sizes(shares: &[f64; BINS], index: usize, by_start: f64, by_size: f64, by_raw: &mut [f32]) {
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
    let at = f64::from(raw) + ONE;
    let small = (-at.abs()).exp();
    let share = 1.0 / (1.0 + small);
    (LEAST + at.max(0.0) + small.ln_1p(), if at > 0.0 { share } else { small * share })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(x: f64, numbers: &[f32]) -> (f64, f64) {
        Spline::new(numbers).at(x).map_or((x, 0.0), |place| (place.y(), place.log_slope()))
    }

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
            let (again, back) = Spline::new(&numbers).inverse(y);
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
            let spline = Spline::new(&numbers);
            let Some(place) = spline.at(x) else { continue };
            let by_x = spline.pull_back(&place, by_y, by_log_slope, &mut by_numbers);
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

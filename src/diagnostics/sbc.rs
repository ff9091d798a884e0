//! Simulation-based calibration: ranks of truths drawn from the prior are uniform where the posterior is right (Talts et
//! al. 2018), and their distribution function shows how it is wrong.
//!
//! The band around it holds all of the function at once (Säilynoja, Bürkner & Vehtari 2022, arXiv 2103.10522, by
//! simulation). Symmetry of the ranks alone is VSBC: a variational mean without bias (Yao et al. 2018, arXiv 1802.02538).

use super::{BAND_LEVEL, Rank};
use crate::random::{Stream, StreamRng};
use rand::RngExt;
use rand_distr::{Binomial, Distribution};
use serde::Serialize;
use statrs::distribution::{Binomial as BinomialLaw, DiscreteCDF};
use std::collections::HashMap;
use std::fmt;

/// Points at which the distribution function is compared, at most.
const POINTS: usize = 100;
/// Uniform samples simulated for the band and each p-value: it is good to 0.004 at 0.05.
const SIMULATIONS: usize = 4000;
/// p of the share in the outer 10 % below which the ranks are not uniform, whatever the band says.
const IMPROBABLE: f64 = 0.01;
/// p of symmetry below which the ranks are called biased, once they are not uniform.
const SIGNIFICANT: f64 = 0.05;
/// Standard errors of the dispersion from which on they are called too narrow or too wide.
const SIGNIFICANT_ERRORS: f64 = 1.96;

/// The distribution function of N independent probability-integral values against the uniform one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankEcdf {
    /// N.
    pub count: usize,
    /// Where it is taken, evenly in (0, 1): `[points]`.
    pub points: Vec<f64>,
    /// Share of the values up to each point: `[points]`.
    pub ecdf: Vec<f64>,
    /// Lower end of the band that holds all points with probability 95 % where the values are uniform: `[points]`.
    pub band_low: Vec<f64>,
    /// Its upper end: `[points]`.
    pub band_high: Vec<f64>,
    /// Probability of uniform values to leave a band somewhere that these just touch.
    pub p_value: f64,
    /// VSBC: the same of symmetry about 1/2, by the distance of Kolmogorov and Smirnov between the values and their mirror
    /// images. That of Yao et al. takes the two as independent; here it is by random reflection of each value, which is
    /// exact.
    pub symmetry_p_value: f64,
    /// Mean of the values minus 1/2, in its standard error under uniformity: above 0 truths lie above the samples.
    pub bias: f64,
    /// Mean distance of the values from 1/2, minus 1/4, in its standard error under uniformity: above 0 the posterior is too
    /// narrow.
    pub dispersion: f64,
    /// Share of the values in the outer 10 %.
    pub outside_90: f64,
    /// Probability of uniform values to have a share at least as far from 10 %. Few values can be inside the band and yet
    /// nearly all at the ends.
    pub outside_p_value: f64,
}

/// What ranks say about a posterior.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// They stay inside the band.
    Calibrated,
    /// Too many truths at the ends.
    TooNarrow,
    /// Too many in the middle.
    TooWide,
    /// Too many truths on one side.
    Biased,
    /// Outside of the band in none of these ways.
    Other,
}

impl Rank {
    /// The rank as a probability-integral value in (0, 1): uniform, and continuous, where the rank is. `jitter` in [0, 1) is
    /// the place inside of the rank's cell.
    pub fn value(self, jitter: f64) -> f64 {
        (self.rank as f64 + jitter) / (self.samples as f64 + 1.0)
    }
}

/// The band of the distribution function of N uniform values, which all methods and sites with as many problems share.
#[derive(Clone, Debug)]
pub struct UniformBand {
    count: usize,
    points: Vec<f64>,
    low: Vec<f64>,
    high: Vec<f64>,
    /// How deep inside simulated uniform values are, in ascending order.
    depths: Vec<f64>,
}

impl UniformBand {
    /// For N values, at least two. Its simulations are seeded by N: always the same band.
    ///
    /// # Panics
    /// For fewer.
    pub fn new(count: usize) -> Self {
        assert!(count > 1, "a distribution function needs two values, found {count}");
        let cells = count.min(POINTS);
        let points: Vec<f64> = (1..cells).map(|k| k as f64 / cells as f64).collect();
        let mut rng = StreamRng::new(count as u64, Stream::Calibration);
        // Simulated counts come again and again, and each costs an incomplete beta function.
        let mut known: Vec<HashMap<u64, f64>> = vec![HashMap::new(); points.len()];
        let mut simulated = || {
            let counts = uniform_counts(count, &points, &mut rng);
            let own = |(k, counts): (usize, &u64)| {
                *known[k].entry(*counts).or_insert_with(|| two_sided(points[k], *counts, count))
            };
            counts.iter().enumerate().map(own).fold(1.0, f64::min)
        };
        let mut depths: Vec<f64> = (0..SIMULATIONS).map(|_| simulated()).collect();
        depths.sort_unstable_by(f64::total_cmp);
        let level = depths[((1.0 - BAND_LEVEL) * SIMULATIONS as f64) as usize];
        let lowest = |point: f64| law(point, count).inverse_cdf(level / 2.0) as f64 / count as f64;
        let low = points.iter().map(|p| lowest(*p)).collect();
        // The mirror image of the lower end: P(X >= k) = P(N - X <= N - k).
        let high = points.iter().map(|p| 1.0 - lowest(1.0 - p)).collect();
        Self { count, points, low, high, depths }
    }

    /// Probability of uniform values to be as far out somewhere as these counts.
    fn p_value(&self, counts: &[u64]) -> f64 {
        let each = counts.iter().zip(&self.points).map(|(k, point)| two_sided(*point, *k, self.count));
        let own = each.fold(1.0, f64::min);
        self.depths.partition_point(|d| *d <= own) as f64 / SIMULATIONS as f64
    }
}

impl RankEcdf {
    /// From as many independent values in (0, 1) as the band is for: one per problem, as sites of one problem are not
    /// independent. The same values give the same answer, though it is simulated.
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn new(values: &[f64], band: &UniformBand) -> Self {
        let count = values.len();
        assert_eq!(count, band.count, "as many values as the band is for");
        let counts = counts(values, band.points.len());
        let mean = |f: &dyn Fn(f64) -> f64| values.iter().map(|v| f(*v)).sum::<f64>() / count as f64;
        let outside = values.iter().filter(|v| (**v - 0.5).abs() > 0.45).count();
        let in_errors = |mean: f64, variance: f64| mean / (variance / count as f64).sqrt();
        Self {
            count,
            points: band.points.clone(),
            ecdf: counts.iter().map(|k| *k as f64 / count as f64).collect(),
            band_low: band.low.clone(),
            band_high: band.high.clone(),
            p_value: band.p_value(&counts),
            symmetry_p_value: symmetry(values),
            bias: in_errors(mean(&|v| v - 0.5), 1.0 / 12.0),
            dispersion: in_errors(mean(&|v| (v - 0.5).abs() - 0.25), 1.0 / 48.0),
            outside_90: outside as f64 / count as f64,
            outside_p_value: two_sided(0.1, outside as u64, count),
        }
    }

    /// What the ranks say, the strongest of it.
    pub fn shape(&self) -> Shape {
        if self.p_value >= 1.0 - BAND_LEVEL && self.outside_p_value >= IMPROBABLE {
            return Shape::Calibrated;
        }
        if self.dispersion.abs() >= SIGNIFICANT_ERRORS && self.dispersion.abs() >= self.bias.abs() {
            return if self.dispersion > 0.0 { Shape::TooNarrow } else { Shape::TooWide };
        }
        if self.symmetry_p_value < SIGNIFICANT { Shape::Biased } else { Shape::Other }
    }
}

impl fmt::Display for RankEcdf {
    /// A sentence: "too narrow: 41 % of the truths outside of its central 90 % ...".
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let outside = format!("{:.0} % of the truths outside of its central 90 %", 100.0 * self.outside_90);
        match self.shape() {
            Shape::Calibrated => write!(f, "calibrated, as far as {} problems can tell ({outside})", self.count),
            Shape::TooNarrow => write!(f, "too narrow: {outside}"),
            Shape::TooWide => write!(f, "too wide: {outside}"),
            Shape::Biased if self.bias > 0.0 => write!(f, "biased: the truths lie above its samples too often"),
            Shape::Biased => write!(f, "biased: the truths lie below its samples too often"),
            Shape::Other => write!(f, "not calibrated: its ranks leave the band ({outside})"),
        }?;
        if matches!(self.shape(), Shape::TooNarrow | Shape::TooWide) && self.symmetry_p_value < SIGNIFICANT {
            write!(f, ", and biased")?;
        }
        Ok(())
    }
}

/// How many values are up to each of the points, evenly inside (0, 1).
fn counts(values: &[f64], points: usize) -> Vec<u64> {
    let mut counts = vec![0; points + 1];
    for v in values {
        counts[((v * (points + 1) as f64).ceil() as usize).clamp(1, points + 1) - 1] += 1;
    }
    counts
        .iter()
        .scan(0, |sum, k| {
            *sum += k;
            Some(*sum)
        })
        .take(points)
        .collect()
}

/// The same of as many uniform values, cell after cell.
fn uniform_counts(count: usize, points: &[f64], rng: &mut StreamRng) -> Vec<u64> {
    let (mut sum, mut before) = (0, 0.0);
    let mut next = |point: f64| {
        let share = (point - before) / (1.0 - before);
        before = point;
        sum += Binomial::new(count as u64 - sum, share).expect("a probability").sample(rng);
        sum
    };
    points.iter().map(|p| next(*p)).collect()
}

/// Of N uniform values, how many are up to a point.
fn law(point: f64, count: usize) -> BinomialLaw {
    BinomialLaw::new(point, count as u64).expect("a probability")
}

/// The two-sided probability of k of N uniform values up to a point.
fn two_sided(point: f64, k: u64, count: usize) -> f64 {
    let law = law(point, count);
    let above = if k == 0 { 1.0 } else { law.sf(k - 1) };
    (2.0 * law.cdf(k).min(above)).min(1.0)
}

/// P(distance of the values from their mirror images >= the one found), where each is as likely as its mirror image.
fn symmetry(values: &[f64]) -> f64 {
    let mut rng = StreamRng::new(values.len() as u64, Stream::Calibration);
    let mut sizes: Vec<(f64, f64)> = values.iter().map(|v| ((v - 0.5).abs(), (v - 0.5).signum())).collect();
    // From the ends inwards, the two distribution functions differ by the sum of the signs so far.
    sizes.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let distance = |signs: &mut dyn Iterator<Item = f64>| {
        let (mut sum, mut most) = (0.0f64, 0.0f64);
        signs.for_each(|s| {
            sum += s;
            most = most.max(sum.abs());
        });
        most
    };
    let own = distance(&mut sizes.iter().map(|s| s.1));
    let beyond = (0..SIMULATIONS)
        .filter(|_| distance(&mut sizes.iter().map(|_| if rng.random_bool(0.5) { 1.0 } else { -1.0 })) >= own)
        .count();
    beyond as f64 / SIMULATIONS as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use statrs::distribution::{ContinuousCDF, Normal};

    /// Probability-integral values of truths N(0, 1) under N(shift, width^2).
    fn values(seed: u64, count: usize, shift: f64, width: f64) -> Vec<f64> {
        let law = Normal::new(shift, width).unwrap();
        let z = crate::diagnostics::testing::normals(seed, (count, 1, 1));
        z.iter().map(|z| law.cdf(*z)).collect()
    }

    /// Of 400 uniform samples 5 % leave the band, and as many have a p-value below 0.05; both p-values are uniform.
    #[test]
    fn band_holds_uniform_values_as_often_as_it_says() {
        for count in [20, 200] {
            let band = UniformBand::new(count);
            let all: Vec<RankEcdf> =
                (0..400).map(|seed| RankEcdf::new(&values(seed, count, 0.0, 1.0), &band)).collect();
            let inside = |e: &RankEcdf| {
                let within = |k: usize| (e.band_low[k] - 1e-12..=e.band_high[k] + 1e-12).contains(&e.ecdf[k]);
                (0..e.points.len()).all(within)
            };
            let share = |f: &dyn Fn(&RankEcdf) -> bool| all.iter().filter(|e| f(e)).count();
            let outside = share(&|e| !inside(e));
            println!("{count} values: {outside} of 400 leave the band");
            // 20 expected; the counts are discrete, so fewer with few values. Four standard errors are 17.
            assert!(outside <= 38 && (count < 100 || outside >= 4), "{outside}");
            assert!(all.iter().all(|e| inside(e) == (e.p_value > 1.0 - BAND_LEVEL)), "the band is not the test");
            for p in [|e: &RankEcdf| e.p_value, |e: &RankEcdf| e.symmetry_p_value] {
                let half = share(&|e| p(e) < 0.5);
                assert!((140..=240).contains(&half), "{half}");
            }
        }
    }

    #[test]
    fn shapes_are_told_apart() {
        let band = UniformBand::new(200);
        let ecdf = |shift, width| RankEcdf::new(&values(3, 200, shift, width), &band);
        let cases = [
            (0.0, 1.0, Shape::Calibrated, "calibrated, as far as 200 problems"),
            (0.0, 0.5, Shape::TooNarrow, "too narrow: "),
            (0.0, 2.0, Shape::TooWide, "too wide: "),
            (-0.4, 1.0, Shape::Biased, "above its samples"),
            (0.4, 1.0, Shape::Biased, "below its samples"),
        ];
        for (shift, width, shape, words) in cases {
            let ecdf = ecdf(shift, width);
            println!("{shift} {width}: {ecdf} (p = {}, symmetry {})", ecdf.p_value, ecdf.symmetry_p_value);
            assert!(ecdf.shape() == shape && ecdf.to_string().contains(words), "{ecdf}");
        }
        // Few values stay inside the band even where nearly all of them lie at the ends.
        let ends = [0.01, 0.02, 0.03, 0.3, 0.04, 0.96, 0.97, 0.98, 0.7, 0.99];
        let ends = RankEcdf::new(&ends, &UniformBand::new(10));
        assert!(ends.p_value > 0.05 && ends.shape() == Shape::TooNarrow, "{ends} (p = {})", ends.p_value);
        // Width alone is symmetric: VSBC does not object.
        assert!(ecdf(0.0, 0.5).symmetry_p_value > 0.05 && ecdf(0.4, 1.0).symmetry_p_value < 0.01);
        assert!(ecdf(0.3, 0.4).to_string().ends_with("and biased"), "{}", ecdf(0.3, 0.4));
        // P(|Z| > 1.645 / 2) = 41 %.
        assert!((ecdf(0.0, 0.5).outside_90 - 0.411).abs() < 0.14);
    }

    #[test]
    fn distribution_function_of_a_worked_example() {
        let ecdf = RankEcdf::new(&[0.1, 0.3, 0.8, 0.95], &UniformBand::new(4));
        assert_eq!((ecdf.points, ecdf.ecdf), (vec![0.25, 0.5, 0.75], vec![0.25, 0.5, 0.5]));
        // sum 2.15 - 2 over 4, in sqrt(1 / 48).
        assert!((ecdf.bias - 0.0375 * 48f64.sqrt()).abs() < 1e-12);
        assert!((ecdf.dispersion - (1.35 / 4.0 - 0.25) * 192f64.sqrt()).abs() < 1e-12, "{}", ecdf.dispersion);
        assert_eq!(ecdf.outside_90, 0.0);
        // Signs from the ends inwards: +, -, +, -: the sums stay within one, which any reflection does too or exceeds.
        assert_eq!(symmetry(&[0.05, 0.99, 0.75, 0.3]), 1.0);
        // All on one side: of 2^10 reflections two are as far.
        let p = symmetry(&[0.6; 10]);
        assert!((p - 2.0 / 1024.0).abs() < 4.0 * (2.0 / 1024.0 / SIMULATIONS as f64).sqrt(), "{p}");
    }

    #[test]
    fn ranks_become_uniform_values() {
        let rank = Rank { rank: 3, samples: 9 };
        assert_eq!((rank.value(0.0), rank.value(0.5)), (0.3, 0.35));
    }
}

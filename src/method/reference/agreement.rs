//! Whether two samplers found the same posterior at time 0, given how well each knows its own answer.

use super::Settings;
use super::nuts::Chains;
use super::run::Particles;
use crate::diagnostics::{bulk_ess, mean_ess, r_hat};
use nalgebra::{Cholesky, DMatrix, DVector};
use ndarray::{Array1, ArrayView1, ArrayView2, ArrayView3, Axis};

/// Largest difference of two means that is taken for agreement, in posterior deviations, beyond what chance explains:
/// what scores of methods that are compared with this posterior cannot feel.
const MEAN_TOLERANCE: f64 = 0.15;
/// The same for the logarithm of the ratio of two deviations: 15 %.
const SPREAD_TOLERANCE: f64 = 0.14;
/// Standard errors that chance explains: over some tens of sites and both figures, one in some hundred comparisons
/// of equal posteriors exceeds this.
const STANDARD_ERRORS: f64 = 3.0;
/// A sampler whose mean is not known to this many posterior deviations has found nothing to agree with.
const MOST_ERROR: f64 = 0.15;
/// R-hat above which chains have not found the same distribution (Vehtari et al. 2021 ask for 1.01 of long chains).
const MOST_R_HAT: f64 = 1.05;

/// Largest difference of two runs' log evidence: beyond it a mode of most of the mass may have been won or lost.
pub(super) const EVIDENCE_TOLERANCE: f64 = 2.0;

/// Mean and deviation of each site at time 0 as one sampler sees them.
#[derive(Clone, Debug)]
pub(super) struct Estimate {
    pub mean: Array1<f64>,
    pub std: Array1<f64>,
    /// Standard error of the mean.
    pub mean_error: Array1<f64>,
    /// Standard error of log std.
    pub spread_error: Array1<f64>,
}

impl Estimate {
    /// From the particles of one run. Those that descend from the same particle of the prior are not independent:
    /// errors are from the sums over each family (Lee & Whiteley 2018, after Chan & Lai 2013).
    pub fn of_particles(particles: &Particles) -> Self {
        let count = particles.states.nrows() as f64;
        let error = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / count;
            let mut families = vec![0.0; values.len()];
            for (value, eve) in values.iter().zip(&particles.eves) {
                families[*eve as usize] += value - mean;
            }
            families.iter().map(|f| f * f).sum::<f64>().sqrt() / count
        };
        Self::new(particles.states.view(), |_, values| error(values))
    }

    /// From the draws of chains `[chains, draws, sites]`, by their effective sample sizes.
    pub fn of_chains(chains: ArrayView3<f64>) -> Self {
        let (count, draws, sites) = chains.dim();
        let states = chains.to_shape((count * draws, sites)).expect("draws in one row each");
        Self::new(states.view(), |_, values| {
            let values = ArrayView1::from(values);
            let chains = values.to_shape((count, draws)).expect("as many draws as before");
            (values.var(1.0) / mean_ess(chains.view())).sqrt()
        })
    }

    /// `error(site, values)` is the standard error of the mean of the values.
    fn new(states: ArrayView2<f64>, error: impl Fn(usize, &[f64]) -> f64) -> Self {
        let mean = states.mean_axis(Axis(0)).expect("states of particles or draws");
        let std = states.std_axis(Axis(0), 1.0);
        let per_site = |f: &dyn Fn(usize) -> f64| (0..mean.len()).map(f).collect::<Array1<_>>();
        let mean_error = per_site(&|i| error(i, &states.column(i).to_vec()));
        // d log s = d s^2 / (2 s^2)
        let spread_error = per_site(&|i| {
            let scale = 0.5 / (std[i] * std[i]).max(f64::MIN_POSITIVE);
            error(i, &states.column(i).iter().map(|x| (x - mean[i]).powi(2) * scale).collect::<Vec<_>>())
        });
        Self { mean, std, mean_error, spread_error }
    }

    /// How many independent draws would know the mean as well, at the site where they are fewest.
    pub fn effective_size(&self) -> f64 {
        let sizes = self.std.iter().zip(&self.mean_error).map(|(s, e)| (s / e).powi(2));
        sizes.fold(f64::INFINITY, f64::min)
    }

    /// The largest standard error of a mean, in deviations, and its site.
    fn largest_error(&self) -> (f64, usize) {
        largest(self.mean_error.iter().zip(&self.std).map(|(e, s)| e / s))
    }
}

/// The largest differences of two estimates.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    /// |difference of the means| in deviations, and the site.
    pub mean: (f64, usize),
    /// |log of the ratio of the deviations|, and the site.
    pub spread: (f64, usize),
    /// Why that is no agreement.
    pub reason: Option<String>,
}

impl Gap {
    /// Compares what samplers `a` and `b`, so named, found.
    pub fn new(names: [&str; 2], a: &Estimate, b: &Estimate) -> Self {
        let sites = a.mean.len();
        let unit = |i: usize| (0.5 * (a.std[i].powi(2) + b.std[i].powi(2))).sqrt();
        let means: Vec<f64> = (0..sites).map(|i| (a.mean[i] - b.mean[i]).abs() / unit(i)).collect();
        let spreads: Vec<f64> = (0..sites).map(|i| (a.std[i] / b.std[i]).ln().abs()).collect();
        let chance = |a: f64, b: f64| STANDARD_ERRORS * a.hypot(b);
        let excess_mean =
            largest((0..sites).map(|i| means[i] - MEAN_TOLERANCE - chance(a.mean_error[i], b.mean_error[i]) / unit(i)));
        let excess_spread =
            largest((0..sites).map(|i| spreads[i] - SPREAD_TOLERANCE - chance(a.spread_error[i], b.spread_error[i])));
        let between = format!("{} and {}", names[0], names[1]);
        let reason = if exceeds(excess_mean.0, 0.0) {
            let i = excess_mean.1;
            Some(format!("{between} differ by {:.2} sd in the mean of site {i}", means[i]))
        } else if exceeds(excess_spread.0, 0.0) {
            let i = excess_spread.1;
            Some(format!("{between} have sd {:.3} and {:.3} at site {i}", a.std[i], b.std[i]))
        } else {
            [a, b].iter().zip(names).find_map(|(estimate, name)| {
                let (error, i) = estimate.largest_error();
                let unknown = exceeds(error, MOST_ERROR);
                unknown.then(|| format!("{name} knows the mean of site {i} to {error:.2} sd only"))
            })
        };
        Self { mean: largest(means.into_iter()), spread: largest(spreads.into_iter()), reason }
    }
}

/// What the chains of NUTS say.
#[derive(Clone, Debug)]
pub(super) struct ChainCheck {
    /// The largest over the sites.
    pub r_hat: f64,
    /// The smallest over the sites.
    pub ess: f64,
    pub estimate: Estimate,
    /// Why they cannot be trusted.
    pub reason: Option<String>,
}

impl ChainCheck {
    pub fn new(settings: &Settings, chains: &Chains) -> Self {
        let sites: Vec<_> = chains.states.axis_iter(Axis(2)).collect();
        let worst = largest(sites.iter().map(|site| r_hat(site.view())));
        let ess = -largest(sites.iter().map(|site| -bulk_ess(site.view()))).0;
        let reason = if exceeds(worst.0, MOST_R_HAT) {
            Some(format!("the chains of NUTS differ: R-hat {:.2} at site {}", worst.0, worst.1))
        } else {
            let divergent = chains.divergences * 100 > settings.nuts_chains * settings.nuts_draws;
            divergent.then(|| format!("{} transitions of NUTS diverged", chains.divergences))
        };
        Self { r_hat: worst.0, ess, estimate: Estimate::of_chains(chains.states.view()), reason }
    }
}

/// Whether a value is above its limit; NaN is above every limit.
fn exceeds(value: f64, limit: f64) -> bool {
    value > limit || value.is_nan()
}

/// The largest value and where it is; NaN counts as the largest.
fn largest(values: impl Iterator<Item = f64>) -> (f64, usize) {
    let above = |a: f64, b: f64| a.is_nan() || (!b.is_nan() && a > b);
    values.enumerate().fold((f64::NEG_INFINITY, 0), |best, (i, v)| if above(v, best.0) { (v, i) } else { best })
}

/// The share of `others` farther from the centre of `own` than any of `own`, in the metric of `own`'s covariance:
/// above nothing where both are of one distribution. 0 where that covariance has no inverse.
pub(super) fn share_beyond(own: ArrayView2<f64>, others: ArrayView2<f64>) -> f64 {
    let n = own.ncols();
    let mean = own.mean_axis(Axis(0)).expect("states of particles or draws");
    let centred = &own - &mean;
    let covariance = centred.t().dot(&centred) / own.nrows() as f64;
    let Some(cholesky) = Cholesky::new(DMatrix::from_fn(n, n, |i, j| covariance[[i, j]])) else { return 0.0 };
    let lower = cholesky.l();
    let distance = |row: ArrayView1<f64>| {
        let off = DVector::from_fn(n, |i, _| row[i] - mean[i]);
        lower.solve_lower_triangular(&off).map_or(f64::NAN, |z| z.norm_squared())
    };
    let farthest = own.outer_iter().map(distance).fold(0.0, f64::max);
    others.outer_iter().filter(|row| distance(*row) > farthest).count() as f64 / others.nrows() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use crate::random::standard_normals;
    use ndarray::Array2;

    fn particles(states: Array2<f64>, eves: Vec<u32>) -> Particles {
        Particles {
            states,
            eves,
            log_evidence: 0.0,
            log_evidence_variance: 0.0,
            levels: 1,
            moves: 1,
            acceptance: 0.8,
            correlation: 0.1,
            gradients: 1,
            interrupted: false,
        }
    }

    #[test]
    fn errors_of_independent_particles_are_those_of_textbooks_and_grow_with_the_families() {
        let states = standard_normals(3, Stream::Particles, 0, 0..4000, 3);
        let alone = Estimate::of_particles(&particles(states.clone(), (0..4000).collect()));
        for i in 0..3 {
            assert!((alone.mean_error[i] * 4000f64.sqrt() / alone.std[i] - 1.0).abs() < 1e-3);
            // The deviation of a sample of normals has relative error 1 / sqrt(2 N).
            assert!((alone.spread_error[i] * 8000f64.sqrt() - 1.0).abs() < 0.1);
        }
        // Every particle four times: a quarter as many that are independent.
        let four = Array2::from_shape_fn((4000, 3), |(k, i)| states[[k / 4, i]]);
        let families = Estimate::of_particles(&particles(four, (0..4000).map(|k| k / 4).collect()));
        assert!((families.effective_size() / 1000.0 - 1.0).abs() < 0.01, "{}", families.effective_size());
    }

    #[test]
    fn equal_posteriors_agree_and_others_do_not() {
        let estimate = |seed: u64, shift: f64, scale: f64| {
            let states = standard_normals(seed, Stream::Particles, 0, 0..2000, 8) * scale + shift;
            Estimate::of_particles(&particles(states, (0..2000).collect()))
        };
        let reason = |shift, scale| Gap::new(["A", "B"], &estimate(1, 0.0, 1.0), &estimate(2, shift, scale)).reason;
        assert_eq!(reason(0.0, 1.0), None);
        assert!(reason(0.5, 1.0).unwrap().contains("A and B differ by 0."));
        assert!(reason(0.0, 1.5).unwrap().contains("A and B have sd"));
        assert!(reason(f64::NAN, 1.0).is_some());
        // Forty particles of one family each know nothing, so they agree with nothing.
        let few = particles(standard_normals(1, Stream::Particles, 0, 0..40, 8), (0..40).collect());
        let few = Estimate::of_particles(&few);
        assert!(Gap::new(["A", "B"], &few, &few).reason.unwrap().contains("A knows the mean"));
    }

    #[test]
    fn share_beyond_counts_another_mode() {
        let own = standard_normals(1, Stream::Particles, 0, 0..1000, 2);
        let mut others = standard_normals(2, Stream::Particles, 0, 0..1000, 2);
        assert!(share_beyond(own.view(), others.view()) < 0.01);
        others.slice_mut(ndarray::s![..300, 0]).mapv_inplace(|x| x + 20.0);
        assert!((share_beyond(own.view(), others.view()) - 0.3).abs() < 0.01);
        assert_eq!(share_beyond(others.view(), own.view()), 0.0);
    }
}

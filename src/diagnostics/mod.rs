//! How good an analysis is: scores against a truth, calibration, distance to a reference posterior; and whether a fit or
//! Markov chains can be trusted.
//!
//! Pure functions of numbers, one file per family; [`Scores`] has them all for one analysis, [`ScoreSummary`] over
//! repeated twins. Scores of a sample of M members are in their fair form where one exists, so that methods with
//! samples of different sizes compare.

mod accuracy;
mod cost;
mod covariance;
mod coverage;
mod crps;
mod distance;
mod energy;
mod estimate;
mod evidence;
mod importance;
mod mcmc;
mod normality;
mod parameters;
mod period;
mod psis;
mod rank;
mod sbc;
mod scores;
mod two_sample;
mod variogram;
mod verdict;

pub use accuracy::{rmse, spread};
pub use cost::{CostFit, CostFitSummary};
pub use covariance::{correlation, covariance, covariances};
pub use coverage::coverage;
pub use crps::fair_crps;
pub use distance::{coverage_of, distance_of_covariance, distance_of_mean, distance_of_std};
pub use energy::{MOST_PAIRED, fair_energy_score};
pub use estimate::{Estimate, ratio_of_squares};
pub use evidence::{elbo, iwae, log_evidence};
pub use importance::Corrected;
pub use mcmc::{bulk_ess, mean_ess, r_hat};
pub use normality::{Mardia, mardia};
pub use parameters::ParameterQuality;
pub use period::Periods;
pub use psis::{Psis, k_threshold};
pub use rank::{BAND_LEVEL, Rank, RankHistogram, rank};
pub use sbc::{RankEcdf, Shape, UniformBand};
pub use scores::{FitQuality, ScoreInput, ScoreReference, ScoreSummary, Scores};
pub use two_sample::{EnergyTest, energy_test, thinned};
pub use variogram::{FARTHEST_PAIR, variogram_score};
pub use verdict::{
    JudgedVerdict, OtherMinimum, TRUSTED_COVERAGE, TRUSTED_MEAN_GAP, Trust, Verdict, VerdictCount, VerdictInput,
    VerdictSummary, unseen_share,
};

/// Seeded normals for tests, and the few constants of theirs that the oracles need.
#[cfg(test)]
mod testing {
    use crate::random::{Stream, StreamRng};
    use ndarray::Array3;
    use rand_distr::{Distribution, StandardNormal};

    /// Standard normals `[a, b, c]`.
    pub fn normals(seed: u64, shape: (usize, usize, usize)) -> Array3<f64> {
        let mut rng = StreamRng::new(seed, Stream::SpinUp);
        Array3::from_shape_simple_fn(shape, || StandardNormal.sample(&mut rng))
    }
}

//! Preset `amortized-l96`: windows of 40 sites of which a quarter is observed, for a network that learns to read them.
//!
//! The sizes are those of Frerix et al. 2021 (arXiv 2102.11192): 40 sites, windows of 10 intervals of 0.1, one site in four
//! observed, but here at random and not on a grid, and with a background. The state itself is observed and background errors are
//! 5 to 10 % of half the amplitude, so that posteriors are nearly Gaussian (k-hat of a full-rank fit: 0.72). Prior twins:
//! calibration means something.
//!
//! Scores to expect over seeds 1 to 200 (`cargo run --release --features neural --example amortized_inference WEIGHTS.nc 200`, with
//! weights by `train amortized` as it is): RMSE at t = 0 of 0.558 (Prior), 0.365 (4DVAR), 0.371 (VI-4DVAR), 0.454 (the network);
//! ELBO of -142.9 (VI-4DVAR after 2,000 iterations), -170.7 (the network), -145.9 (the network and 100 iterations).

use super::{Preset, TwinKind, TwinSettings};
use crate::method::{MethodSettings, ViSettings};
use crate::optimizer::Schedule;
use crate::problem::PointFunction;

/// 40 sites, times 0 to 10 assimilated, and VI that converges.
pub(super) fn preset() -> Preset {
    Preset {
        name: "amortized-l96",
        about: "prior twins of 40 sites, a quarter observed, on which `train amortized` trains a network",
        twin: TwinSettings {
            kind: TwinKind::Prior,
            sites: 40,
            times: 16,
            assimilated_times: 11,
            drop: 0.75,
            background_noise: [5.0, 10.0],
            operator: PointFunction::Identity,
            ..TwinSettings::default()
        },
        methods: MethodSettings {
            vi: ViSettings {
                batch: Some(64),
                learning_rate: 0.03,
                schedule: Some(Schedule::Cosine),
                ..ViSettings::default()
            },
            ..MethodSettings::default()
        },
    }
}

//! Preset `isda-16-mild`: prior twins that are nearly linear, on which a Gaussian can be right.
//!
//! Scores to expect over seeds 1 to 50 (`vi4dvar twin --preset isda-16-mild --backend cpu --repeat 50`): RMSE at t = 0, in
//! the window and in the forecast of 0.478 1.457 2.545 (Prior), 0.278 0.216 0.461 (4DVAR), 0.349 0.319 0.643 (ABC), 0.280 0.218
//! 0.461 (Ens. 4DVAR), 0.391 0.335 0.778 (VI-4DVAR), 0.278 0.216 0.458 (Reference); share of truths in the central 90 % at t = 0
//! of 89 89 90 89 58 90 %, with a standard error of 1 to 2 %. All fifty references agree; 4DVAR's mean is 0.04 posterior
//! deviations from theirs, its log deviation 0.03.

use super::{Preset, TwinSettings};
use crate::problem::PointFunction;

/// `isda-16-prior` with the state itself observed and half the background noise.
pub(super) fn preset() -> Preset {
    let case = super::isda_16_prior::preset();
    Preset {
        name: "isda-16-mild",
        about: "prior twins that are nearly linear: the state itself is observed, the background error is halved",
        twin: TwinSettings { operator: PointFunction::Identity, background_noise: [5.0, 10.0], ..case.twin },
        ..case
    }
}

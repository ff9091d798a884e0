//! Preset `isda-16-prior`: the same sizes and noise as prior twins, on which calibration means something.
//!
//! Scores to expect over seeds 1 to 50 (`vi4dvar twin --preset isda-16-prior --backend cpu --repeat 50`): share of truths in
//! the central 90 % at t = 0, in the window and in the forecast of 89 90 89 % (Prior), 89 91 93 % (4DVAR), 93 96 97 % (ABC),
//! 90 90 90 % (Ens. 4DVAR), 44 78 91 % (VI-4DVAR), 90 89 90 % (Reference), each with a standard error of 1 to 2 %; p-values of
//! the reference's rank histograms 0.70 0.29 0.88. RMSE of the reference 0.402 0.256 0.423.

use super::{Preset, TwinKind, TwinSettings};

/// `isda-16` with the background on the attractor and the truth drawn from N(xb, B).
pub(super) fn preset() -> Preset {
    let case = super::isda_16::preset();
    Preset {
        name: "isda-16-prior",
        about: "the same, but the truth is a draw from the background's distribution, as calibration needs",
        twin: TwinSettings { kind: TwinKind::Prior, ..case.twin },
        ..case
    }
}

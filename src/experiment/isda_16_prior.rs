//! Preset `isda-16-prior`: the same sizes and noise as prior twins, on which calibration means something.

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

//! Preset `isda-16`: the case study of Filoche and Béréziat, "Data Assimilation as Variational Inference" (ISDA).

use super::{Preset, TwinSettings};

/// 16 sites of Lorenz-96, 12 of 16 stored times assimilated, half of the squared observations dropped.
pub(super) fn preset() -> Preset {
    Preset {
        name: "isda-16",
        about: "the case study of the slides: Lorenz-96, 16 sites, half of the squared observations dropped",
        twin: TwinSettings::default(),
    }
}

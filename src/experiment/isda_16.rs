//! Preset `isda-16`: the case study of Filoche and Béréziat, "Data Assimilation as Variational Inference" (ISDA).

use super::{Preset, TwinSettings};
use crate::method::{FourDVarSettings, ViSettings};

/// 16 sites of Lorenz-96, 12 of 16 stored times assimilated, half of the squared observations dropped.
pub(super) fn preset() -> Preset {
    Preset {
        name: "isda-16",
        about: "the case study of the slides: Lorenz-96, 16 sites, half of the squared observations dropped",
        twin: TwinSettings::default(),
        four_d_var: FourDVarSettings::default(),
        vi: ViSettings { iterations: 1500, learning_rate: 0.01, batch: 1, samples: 1000, ..ViSettings::default() },
    }
}

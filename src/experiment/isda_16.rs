//! Preset `isda-16`: the case study of Filoche and Béréziat, "Data Assimilation as Variational Inference" (ISDA).
//!
//! Scores to expect, mean over seeds 1 to 50 (`vi4dvar twin --backend cpu --repeat 50`), with standard errors of 2 to 10 %.
//! The slides give no numbers.
//!
//! | | RMSE t = 0, window, forecast | mean sd | fair CRPS, window | distance of mean and log sd to the reference, t = 0 |
//! |---|---|---|---|---|
//! | Prior | 0.888 2.075 3.095 | 0.923 2.038 3.087 | 1.058 | 2.39 0.93 |
//! | 4DVAR | 0.385 0.252 0.485 | 0.398 0.269 0.623 | 0.135 | 0.08 0.04 |
//! | ABC | 0.623 0.581 1.304 | 0.711 0.813 1.676 | 0.330 | 1.35 0.65 |
//! | Ens. 4DVAR | 0.384 0.253 0.483 | 0.405 0.238 0.446 | 0.132 | 0.11 0.08 |
//! | VI-4DVAR | 0.628 0.564 1.141 | 0.233 0.511 1.323 | 0.309 | 1.23 0.68 |
//! | Reference | 0.384 0.250 0.480 | 0.398 0.233 0.435 | 0.130 | |
//!
//! All fifty references agree. From xb alone (`--starts 1`) 4DVAR ends in a local minimum for some seeds, such as 9.

use super::{Preset, TwinSettings};
use crate::method::{MethodSettings, ViSettings};

/// 16 sites of Lorenz-96, 12 of 16 stored times assimilated, half of the squared observations dropped.
pub(super) fn preset() -> Preset {
    Preset {
        name: "isda-16",
        about: "the case study of the slides: Lorenz-96, 16 sites, half of the squared observations dropped",
        twin: TwinSettings::default(),
        methods: MethodSettings {
            vi: ViSettings { iterations: 1500, learning_rate: 0.01, samples: 1000, ..ViSettings::default() },
            ..MethodSettings::default()
        },
    }
}

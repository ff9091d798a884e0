//! Preset `isda-16`: the case study of Filoche and Béréziat, "Data Assimilation as Variational Inference" (ISDA).
//!
//! Scores to expect, mean over seeds 1 to 20 (`vi4dvar twin --backend cpu --twins 20 --batch 64`): RMSE of the mean at
//! t = 0, over the window and in the forecast of 0.856, 2.366, 4.094 (background), 0.369, 0.255, 0.553 (4DVAR), 0.382,
//! 0.266, 0.573 (VI-4DVAR); mean posterior deviation at t = 0 of 0.908, 0.383 and 0.107. The slides give no numbers.
//! From xb alone (`--starts 1`) 4DVAR's window RMSE is 0.416: seed 9 ends in a local minimum with J = 540 and not 56.

use super::{Preset, TwinSettings};
use crate::method::{MethodSettings, ViSettings};

/// 16 sites of Lorenz-96, 12 of 16 stored times assimilated, half of the squared observations dropped.
pub(super) fn preset() -> Preset {
    Preset {
        name: "isda-16",
        about: "the case study of the slides: Lorenz-96, 16 sites, half of the squared observations dropped",
        twin: TwinSettings::default(),
        methods: MethodSettings {
            vi: ViSettings { iterations: 1500, learning_rate: 0.01, batch: 1, samples: 1000, ..ViSettings::default() },
            ..MethodSettings::default()
        },
    }
}

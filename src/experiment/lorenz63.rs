//! Preset `lorenz63`: Lorenz (1963) as it is mostly assimilated: all three components observed every 0.25 time units with
//! R = 2 I (as in Sakov et al. 2012), over a window of 1.25 time units, and a background deviation of 2.
//!
//! Scores to expect over seeds 1 to 20 (`vi4dvar twin --preset lorenz63 --backend cpu --repeat 20`), with standard errors of 5 to
//! 15 %; nothing published. Share: of truths in the central 90 % at t = 0.
//!
//! | | RMSE t = 0, window, forecast | mean sd | fair CRPS, window | share |
//! |---|---|---|---|---|
//! | Prior | 1.803 1.954 3.028 | 2.001 2.782 4.667 | 1.144 | 88 % |
//! | 4DVAR | 1.024 0.607 0.621 | 1.150 0.601 0.761 | 0.320 | 88 % |
//! | ABC | 1.359 0.706 0.590 | 0.876 0.222 0.130 | 0.405 | 60 % |
//! | Ens. 4DVAR | 1.037 0.598 0.603 | 1.131 0.579 0.655 | 0.315 | 88 % |
//! | VI-4DVAR, full rank | 1.019 0.600 0.610 | 1.103 0.577 0.693 | 0.319 | 87 % |
//! | Reference | 1.020 0.600 0.608 | 1.164 0.588 0.677 | 0.318 | 90 % |
//!
//! All twenty references agree; the full-rank fit is 0.064 ± 0.015 nats from them.

use super::{Preset, TwinSettings};
use crate::method::{MethodSettings, ViSettings};
use crate::model::Model;
use crate::posterior::Family;
use crate::problem::PointFunction;

/// Three sites of Lorenz-63, 6 of 9 stored times assimilated, all of them observed.
pub(super) fn preset() -> Preset {
    Preset {
        name: "lorenz63",
        about: "Lorenz-63, all three components observed every 0.25 time units with R = 2 I",
        twin: TwinSettings {
            model: Model::Lorenz63,
            sites: 3,
            times: 9,
            assimilated_times: 6,
            drop: 0.0,
            background_std: Some(2.0),
            observation_std: Some(std::f64::consts::SQRT_2),
            operator: PointFunction::Identity,
            dt: 0.01,
            steps_per_time: 25,
            spin_up: 1000,
            ..TwinSettings::default()
        },
        methods: MethodSettings {
            vi: ViSettings { family: Family::FullRank, samples: 1000, ..ViSettings::default() },
            ..MethodSettings::default()
        },
    }
}

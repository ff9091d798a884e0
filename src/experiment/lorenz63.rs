//! Preset `lorenz63`: Lorenz (1963) as it is mostly assimilated: all three components observed every 0.25 time units with
//! R = 2 I (as in Sakov et al. 2012), over a window of 1.25 time units.

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

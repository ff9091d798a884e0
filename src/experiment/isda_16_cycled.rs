//! Cycled preset `isda-16`: the case study of the slides as a cycle: 16 sites, windows of 12 times with the first one
//! unobserved, half of the squared observations dropped, the window moved on by its length, so that each observation is
//! used once. Deviations are fixed, at about the middle of the slides' intervals.

use super::{CyclePreset, CycleSettings, CycledKind};
use crate::problem::PointFunction;

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "isda-16",
        about: "the slides' case study in cycles: 16 sites, half of the squared observations dropped",
        settings: CycleSettings {
            sites: 16,
            dt: 0.1,
            operator: PointFunction::Square,
            drop: 0.5,
            observation_std: 5.0,
            methods: vec![CycledKind::FourDVar, CycledKind::Vi, CycledKind::Ensemble],
            windows: vec![11],
            shift: 11,
            factors: vec![0.01, 0.03, 0.1],
            inflations: vec![1.1, 1.5],
            members: 200,
            starts: 8,
            cycles: 200,
            burn_in: 20,
            ..CycleSettings::default()
        },
    }
}

//! How a member lies over the invocations of a workgroup.

use crate::engine::Precision;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// How a member lies over invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberLayout {
    pub sites_per_lane: usize,
    pub lanes: usize,
    pub members_per_group: usize,
}

/// What a layout must fit: a problem's shape, and a device.
#[derive(Clone, Copy, Debug)]
pub struct Fit<'a> {
    pub sites: usize,
    /// RK4 steps of the whole window.
    pub steps: usize,
    /// Sites that are observed together.
    pub block: usize,
    pub precision: Precision,
    pub limits: &'a wgpu::Limits,
    /// Invocations of a subgroup, where the device has subgroup operations and subgroups of one size.
    pub subgroup: Option<u32>,
    /// A software rasteriser.
    pub software: bool,
}

/// Largest state that one invocation holds in registers.
const MOST_SITES_ALONE: usize = 48;
/// Sites per lane where several lanes share a member.
const SITES_PER_LANE: usize = 16;
/// Most sites that a lane may hold: beyond it, the unrolled code grows out of hand.
const MOST_SITES_PER_LANE: usize = 128;

impl MemberLayout {
    /// The layout for a state: alone in one invocation while it fits registers, else shared by as few lanes as hold
    /// it in runs of whole observation blocks.
    ///
    /// # Errors
    /// A state, or an observation block, too large for a workgroup of this device.
    pub fn choose(sites: usize, block: usize, precision: Precision, limits: &wgpu::Limits) -> Result<Self> {
        if sites <= MOST_SITES_ALONE {
            return Ok(Self { sites_per_lane: sites, lanes: 1, members_per_group: 64 });
        }
        let most_lanes = limits.max_compute_invocations_per_workgroup.min(256) as usize;
        let sites_per_lane = sites.div_ceil(most_lanes).max(SITES_PER_LANE).next_multiple_of(block);
        let lanes = sites.div_ceil(sites_per_lane);
        let bytes = sites * precision.bytes();
        let memory = limits.max_compute_workgroup_storage_size as usize;
        if sites_per_lane > MOST_SITES_PER_LANE || bytes > memory {
            return Err(Error::Hardware {
                message: format!(
                    "{sites} sites ({} observed in blocks of {block}) do not fit a workgroup of this GPU: \
                     expected at most {} sites",
                    precision.name(),
                    (memory / precision.bytes()).min(most_lanes * MOST_SITES_PER_LANE)
                ),
                help: "use --backend cpu, or --precision f32".into(),
            });
        }
        let members_per_group = (64 / lanes).clamp(1, (memory / bytes).max(1));
        Ok(Self { sites_per_lane, lanes, members_per_group })
    }

    /// What is used without a calibration.
    ///
    /// # Errors
    /// A state, or an observation block, too large for a workgroup of this device.
    pub fn rule_of_thumb(fit: &Fit) -> Result<Self> {
        Self::choose(fit.sites, fit.block, fit.precision, fit.limits)
    }

    /// Layouts worth a try on this device.
    pub fn candidates(fit: &Fit) -> Vec<Self> {
        Self::rule_of_thumb(fit)
            .into_iter()
            .flat_map(|l| [l, Self { members_per_group: 2 * l.members_per_group, ..l }])
            .filter(|l| l.check(fit).is_ok())
            .collect()
    }

    /// Refuses a layout that this device or this problem cannot run.
    ///
    /// # Errors
    /// What was asked for, and what would do.
    pub fn check(&self, fit: &Fit) -> Result<()> {
        let rule = Self::rule_of_thumb(fit)?;
        if (self.lanes, self.sites_per_lane) == (rule.lanes, rule.sites_per_lane) && self.group() <= 256 {
            return Ok(());
        }
        Err(Error::invalid("kernel", rule.to_string(), self.to_string(), "choose another --kernel, or leave it out"))
    }

    /// Invocations per workgroup.
    pub fn group(&self) -> usize {
        self.lanes * self.members_per_group
    }
}

impl fmt::Display for MemberLayout {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "lanes={},sites={},members={}", self.lanes, self.sites_per_lane, self.members_per_group)
    }
}

impl FromStr for MemberLayout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<usize> = text.split(',').filter_map(|part| part.split_once('=')?.1.parse().ok()).collect();
        match numbers[..] {
            [lanes, sites_per_lane, members_per_group] => Ok(Self { sites_per_lane, lanes, members_per_group }),
            _ => Err(Error::invalid("kernel", "lanes=1,sites=40,members=64", format!("{text:?}"), "correct it")),
        }
    }
}

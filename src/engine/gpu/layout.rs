//! How a member lies over the invocations of a workgroup.

use crate::engine::Precision;
use crate::error::{Error, Result};

/// How a member lies over invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberLayout {
    pub sites_per_lane: usize,
    pub lanes: usize,
    pub members_per_group: usize,
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

    /// Invocations per workgroup.
    pub fn group(&self) -> usize {
        self.lanes * self.members_per_group
    }
}

//! How a member lies over the invocations of a workgroup, and where its trajectory is kept: the variant of a kernel.

use crate::engine::Precision;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A variant of the sweeps' kernels. Its text form, `lanes=4,group=64,halo=subgroup,trajectory=workgroup`, says the same
/// for every problem; `check` says whether it fits one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberLayout {
    /// Invocations that share a member, each with a run of consecutive sites.
    pub lanes: usize,
    /// Invocations of a workgroup: whole members.
    pub group: usize,
    /// How lanes learn of their neighbours' sites.
    pub halo: Halo,
    /// Where a reverse sweep keeps the states of the forward one.
    pub trajectory: Trajectory,
    /// What it keeps of each step.
    pub stages: Stages,
}

/// Declares an enum of words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The word in a text form and in the templates.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            fn parse(word: &str) -> std::result::Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err([$($word),*].join(" or ")),
                }
            }
        }
    };
}

words! {
    /// How lanes learn of their neighbours' sites.
    Halo {
        /// One lane: there is nobody to ask.
        None = "none",
        /// Through workgroup memory, with a barrier for each exchange.
        Workgroup = "workgroup",
        /// By subgroup shuffles, without a barrier: the lanes of a member lie in one subgroup.
        Subgroup = "subgroup",
    }
}

words! {
    /// Where a reverse sweep keeps the states of the forward one.
    Trajectory {
        /// In a buffer.
        Global = "global",
        /// In workgroup memory: short windows only.
        Workgroup = "workgroup",
    }
}

words! {
    /// What a reverse sweep keeps of each step.
    Stages {
        /// The state before it; the stages of RK4 are made again.
        Recomputed = "recomputed",
        /// All four stages' states.
        Kept = "kept",
    }
}

/// What a layout must fit: a problem's shape, and a device.
#[derive(Clone, Copy, Debug)]
pub struct Fit<'a> {
    pub sites: usize,
    /// Lanes may share a member: its sites are alike, on a ring.
    pub ring: bool,
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

/// Most sites that a lane may hold: beyond it, the unrolled code grows out of hand.
const MOST_SITES_PER_LANE: usize = 128;
/// Most invocations that a workgroup is given, where the device has as many.
const MOST_GROUP: usize = 256;
/// Columns of invocations that lie next to each other in a kept trajectory: see `shaders/lanes.wgsl`.
pub const TILE: usize = 32;
/// Sites that an invocation holds in the registers of any GPU, f32: a reverse sweep has about seven numbers per site
/// (four stages, cotangent, sum, its own) in flight, and 128 to 255 registers.
const SITES_IN_REGISTERS: usize = 24;
/// The same on a rasteriser, whose registers spill to the first cache.
const SITES_IN_SOFTWARE: usize = 48;

impl MemberLayout {
    fn new(lanes: usize, group: usize) -> Self {
        let halo = if lanes == 1 { Halo::None } else { Halo::Workgroup };
        Self { lanes, group, halo, trajectory: Trajectory::Global, stages: Stages::Recomputed }
    }

    /// Workgroups of at least 64 invocations, of whole members, that leave few of a multiple of 32 idle.
    pub fn of_lanes(lanes: usize) -> Self {
        let idle = |group: &usize| group.next_multiple_of(32) * 10 - group * 10;
        let members = (64 / lanes).max(1)..=(MOST_GROUP / lanes).max(1);
        let groups = members.map(|members| members * lanes);
        let group = groups.clone().find(|group| idle(group) <= *group).or_else(|| groups.min_by_key(idle));
        Self::new(lanes, group.unwrap_or(lanes))
    }

    /// Members of a workgroup.
    pub fn members_per_group(&self) -> usize {
        self.group / self.lanes
    }

    /// Sites that a lane holds: whole observation blocks. The last lane may own fewer.
    pub fn sites_per_lane(&self, sites: usize, block: usize) -> usize {
        sites.div_ceil(self.lanes).next_multiple_of(block)
    }

    /// States that are kept of a step.
    pub fn states_per_step(&self) -> usize {
        match self.stages {
            Stages::Recomputed => 1,
            Stages::Kept => 4,
        }
    }

    /// Invocations of a dispatch over so many members, spare ones included, in whole tiles.
    pub fn invocations(&self, members: usize) -> usize {
        (members.div_ceil(self.members_per_group()) * self.group).next_multiple_of(TILE)
    }

    /// Numbers per step of the window that a dispatch over so many members keeps in a buffer.
    pub fn kept_per_step(&self, members: usize, sites: usize, block: usize) -> usize {
        match self.trajectory {
            Trajectory::Global => {
                self.invocations(members) * self.sites_per_lane(sites, block) * self.states_per_step()
            }
            Trajectory::Workgroup => 0,
        }
    }

    /// Steps that a workgroup keeps in its memory: the whole window, where that is where they are kept.
    pub fn steps_in_group(&self, steps: usize) -> usize {
        match self.trajectory {
            Trajectory::Global => 0,
            Trajectory::Workgroup => steps,
        }
    }

    /// Bytes of workgroup memory.
    fn memory(&self, fit: &Fit) -> usize {
        let edges = match self.halo {
            // Two edges of two sites, twice.
            Halo::Workgroup => 8 * self.group,
            Halo::None | Halo::Subgroup => 0,
        };
        let kept = self.steps_in_group(fit.steps) * self.states_per_step();
        (edges + kept * self.sites_per_lane(fit.sites, fit.block) * self.group) * fit.precision.bytes()
    }

    /// Refuses a layout that this device or this problem cannot run, or that the kernels do not have.
    ///
    /// # Errors
    /// What was asked for, and what would do.
    pub fn check(&self, fit: &Fit) -> Result<()> {
        let refuse = |expected: String, found: String, help: &str| {
            Err(Error::invalid(format!("kernel {self}"), expected, found, help))
        };
        let use_other = "choose another --kernel, or leave it out";
        let most = (fit.limits.max_compute_invocations_per_workgroup as usize)
            .min(fit.limits.max_compute_workgroup_size_x as usize);
        if self.lanes == 0 || self.group == 0 || !self.group.is_multiple_of(self.lanes) || self.group > most {
            return refuse(
                format!("a group of whole members of {} lanes, of at most {most} invocations on this GPU", self.lanes),
                format!("{} invocations", self.group),
                use_other,
            );
        }
        if (self.lanes == 1) != (self.halo == Halo::None) {
            return refuse(
                "halo=workgroup or halo=subgroup with more than one lane, and none with one".into(),
                format!("halo={} with {} lanes", self.halo.name(), self.lanes),
                use_other,
            );
        }
        if self.lanes > 1 && !fit.ring {
            let found = format!("{} lanes", self.lanes);
            return refuse("one lane for a model whose sites are not alike".into(), found, use_other);
        }
        let held = self.sites_per_lane(fit.sites, fit.block);
        let owned = fit.sites.checked_sub(held * (self.lanes - 1)).filter(|own| *own >= 2);
        if held > MOST_SITES_PER_LANE || owned.is_none() {
            return refuse(
                format!("between 2 and {MOST_SITES_PER_LANE} sites for every lane, in blocks of {}", fit.block),
                format!("{} sites in {} lanes of {held}", fit.sites, self.lanes),
                "choose another number of lanes",
            );
        }
        if self.halo == Halo::Subgroup {
            let Some(size) = fit.subgroup.map(|s| s as usize) else {
                return refuse(
                    "a GPU with subgroup operations and subgroups of one size".into(),
                    "none on this adapter".into(),
                    "use halo=workgroup",
                );
            };
            if !size.is_multiple_of(self.lanes) || !self.group.is_multiple_of(size) {
                return refuse(
                    format!("lanes that divide this GPU's subgroups of {size}, and a group of whole subgroups"),
                    format!("{} lanes in a group of {}", self.lanes, self.group),
                    "use halo=workgroup, or other numbers",
                );
            }
        }
        let (memory, limit) = (self.memory(fit), fit.limits.max_compute_workgroup_storage_size as usize);
        if memory > limit {
            return refuse(
                format!("at most {limit} bytes of workgroup memory on this GPU"),
                format!("{memory} bytes for {} sites and {} steps", fit.sites, fit.steps),
                "choose a smaller group, or trajectory=global",
            );
        }
        Ok(())
    }

    fn fits(&self, fit: &Fit) -> bool {
        self.check(fit).is_ok()
    }

    /// The same with the halo by shuffles, where that can be.
    fn shuffled(self, fit: &Fit) -> Option<Self> {
        let size = fit.subgroup? as usize;
        let other = Self { halo: Halo::Subgroup, group: self.group.next_multiple_of(size), ..self };
        (self.lanes > 1 && other.fits(fit)).then_some(other)
    }

    /// The same with the trajectory in workgroup memory, in the largest group that has room for it.
    fn on_chip(self, fit: &Fit) -> Option<Self> {
        let smaller = std::iter::successors(Some(self.group), |g| Some(g / 2)).take_while(|g| *g >= 32.max(self.lanes));
        smaller.map(|group| Self { group, trajectory: Trajectory::Workgroup, ..self }).find(|other| other.fits(fit))
    }

    /// Lanes with at most so many sites each: as few as can be, or up to twice as many where that leaves fewer places and
    /// invocations idle.
    fn shared(fit: &Fit, most: usize) -> Option<Self> {
        let limit = MOST_GROUP.min(fit.limits.max_compute_invocations_per_workgroup as usize);
        let fewest = fit.sites.div_ceil(most).max(1);
        // Places that a workgroup of whole warps computes for each that counts, and what the exchange adds.
        let cost = |layout: &Self| {
            let held = layout.sites_per_lane(fit.sites, fit.block) as f64;
            let places = layout.group.next_multiple_of(32) as f64 * held;
            let exchange = if layout.lanes == 1 { 0.0 } else { 2.0 / held };
            places / (layout.members_per_group() * fit.sites) as f64 * (1.0 + exchange)
        };
        let sound = |lanes: usize| Some(Self::of_lanes(lanes)).filter(|layout| layout.fits(fit));
        let least = (fewest..=limit).find_map(sound)?;
        (least.lanes..=limit.min(2 * least.lanes)).filter_map(sound).min_by(|a, b| cost(a).total_cmp(&cost(b)))
    }

    /// The sites that an invocation should hold at most.
    fn sites_at_ease(fit: &Fit) -> usize {
        match fit.precision {
            _ if fit.software => SITES_IN_SOFTWARE,
            Precision::F32 => SITES_IN_REGISTERS,
            Precision::F64 => SITES_IN_REGISTERS / 2,
        }
    }

    /// What is used without a calibration: as few lanes as hold a member in registers, by shuffles where the device has
    /// them; the trajectory in a buffer, since workgroup memory for it leaves some GPUs with few invocations in flight.
    ///
    /// # Errors
    /// A state, or an observation block, too large for a workgroup of this device.
    pub fn rule_of_thumb(fit: &Fit) -> Result<Self> {
        let ease = Self::sites_at_ease(fit);
        let Some(base) = (0..4).find_map(|doubled| Self::shared(fit, ease << doubled)) else {
            let lanes = MOST_GROUP.min(fit.limits.max_compute_invocations_per_workgroup as usize);
            return Err(Error::Hardware {
                message: format!(
                    "{} sites ({}, observed in blocks of {}) do not fit a workgroup of this GPU: expected at most {} \
                     sites, in blocks of at most {MOST_SITES_PER_LANE}",
                    fit.sites,
                    fit.precision.name(),
                    fit.block,
                    lanes * MOST_SITES_PER_LANE,
                ),
                help: "use --backend cpu, or --precision f32".into(),
            });
        };
        let shuffled = (base.lanes..=2 * base.lanes).find_map(|lanes| Self::of_lanes(lanes).shuffled(fit));
        Ok(if base.lanes == 1 { base } else { shuffled.unwrap_or(base) })
    }

    /// Layouts worth a try on this device, most promising first: at most twelve, the rule of thumb's first.
    pub fn candidates(fit: &Fit) -> Vec<Self> {
        let Ok(rule) = Self::rule_of_thumb(fit) else { return Vec::new() };
        let mut found = vec![rule];
        let mut add = |layout: Option<Self>| {
            if let Some(layout) = layout.filter(|layout| layout.fits(fit))
                && found.len() < 12
                && !found.contains(&layout)
            {
                found.push(layout);
            }
        };
        add(rule.on_chip(fit));
        // About twice and half as many lanes.
        let near = |lanes: std::ops::RangeInclusive<usize>| {
            let mut shuffled = lanes.clone().filter_map(|lanes| Self::of_lanes(lanes).shuffled(fit));
            shuffled.next().or_else(|| lanes.map(Self::of_lanes).find(|layout| layout.fits(fit)))
        };
        let more = near(2 * rule.lanes..=4 * rule.lanes);
        let fewer = (rule.lanes > 1).then(|| near(rule.lanes.div_ceil(2)..=rule.lanes - 1)).flatten();
        for other in [more, fewer].into_iter().flatten() {
            add(Some(other));
            add(other.on_chip(fit));
        }
        add(Some(Self { group: 2 * rule.group, ..rule }));
        add(Some(Self { group: rule.group / 2, ..rule }));
        add(Some(Self::of_lanes(rule.lanes)));
        add(Some(Self { stages: Stages::Kept, ..rule }));
        let most = more.and_then(|more| near(2 * more.lanes..=4 * more.lanes));
        add(most.and_then(|most| most.on_chip(fit)));
        add(most);
        add(Some(Self { group: 4 * rule.group, ..rule }));
        found
    }
}

impl fmt::Display for MemberLayout {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "lanes={},group={}", self.lanes, self.group)?;
        if self.halo != Halo::None {
            write!(f, ",halo={}", self.halo.name())?;
        }
        write!(f, ",trajectory={}", self.trajectory.name())?;
        if self.stages == Stages::Kept {
            write!(f, ",stages={}", self.stages.name())?;
        }
        Ok(())
    }
}

impl FromStr for MemberLayout {
    type Err = Error;

    /// Reads the text form. Only `lanes` must be there.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |expected: String, found: &str| {
            Error::invalid(
                "kernel",
                expected,
                format!("{found:?}"),
                "write it as lanes=4,group=64,halo=subgroup,trajectory=workgroup,stages=recomputed; only lanes is needed",
            )
        };
        let mut lanes = None;
        let (mut group, mut halo, mut trajectory, mut stages) = (None, None, None, None);
        let mut seen = Vec::new();
        for part in text.split(',') {
            let part = part.trim();
            let (key, value) =
                part.split_once('=').ok_or_else(|| refuse("key=value, separated by commas".into(), part))?;
            if seen.contains(&key) {
                return Err(refuse(format!("{key} once"), text));
            }
            seen.push(key);
            let number = || {
                let number = value.parse().ok().filter(|n| (1..=4096).contains(n));
                number.ok_or_else(|| refuse(format!("a whole number from 1 to 4096 for {key}"), value))
            };
            let word = |expected: String| refuse(format!("{key}={expected}"), value);
            match key {
                "lanes" => lanes = Some(number()?),
                "group" => group = Some(number()?),
                "halo" => halo = Some(Halo::parse(value).map_err(word)?),
                "trajectory" => trajectory = Some(Trajectory::parse(value).map_err(word)?),
                "stages" => stages = Some(Stages::parse(value).map_err(word)?),
                _ => return Err(refuse("lanes, group, halo, trajectory or stages".into(), key)),
            }
        }
        let lanes: usize = lanes.ok_or_else(|| refuse("lanes=1, or another number".into(), text))?;
        let plain = Self::of_lanes(lanes);
        Ok(Self {
            lanes,
            group: group.unwrap_or(plain.group),
            halo: halo.unwrap_or(plain.halo),
            trajectory: trajectory.unwrap_or(plain.trajectory),
            stages: stages.unwrap_or(plain.stages),
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::Model;

    /// The devices that the rules are thought for: none but the least, a large one, one without subgroups of one size, and
    /// a rasteriser.
    fn devices() -> Vec<(wgpu::Limits, Option<u32>, bool)> {
        let least = wgpu::Limits { max_compute_workgroup_storage_size: 16 << 10, ..wgpu::Limits::default() };
        let large = wgpu::Limits {
            max_compute_invocations_per_workgroup: 1024,
            max_compute_workgroup_size_x: 1024,
            max_compute_workgroup_storage_size: 48 << 10,
            ..wgpu::Limits::default()
        };
        vec![
            (least.clone(), None, false),
            (large.clone(), Some(32), false),
            (large.clone(), Some(64), false),
            (large, Some(8), true),
        ]
    }

    fn fits<'a>(
        devices: &'a [(wgpu::Limits, Option<u32>, bool)],
        sites: usize,
        steps: usize,
        block: usize,
    ) -> Vec<Fit<'a>> {
        let mut all = Vec::new();
        for (limits, subgroup, software) in devices {
            for precision in [Precision::F32, Precision::F64] {
                let (subgroup, software) = (*subgroup, *software);
                all.push(Fit { sites, ring: true, steps, block, precision, limits, subgroup, software });
            }
        }
        all
    }

    /// The layouts that any device tries for a state, for a window of two steps.
    pub fn layouts(model: Model, sites: usize, block: usize, precision: Precision) -> Vec<MemberLayout> {
        let (devices, ring) = (devices(), model.reach().is_some());
        let mut all = Vec::new();
        for fit in fits(&devices, sites, 2, block).into_iter().filter(|fit| fit.precision == precision) {
            for layout in MemberLayout::candidates(&Fit { ring, ..fit }) {
                if !all.contains(&layout) {
                    all.push(layout);
                }
            }
        }
        all
    }

    #[test]
    fn every_device_has_layouts_for_every_state() {
        let devices = devices();
        for sites in [4, 5, 8, 13, 16, 31, 40, 64, 65, 128, 1000, 1001, 4096] {
            for block in [1, 2, 4, 8].into_iter().filter(|b| sites % b == 0) {
                for steps in [0, 1, 11, 39, 10_000] {
                    for fit in fits(&devices, sites, steps, block) {
                        let candidates = MemberLayout::candidates(&fit);
                        assert!((1..=12).contains(&candidates.len()), "{fit:?}: {candidates:?}");
                        for layout in &candidates {
                            layout.check(&fit).unwrap();
                            assert_eq!(*layout, layout.to_string().parse().unwrap());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_what_can() {
        let devices = devices();
        let small = Fit { precision: Precision::F32, ..fits(&devices, 40, 39, 1)[0] };
        let large = Fit { subgroup: Some(32), limits: &devices[1].0, ..small };
        for (text, fit, word) in [
            ("lanes=3,group=64", small, "whole members"),
            ("lanes=1,group=512", small, "at most 256"),
            ("lanes=1,halo=workgroup", small, "more than one lane"),
            ("lanes=4", Fit { ring: false, ..small }, "one lane"),
            ("lanes=13", small, "number of lanes"),
            ("lanes=40", small, "number of lanes"),
            ("lanes=2,halo=subgroup", small, "halo=workgroup"),
            ("lanes=5,group=160,halo=subgroup", large, "subgroups of 32"),
            ("lanes=1,trajectory=workgroup", small, "trajectory=global"),
        ] {
            let error = text.parse::<MemberLayout>().unwrap().check(&fit).unwrap_err();
            assert!(format!("{error} {error:?}").contains(word), "{text}: {error}");
        }
        for (text, word) in [
            ("", "key=value"),
            ("group=64", "lanes=1"),
            ("lanes=many", "whole number"),
            ("lanes=2,halo=shuffle", "workgroup or subgroup"),
            ("lanes=2,colour=red", "trajectory"),
        ] {
            let error = text.parse::<MemberLayout>().unwrap_err();
            assert!(format!("{error} {error:?}").contains(word), "{text}: {error}");
        }
    }
}

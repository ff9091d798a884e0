//! Simulation-based calibration of methods: ranks of the truth over many prior twins (Talts et al. 2018).
//!
//! Sites of one twin are correlated, so their ranks must not be pooled. The verdict is on one site for each twin, its seed
//! modulo the number of sites, which are independent; every site over all twins has a p-value of its own besides. Ranks
//! are made continuous by a draw inside their cell, the same for all methods.

use super::{Preset, TwinKind, simulate_set};
use crate::checkpoint;
use crate::diagnostics::{BAND_LEVEL, RankEcdf, Shape, UniformBand, rank};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::method::{Analysis, Method, Observer, once};
use crate::problem::Problem;
use crate::random::{Stream, StreamRng};
use ndarray::{ArrayView1, Axis};
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Ranks of several methods over prior twins. Displays as a table for people; as JSON it has all that a figure needs.
#[derive(Clone, Debug, Serialize)]
pub struct Sbc {
    /// Twins.
    pub problems: usize,
    /// Sites of each.
    pub sites: usize,
    /// The methods, in the order in which they were given.
    pub methods: Vec<SbcMethod>,
}

/// One method's ranks.
#[derive(Clone, Debug, Serialize)]
pub struct SbcMethod {
    /// Its name.
    pub method: String,
    /// Wall time in seconds over all twins. Not in JSON: the same run gives the same ranks, but not in the same time.
    #[serde(skip)]
    pub seconds: f64,
    /// At t = 0.
    pub initial: SbcRanks,
    /// At the last assimilated time.
    pub window_end: SbcRanks,
}

/// Ranks at one time.
#[derive(Clone, Debug, Serialize)]
pub struct SbcRanks {
    /// What they say: one sentence.
    pub summary: String,
    /// One site for each twin.
    pub ecdf: RankEcdf,
    /// Each site over all twins, its p-value against the band: `[sites]`. The smallest of n is below p / n by chance with
    /// probability p.
    pub site_p_values: Vec<f64>,
    /// Each site's distribution function, at the points of `ecdf`: `[sites][points]`. Not in JSON: it follows from `ranks`.
    #[serde(skip)]
    pub site_ecdfs: Vec<Vec<f64>>,
    /// Samples below the truth: `[problems][sites]`.
    pub ranks: Vec<Vec<usize>>,
    /// Samples of each twin: `[problems]`.
    pub samples: Vec<usize>,
}

/// Ranks and their values at one time while they are gathered.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Gathered {
    ranks: Vec<Vec<usize>>,
    samples: Vec<usize>,
    /// `[problems][sites]`
    values: Vec<Vec<f64>>,
}

impl Preset {
    /// Refuses what [`Self::sbc`] would refuse before it computes.
    ///
    /// # Errors
    /// Twins that are no prior twins, fewer than two seeds, settings that cannot work.
    pub fn check_sbc(&self, seeds: &[u64], methods: &[Method]) -> Result<()> {
        if self.twin.kind != TwinKind::Prior {
            return Err(Error::invalid(
                "kind",
                "prior twins, whose truth is a draw from the prior: elsewhere ranks need not be uniform",
                "classic",
                "use --preset isda-16-prior or isda-16-mild, or --kind prior",
            ));
        }
        if seeds.len() < 2 {
            return Err(Error::invalid("problems", "at least 2", seeds.len().to_string(), "200 show a lot"));
        }
        methods.iter().try_for_each(|method| self.methods.check(*method))?;
        self.twin.check()
    }

    /// Simulation-based calibration: a prior twin of each seed, assimilated by each of `methods`, and ranked. Twins run in
    /// lockstep as in [`Self::run`].
    ///
    /// # Errors
    /// As [`Self::check_sbc`], an engine's failure, too many members diverged.
    pub fn sbc(&self, seeds: &[u64], methods: &[Method], engine: &Engine, observer: &mut dyn Observer) -> Result<Sbc> {
        self.check_sbc(seeds, methods)?;
        let none = || (0, vec![<(String, f64, [Gathered; 2])>::default(); methods.len()]);
        let (mut done, mut all) = checkpoint::begin(observer.keeper())?.unwrap_or_else(none);
        while done < seeds.len() {
            let seeds = &seeds[done..seeds.len().min(done + self.twins_at_once(methods))];
            let problem = simulate_set(&self.twin, seeds)?;
            for (method, (name, seconds, gathered)) in methods.iter().zip(&mut all) {
                let analyses = once(observer, |o| self.methods.run(*method, &problem, engine, o))?;
                *seconds += analyses.first().map_or(0.0, |a| a.seconds);
                for (p, analysis) in analyses.iter().enumerate() {
                    name.clone_from(&analysis.method);
                    gather(gathered, &problem, p, analysis);
                }
            }
            done += seeds.len();
            checkpoint::keep(observer.keeper(), &(done, &all))?;
        }
        checkpoint::end(observer.keeper(), &(done, &all))?;
        let band = UniformBand::new(seeds.len());
        let finish = |(method, seconds, [initial, window_end]): (String, f64, [Gathered; 2])| SbcMethod {
            method,
            seconds,
            initial: initial.finish(seeds, &band),
            window_end: window_end.finish(seeds, &band),
        };
        let methods = all.into_iter().map(finish).collect();
        Ok(Sbc { problems: seeds.len(), sites: self.twin.sites, methods })
    }
}

/// Ranks of problem `p` at t = 0 and at the window's end.
fn gather(gathered: &mut [Gathered; 2], problem: &Problem, p: usize, analysis: &Analysis) {
    let truth = problem.truth_of(p).expect("a twin knows its truth");
    let mut rng = StreamRng::new(problem.seeds[p], Stream::Calibration);
    for (gathered, time) in gathered.iter_mut().zip([0, problem.window.assimilated_times - 1]) {
        let states = analysis.samples.index_axis(Axis(1), time);
        let of_site = |(samples, truth): (ArrayView1<f64>, &f64)| {
            let mut sorted = samples.to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            rank(&sorted, *truth)
        };
        let ranks: Vec<_> = states.columns().into_iter().zip(truth.row(time)).map(of_site).collect();
        gathered.values.push(ranks.iter().map(|rank| rank.value(rng.random_range(0.0..1.0))).collect());
        gathered.ranks.push(ranks.iter().map(|rank| rank.rank).collect());
        gathered.samples.push(states.nrows());
    }
}

impl Gathered {
    fn finish(self, seeds: &[u64], band: &UniformBand) -> SbcRanks {
        let Self { ranks, samples, values } = self;
        let sites = values[0].len();
        let turns: Vec<f64> = seeds.iter().zip(&values).map(|(s, v)| v[(s % sites as u64) as usize]).collect();
        let ecdf = RankEcdf::new(&turns, band);
        let of_site = |site: usize| RankEcdf::new(&values.iter().map(|v| v[site]).collect::<Vec<_>>(), band);
        let by_site: Vec<RankEcdf> = (0..sites).into_par_iter().map(of_site).collect();
        let site_p_values: Vec<f64> = by_site.iter().map(|e| e.p_value).collect();
        let lowest = site_p_values.iter().copied().fold(1.0, f64::min);
        // Bonferroni: as many tests as sites.
        let apart = ecdf.shape() == Shape::Calibrated && lowest * (sites as f64) < 1.0 - BAND_LEVEL;
        let apart = if apart {
            format!(", but not at every site: the lowest p of {sites} is {lowest:.4}")
        } else {
            String::new()
        };
        SbcRanks {
            summary: format!("{ecdf}{apart}"),
            ecdf,
            site_p_values,
            site_ecdfs: by_site.into_iter().map(|e| e.ecdf).collect(),
            ranks,
            samples,
        }
    }
}

impl SbcMethod {
    /// Both times, named.
    pub fn named(&self) -> [(&'static str, &SbcRanks); 2] {
        [("t = 0", &self.initial), ("window's end", &self.window_end)]
    }
}

impl fmt::Display for Sbc {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let width = self.methods.iter().map(|m| m.method.chars().count()).max().unwrap_or(0) + 2;
        let (title, heads) = ("", ["outside 90 %", "p of ECDF", "p of symmetry", "lowest p of a site", "s in all"]);
        let [outside, ecdf, symmetry, site, seconds] = heads;
        writeln!(f, "{title:width$}{title:14}{outside:>12}  {ecdf:>9}  {symmetry:>13}  {site:>18}  {seconds:>8}")?;
        for method in &self.methods {
            let mut name = method.method.as_str();
            for (time, ranks) in method.named() {
                let lowest = ranks.site_p_values.iter().copied().fold(1.0, f64::min);
                let outside = format!("{:.0} %", 100.0 * ranks.ecdf.outside_90);
                let RankEcdf { p_value, symmetry_p_value, .. } = ranks.ecdf;
                write!(
                    f,
                    "{name:width$}{time:14}{outside:>12}  {p_value:>9.3}  {symmetry_p_value:>13.3}  {lowest:>18.3}"
                )?;
                let seconds = if name.is_empty() { String::new() } else { format!("  {:>8.2}", method.seconds) };
                writeln!(f, "{seconds}")?;
                name = "";
            }
        }
        for method in &self.methods {
            let [(at_zero, initial), (at_end, end)] = method.named();
            writeln!(f, "{}: at {at_zero} {}; at the {at_end} {}", method.method, initial.summary, end.summary)?;
        }
        Ok(())
    }
}

//! VAE-Var: variational assimilation whose background errors have a learned, non-Gaussian distribution (after "VAE-Var",
//! arXiv 2405.13711).
//!
//! A decoder D maps z ~ N(0, I) to background errors, x = x_b + D(z). By the change of variables the most probable state has
//! the latent of least cost
//!
//! `J(z) = 1/2 |z|^2 + log |det dD/dz| + 1/2 sum_t |y_t - H(M_t(x_b + D(z)))|^2_R^-1`,
//!
//! where the determinant is `1/2 log det(J'J + s^2 I)` with J = dD/dz in whitened errors and s the deviation of the
//! reconstruction, that of a Gaussian with the covariance J J' + s^2 I (derived), which serves any number of latents. Over a
//! window this is VAE-4DVar, at a single time VAE-3DVar; an affine decoder D(z) = L z makes it 4DVAR with B = L L'.

mod file;
mod network;
#[cfg(feature = "neural")]
mod training;
mod vae;

pub use network::{Evaluated, Network};
use vae::CostTerms;
pub(super) use vae::Increment;
pub use vae::{ErrorOrigin, Vae};

use super::control::control_records;
use super::descent::{Rest, Windows, overflow_note, overflows};
use super::four_d_var::{self, Minima};
use super::laplace;
use super::samples::Samples;
use super::transform::Transform;
use super::{Analysis, FourDVarSettings, Observer, Record, ViSettings, check_samples};
use crate::diagnostics::covariance;
use crate::engine::{Engine, Members};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::neural::{Architecture, TrainingSettings};
use crate::posterior::Family;
use crate::problem::{CovarianceFactor, Problem, check_finite};
use crate::random::{Stream, standard_normals};
use nalgebra::{Cholesky, DMatrix, DVector};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate, s};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

/// The method's name in tables.
pub const NAME: &str = "VAE-Var";
/// That of VI over the latents.
pub const VI_NAME: &str = "VAE-VI";

/// The autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[command(next_help_heading = "Autoencoder")]
pub struct VaeSettings {
    /// Latents, at most as many as sites; a convolution has one at each site. Default: as many as sites
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latents: Option<usize>,
    /// The layers of encoder and decoder; a convolution takes the errors of all sites to be alike. Default: convolution for a
    /// ring of equal sites, else dense
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae_architecture: Option<Architecture>,
    /// Sites on either side that a convolution sees in each hidden layer. Default: 2
    #[arg(long, value_name = "SITES")]
    pub vae_radius: usize,
    /// Width of the hidden layers, of a convolution at each site. Default: 64, of a convolution 8
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae_width: Option<usize>,
    /// Hidden layers of each. Default: 2
    #[arg(long, value_name = "N")]
    pub vae_hidden: usize,
    /// Deviation with which an error is reconstructed, in deviations of the errors: the smaller, the closer the decoder
    /// follows them, and the less its latents look like a normal distribution. Default: 0.2
    #[arg(long, value_name = "SD")]
    pub reconstruction_std: f64,
}

impl Default for VaeSettings {
    fn default() -> Self {
        Self {
            latents: None,
            vae_architecture: None,
            vae_radius: 2,
            vae_width: None,
            vae_hidden: 2,
            reconstruction_std: 0.2,
        }
    }
}

impl VaeSettings {
    /// The layers for a model.
    pub fn architecture(&self, model: Model) -> Architecture {
        let of_model = if model.is_ring() { Architecture::Convolution } else { Architecture::Dense };
        self.vae_architecture.unwrap_or(of_model)
    }

    /// Refuses settings that cannot work for errors of so many sites of a model.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self, model: Model, sites: usize) -> Result<()> {
        for (flag, value, most) in [
            ("latents", self.latents.unwrap_or(1), sites),
            ("vae-width", self.vae_width.unwrap_or(1), 4096),
            ("vae-hidden", self.vae_hidden, 16),
        ] {
            if !(1..=most).contains(&value) {
                let expected = format!("1 to {most}");
                return Err(Error::invalid(flag, expected, value.to_string(), "correct the setting, or leave it out"));
            }
        }
        if self.architecture(model) == Architecture::Convolution {
            let refuse = |what: &str, expected: String, found: String| {
                Err(Error::invalid(what, expected, found, "choose --vae-architecture dense, or change it"))
            };
            if !model.is_ring() {
                let expected = "a model on a ring of equal sites for convolutions".into();
                return refuse("vae-architecture", expected, model.name().into());
            }
            if sites < 2 * self.vae_radius + 1 {
                let expected = format!("at most {} for {sites} sites", (sites - 1) / 2);
                return refuse("vae-radius", expected, self.vae_radius.to_string());
            }
            if let Some(latents) = self.latents.filter(|latents| *latents != sites) {
                return refuse("latents", format!("{sites}, one at each site of a convolution"), latents.to_string());
            }
        }
        if !(self.reconstruction_std > 0.0 && self.reconstruction_std <= 0.9) {
            let found = self.reconstruction_std.to_string();
            return Err(Error::invalid("reconstruction-std", "a number above 0, at most 0.9", found, "0.2 is a start"));
        }
        Ok(())
    }

    /// The Gaussian of background errors, with the mean and the covariance that training on them would find: of the first
    /// errors, those that are not held out, and on a ring of equal sites of all its turns.
    ///
    /// # Errors
    /// Too few errors, errors that are not finite or do not vary.
    pub fn gaussian(&self, errors: ArrayView2<f64>, model: Model, training: &TrainingSettings) -> Result<Vae> {
        let (mean, covariance) = self.moments(errors, model, training)?;
        Vae::gaussian(mean, &CovarianceFactor::new(covariance)?)
    }

    /// Mean and covariance of the errors that are not held out: `[sites]`, `[sites, sites]`.
    fn moments(
        &self,
        errors: ArrayView2<f64>,
        model: Model,
        training: &TrainingSettings,
    ) -> Result<(Array1<f64>, Array2<f64>)> {
        let (count, sites) = errors.dim();
        check_finite("background errors", errors.iter())?;
        if count < 2 * sites {
            let expected = format!("at least {}, twice as many as sites", 2 * sites);
            return Err(Error::invalid("background errors", expected, count.to_string(), "cycle for longer"));
        }
        let known = errors.slice(s![..count - training.held_out_of(count)?, ..]);
        let covariance = covariance(known);
        let mean = known.mean_axis(Axis(0)).expect("errors to train with");
        if self.architecture(model) == Architecture::Dense {
            return Ok((mean, covariance));
        }
        // Errors are alike at all sites: the mean over the turns of the ring, about one mean for all.
        let level = mean.mean().expect("sites");
        let around = &mean - level;
        let product = |i: usize, j: usize| covariance[[i, j]] + around[i] * around[j];
        let apart: Vec<f64> =
            (0..sites).map(|d| (0..sites).map(|i| product(i, (i + d) % sites)).sum::<f64>() / sites as f64).collect();
        let alike = Array2::from_shape_fn((sites, sites), |(i, j)| apart[(sites + j - i) % sites]);
        Ok((Array1::from_elem(sites, level), alike))
    }

    /// Refuses a build that cannot train.
    ///
    /// # Errors
    /// One without networks.
    pub fn check_build() -> Result<()> {
        if !cfg!(feature = "neural") {
            let (expected, found) = ("a build with networks", "one without");
            let help = "build with --features neural, or give a file that was trained elsewhere";
            return Err(Error::invalid("training of an autoencoder", expected, found, help));
        }
        Ok(())
    }
}

#[cfg(not(feature = "neural"))]
impl VaeSettings {
    /// Trains on background errors, in a build that can.
    ///
    /// # Errors
    /// Always, in this one.
    pub fn train(
        &self,
        errors: ArrayView2<f64>,
        model: Model,
        _: &TrainingSettings,
        _: u64,
        _: &mut dyn Observer,
    ) -> Result<Vae> {
        self.check(model, errors.ncols())?;
        Self::check_build().map(|()| unreachable!("refused"))
    }
}

/// Settings of VAE-Var. How the cost is minimised is 4DVAR's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The file of the learned error distribution. No default.
    pub vae: Option<PathBuf>,
    /// Whether the cost has the latents' prior term 1/2 |z|^2. Default: true.
    pub prior_term: bool,
    /// Whether it has the log-determinant. Default: true.
    pub log_det_term: bool,
    /// Whether it has the observations. Default: true.
    pub observation_term: bool,
    /// The Gaussian that VI fits over the latents: a mean field or full rank. Default: full rank.
    pub latent_family: Family,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            vae: None,
            prior_term: true,
            log_det_term: true,
            observation_term: true,
            latent_family: Family::FullRank,
        }
    }
}

impl Settings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// No file, or a cost without any term.
    pub fn check(&self) -> Result<()> {
        if self.vae.is_none() {
            let expected = "the file of a learned error distribution";
            return Err(Error::invalid("vae", expected, "none", "give --vae FILE, made by `vi4dvar train vae`"));
        }
        self.check_terms()
    }

    fn check_terms(&self) -> Result<()> {
        if self.prior_term || self.log_det_term || self.observation_term {
            return Ok(());
        }
        Err(Error::invalid("cost terms", "at least one", "none", "leave prior-term or observation-term in"))
    }

    /// The learned error distribution that the settings name.
    ///
    /// # Errors
    /// As [`Self::check`] and [`Vae::read`].
    pub fn load(&self) -> Result<Vae> {
        self.check()?;
        Vae::read(self.vae.as_ref().expect("checked"))
    }

    fn terms(&self) -> CostTerms {
        CostTerms { prior: self.prior_term, log_det: self.log_det_term }
    }

    /// Assimilates every problem of the set: one analysis each, whose `seconds` are those of the whole set. Errors are
    /// scaled as the problem scales B; of parameters and model errors the prior stays Gaussian.
    ///
    /// `mean` is the trajectory of the lowest minimum; `samples` are the decoder's images of N(z*, (I + D' H D)^-1), with H
    /// the Gauss-Newton Hessian of J_o there, carried to the last stored time by the model. Records: `cost` (iteration),
    /// `minimum_cost` (start), `initial_state` (site), `latent` (latent), `observation_count`,
    /// `diverged_samples`.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, a distribution of other errors, an engine's failure, every start diverged,
    /// too many samples diverged.
    pub fn run(
        &self,
        vae: &Vae,
        minimisation: &FourDVarSettings,
        problem: &Problem,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Analysis>> {
        let clock = Instant::now();
        check_samples(problem, minimisation.samples)?;
        let problem = &self.observed(problem);
        let increments = self.increments(vae, problem)?;
        let mut found = self.search(&increments, minimisation, problem, engine, observer)?;
        let hessians = found.hessians(problem)?;
        let windows = &mut found.windows;
        let latents = windows.latents();
        let best = found.best.clone();
        // The minimum and its samples are one batch: row 0 of each problem, then the samples.
        let count = minimisation.samples;
        let mut members = Vec::with_capacity(2 * problem.count());
        for (p, hessian) in hessians.iter().enumerate() {
            let minimum = &found.rests[p][found.lowest[p]].minimum.point;
            let normals = standard_normals(problem.seeds[p], Stream::Posterior, 0, 0..count, latents);
            let background = problem.control_mean(p);
            members.push(best.slice(s![p..p + 1, ..]).to_owned());
            let mut own = Array2::zeros((count, best.ncols()));
            for (mut to, z) in own.outer_iter_mut().zip(around(minimum, hessian, &normals)?.outer_iter()) {
                to.assign(&windows.control(p, background.view(), &z.to_vec()));
            }
            members.push(own);
        }
        let views: Vec<_> = members.iter().map(|m| m.view()).collect();
        let members = concatenate(Axis(0), &views).expect("rows of one length");
        let trajectories = windows.whole().forecast(Members::Given(members.view()))?;
        let mut analyses = Vec::with_capacity(problem.count());
        for (p, rests) in found.rests.iter().enumerate() {
            let first = p * (count + 1);
            let drawn = trajectories.slice(s![first + 1..first + 1 + count, .., ..]);
            let samples = Samples::new(drawn, "VAE-Var's latent Gaussian", minimisation.max_diverged_share)?;
            let controls = members.slice(s![first + 1..first + 1 + count, ..]).select(Axis(0), &samples.kept);
            let lowest = &rests[found.lowest[p]];
            let observed = problem.assimilated_count(p);
            let minimum = &lowest.minimum;
            let costs: Array1<f64> = rests.iter().map(|r| r.minimum.cost).collect();
            let (history, latent) = (minimum.history.clone(), minimum.point.clone());
            let state = best.slice(s![p, ..problem.sites()]).to_owned();
            let long = "cost J of each start's minimum; infinite where the start diverged";
            let mut records = vec![
                Record::new(
                    "cost",
                    "cost J of the best start after each iteration",
                    &["iteration"],
                    Array1::from_vec(history),
                ),
                Record::new("minimum_cost", long, &["start"], costs),
                Record::new("initial_state", "initial state of least cost", &["site"], state),
                Record::new("latent", "latent control of least cost", &["latent"], Array1::from_vec(latent)),
                Record::scalar("observation_count", "number of assimilated observations", observed as f64),
                Record::scalar("diverged_samples", "samples left out because they diverged", samples.diverged as f64),
                overflows(rests),
            ];
            records.extend(control_records(problem, p, controls.view()));
            analyses.push(Analysis {
                method: NAME.into(),
                mean: trajectories.index_axis(Axis(0), first).to_owned(),
                std: samples.std,
                samples: samples.trajectories,
                records,
                summary: self.summary(vae, rests, found.lowest[p]),
                seconds: 0.0,
            });
        }
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }

    /// VI-4DVAR over the latents: a Gaussian q(z) of largest ELBO under the prior N(0, I), without the log-determinant, which
    /// belongs to a most probable state. Iterations, batch, learning rate and draws are `vi`'s; what it leaves open is
    /// decided as for the family of the latents.
    ///
    /// `samples` are the decoder's images of draws from q. Records: those of VI-4DVAR by iteration, `latent_elbo`,
    /// `latent_iwae`, `latent_log_evidence`, each with its error, `latent_k_hat`, `latent_mean` and `latent_std` (latent).
    ///
    /// # Errors
    /// As [`Self::run`]; a family other than mean field or full rank; too many draws diverged.
    pub fn run_vi(
        &self,
        vae: &Vae,
        vi: &ViSettings,
        problem: &Problem,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Analysis>> {
        let clock = Instant::now();
        let problem = &self.observed(problem);
        let density_of_z = Self { prior_term: true, log_det_term: false, ..self.clone() };
        let increments = density_of_z.increments(vae, problem)?;
        let transforms: Vec<_> =
            increments.iter().enumerate().map(|(p, own)| Transform::decoded(problem, p, own)).collect();
        let vi = ViSettings { family: self.latent_family, start: None, ..*vi };
        let mut analyses = vi.run_latent(VI_NAME, problem, &transforms, engine, observer)?;
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }

    /// The minimum of every problem of the set without samples: what a cycle needs.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn minima(
        &self,
        vae: &Vae,
        minimisation: &FourDVarSettings,
        problem: &Problem,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Minima> {
        let problem = &self.observed(problem);
        let increments = self.increments(vae, problem)?;
        let mut found = self.search(&increments, minimisation, problem, engine, observer)?;
        let layout = problem.control();
        let parameter_std = if layout.parameters > 0 { Some(found.stds(problem)?) } else { None };
        let mut minima = Minima::from_controls(problem, found.windows.whole(), found.best)?;
        minima.parameter_std = parameter_std.map(|std| std.slice(s![.., layout.parameters()]).to_owned());
        Ok(minima)
    }

    /// The problem as the cost sees it.
    fn observed(&self, problem: &Problem) -> Problem {
        let mut problem = problem.clone();
        if !self.observation_term {
            problem.weights.fill(0.0);
        }
        problem
    }

    /// The increments of each problem.
    fn increments<'v>(&self, vae: &'v Vae, problem: &Problem) -> Result<Vec<Increment<'v>>> {
        self.check_terms()?;
        if vae.sites() != problem.sites() {
            let expected = format!("errors of {} sites, as the problem has", problem.sites());
            let help = "train one on errors of this model";
            return Err(Error::invalid("learned error distribution", expected, vae.sites().to_string(), help));
        }
        if let Some(ErrorOrigin { model, .. }) = vae.origin.filter(|origin| origin.model != problem.model) {
            let (expected, help) = (format!("errors of {}", problem.model.name()), "train one on errors of this model");
            return Err(Error::invalid("learned error distribution", expected, model.name(), help));
        }
        let scale = |p: usize| problem.background.scale_of(p);
        Ok((0..problem.count()).map(|p| Increment::new(vae, scale(p), self.terms())).collect())
    }

    fn search<'p>(
        &self,
        increments: &'p [Increment<'p>],
        minimisation: &FourDVarSettings,
        problem: &'p Problem,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Found<'p>> {
        minimisation.check()?;
        let transforms = increments.iter().enumerate().map(|(p, own)| Transform::decoded(problem, p, own)).collect();
        let mut windows = Windows::through(transforms, problem, engine, minimisation.stages)?;
        let precision = engine.hardware().precision;
        let rests = minimisation.minimise(NAME, &mut windows, precision, None, observer)?;
        let rests: Vec<Vec<Rest>> = rests.chunks(minimisation.starts).map(<[Rest]>::to_vec).collect();
        let lowest = rests.iter().map(|own| four_d_var::lowest(own, NAME)).collect::<Result<Vec<_>>>()?;
        let groups: Vec<&[Rest]> = rests.iter().map(Vec::as_slice).collect();
        let best = four_d_var::best(&windows, &groups, &lowest);
        Ok(Found { windows, rests, lowest, best })
    }

    fn summary(&self, vae: &Vae, rests: &[Rest], lowest: usize) -> String {
        let best = &rests[lowest];
        let mut text = format!(
            "stopped after {} iterations ({} evaluations): {}; J = {:.6}",
            best.iterations, best.evaluations, best.minimum.reason, best.minimum.cost
        );
        if rests.len() > 1 {
            let same = |r: &&Rest| r.minimum.cost - best.minimum.cost < 0.01 * best.minimum.cost.abs().max(1.0);
            text +=
                &format!("; {} of {} starts ended within 1 % of it", rests.iter().filter(same).count(), rests.len());
        }
        text += &overflow_note(rests);
        let all = vae.latent_kl.len();
        text += &format!("; {} of {all} latents carry something", vae.latents());
        let without =
            [(self.prior_term, "prior"), (self.log_det_term, "log-determinant"), (self.observation_term, "J_o")];
        for (_, name) in without.iter().filter(|(has, _)| !has) {
            text += &format!("; without the {name} term");
        }
        text
    }
}

/// Minimisations of every problem that have come to rest.
struct Found<'a> {
    windows: Windows<'a>,
    /// `[P][starts]`
    rests: Vec<Vec<Rest>>,
    /// The lowest of each.
    lowest: Vec<usize>,
    /// Their controls: `[P, control]`.
    best: Array2<f64>,
}

impl Found<'_> {
    /// dc/dz at each minimum: `[P][control, latents]`.
    fn jacobians(&self) -> Vec<Array2<f64>> {
        let own = self.rests.iter().zip(&self.lowest).map(|(rests, k)| &rests[*k].minimum.point);
        own.enumerate().map(|(p, z)| self.windows.jacobian(p, z)).collect()
    }

    /// I + J' H J with H the Gauss-Newton Hessian of J_o at each minimum: `[P][latents, latents]`.
    fn hessians(&mut self, problem: &Problem) -> Result<Vec<Array2<f64>>> {
        let jacobians = self.jacobians();
        laplace::gauss_newton_hessians(problem, self.windows.whole(), self.best.view(), &jacobians)
    }

    /// Posterior deviations of the control by those: `[P, control]`.
    fn stds(&mut self, problem: &Problem) -> Result<Array2<f64>> {
        let mut stds = Array2::zeros(self.best.raw_dim());
        let jacobians = self.jacobians();
        for ((hessian, jacobian), mut std) in self.hessians(problem)?.iter().zip(jacobians).zip(stds.outer_iter_mut()) {
            let n = hessian.nrows();
            // The rows of J C^-T, with C C' the Hessian.
            let rows = around(&vec![0.0; n], hessian, &Array2::eye(n))?.dot(&jacobian.t());
            std.assign(&rows.mapv(|v| v * v).sum_axis(Axis(0)).mapv(f64::sqrt));
        }
        Ok(stds)
    }
}

/// z + C^-T eps for rows of standard normals, with C C' the Hessian there: `[rows, latents]`.
fn around(z: &[f64], hessian: &Array2<f64>, normals: &Array2<f64>) -> Result<Array2<f64>> {
    let n = z.len();
    let diverged = || Error::Diverged { what: "the tangents at VAE-Var's minimum".into(), diverged: n, members: n };
    let matrix = DMatrix::from_fn(n, n, |i, j| hessian[[i, j]]);
    let lower = Cholesky::new(matrix).filter(|_| hessian.iter().all(|v| v.is_finite())).ok_or_else(diverged)?.l();
    let mut rows = normals.clone();
    for mut row in rows.outer_iter_mut() {
        let eps = DVector::from_iterator(n, row.iter().copied());
        let step = lower.tr_solve_lower_triangular(&eps).expect("a positive diagonal");
        row.assign(&(&ArrayView1::from(z) + &ArrayView1::from(step.as_slice())));
    }
    Ok(rows)
}

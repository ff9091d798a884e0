//! 4DVAR's minima, for fits that start there and for the question whether a fit sits in the best of them.

use crate::engine::{Engine, LoadedProblem, Precision, Row};
use crate::error::Result;
use crate::method::descent::{Rest, Windows};
use crate::method::laplace::{self, Hessian, Laplace};
use crate::method::starts::Starts;
use crate::method::{FourDVarSettings, Observer, four_d_var};
use crate::posterior::Normal;
use crate::problem::Problem;
use ndarray::{Array1, Array2};
use std::ops::ControlFlow;

/// Starts from which minima are sought where no setting says so.
const STARTS: usize = 8;

/// A minimum of J.
#[derive(Clone, Debug)]
pub(super) struct Minimum {
    /// J there; infinite where the minimisation diverged.
    pub cost: f64,
    /// The control there: `[control]`.
    pub state: Array1<f64>,
}

/// A problem set in which to look for minima.
pub(super) struct Minima<'a> {
    pub problem: &'a Problem,
    windows: Windows<'a>,
    precision: Precision,
    settings: FourDVarSettings,
    /// The minima found so far of each problem: `[P][starts]`.
    found: Vec<Vec<Minimum>>,
    /// Member-gradients that each problem's minimisations took so far: `[P]`.
    pub evaluations: Vec<usize>,
    /// The Gaussians from which a fit is to start, where they are given: `[P]`.
    pub start: Option<&'a [Normal]>,
}

impl<'a> Minima<'a> {
    /// # Errors
    /// What [`Engine::load`] refuses.
    pub fn new(problem: &'a Problem, engine: &Engine) -> Result<Self> {
        let settings = FourDVarSettings::default();
        let windows = Windows::new(problem, engine, settings.stages)?;
        Ok(Self {
            problem,
            windows,
            precision: engine.hardware().precision,
            settings,
            found: Vec::new(),
            evaluations: vec![0; problem.count()],
            start: None,
        })
    }

    /// The problem set on its engine.
    pub fn whole(&mut self) -> &mut LoadedProblem {
        self.windows.whole()
    }

    /// The minima of each problem from xb and `starts - 1` draws from N(xb, B): `[P][starts]`.
    ///
    /// # Errors
    /// An engine's.
    pub fn search(&mut self, starts: usize, observer: &mut dyn Observer) -> Result<&[Vec<Minimum>]> {
        let settings = FourDVarSettings { starts, ..self.settings };
        let rests = settings.minimise(four_d_var::NAME, &mut self.windows, self.precision, None, observer)?;
        let minima = |(p, rests): (usize, &[Rest])| rests.iter().map(|rest| self.minimum(p, rest)).collect();
        self.found = rests.chunks(starts).enumerate().map(minima).collect();
        Ok(&self.found)
    }

    /// Minima from the prior: those found already, or of [`STARTS`] starts.
    ///
    /// # Errors
    /// An engine's.
    pub fn known(&mut self, observer: &mut dyn Observer) -> Result<&[Vec<Minimum>]> {
        if self.found.is_empty() { self.search(STARTS, observer) } else { Ok(&self.found) }
    }

    /// The minimum that each problem's state leads down to: `states: [P, control]`.
    ///
    /// # Errors
    /// An engine's.
    pub fn descend(&mut self, states: &Array2<f64>) -> Result<Vec<Minimum>> {
        let problem = self.problem;
        let rows: Vec<_> = (0..problem.count()).map(|p| Row { problem: p as u32, member: 0 }).collect();
        let backgrounds = problem.control_means();
        let whiten = |p: usize| problem.control_whitened(p, (&states.row(p) - &backgrounds.row(p)).view()).to_vec();
        let from = (0..rows.len()).map(whiten).collect();
        let starts = Starts { rows: &rows, backgrounds: backgrounds.view(), amplitude: 0.0, roots: None };
        let descent = self.settings.descent(self.precision);
        let watch = &mut |_: usize, _: &[f64]| ControlFlow::Continue(());
        let rests = self.windows.minimise(&descent, starts, from, false, watch)?;
        Ok(rests.iter().enumerate().map(|(p, rest)| self.minimum(p, rest)).collect())
    }

    /// The Laplace approximation of each problem at a minimum: `states: [P, control]`.
    ///
    /// # Errors
    /// An engine's.
    pub fn laplace(&mut self, states: &Array2<f64>, hessian: Hessian) -> Result<Vec<Laplace>> {
        laplace::laplace(self.problem, self.windows.whole(), states.view(), hessian, self.precision)
    }

    fn minimum(&mut self, p: usize, rest: &Rest) -> Minimum {
        self.evaluations[p] += rest.evaluations;
        let background = self.problem.control_mean(p);
        Minimum { cost: rest.minimum.cost, state: self.windows.control(p, background.view(), &rest.minimum.point) }
    }
}

/// The lowest of some minima.
pub(super) fn lowest(minima: &[Minimum]) -> &Minimum {
    minima.iter().min_by(|a, b| a.cost.total_cmp(&b.cost)).expect("at least one start")
}

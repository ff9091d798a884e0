//! What more Monte Carlo draws per iteration buy: noise of the ELBO's gradient, iterations and seconds to a given ELBO,
//! against the batch size.

use crate::engine::{Draw, Engine, Hardware, LoadedProblem, Terms};
use crate::error::{Error, Result};
use crate::method::{Silent, ViSettings};
use crate::optimizer::{Adam, AdamSettings, Schedule};
use crate::posterior::{Estimator, Gaussian, MeanField};
use crate::problem::Problem;
use crate::random::Stream;
use ndarray::{Array2, Axis};
use std::time::{Duration, Instant};

/// A study of batch sizes for the mean field that starts at the background, as in the slides.
#[derive(Clone, Debug)]
pub struct BatchStudy {
    /// Batch sizes.
    pub batches: Vec<usize>,
    /// Constant learning rates, of which each batch size gets the one that arrives first.
    pub learning_rates: Vec<f64>,
    /// Nats below the largest ELBO of the family that count as arrived.
    pub within: f64,
    /// Iterations after which a learning rate has failed.
    pub iterations: usize,
    /// Seconds after which it has.
    pub seconds: f64,
}

impl Default for BatchStudy {
    fn default() -> Self {
        Self {
            batches: vec![1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 100_000],
            learning_rates: vec![0.3, 0.1, 0.03, 0.01, 0.003],
            within: 0.1,
            iterations: 20_000,
            seconds: 20.0,
        }
    }
}

/// One batch size on one engine.
#[derive(Clone, Debug)]
pub struct BatchRow {
    /// What it ran on.
    pub hardware: Hardware,
    /// Draws per iteration.
    pub batch: usize,
    /// Variance of the gradient of -ELBO at the fit of largest ELBO, summed over (mu, log sigma).
    pub variance: f64,
    /// The learning rate that arrived first; NaN where none did.
    pub learning_rate: f64,
    /// Iterations until the ELBO arrived; `None` where none did.
    pub iterations: Option<usize>,
    /// Seconds that these took, the checks left out; NaN likewise.
    pub seconds: f64,
}

/// Gradients from which a variance is taken.
const REPEATS: usize = 64;

/// Draws that judge a fit on its way, and the factor by which iterations grow between two looks.
const JUDGES: usize = 4096;
const PATIENCE: f64 = 1.1;

impl BatchStudy {
    /// Runs the study on one problem.
    ///
    /// # Errors
    /// A set of several problems, an engine's failure.
    pub fn run(&self, problem: &Problem, engine: &Engine) -> Result<Vec<BatchRow>> {
        if problem.count() != 1 {
            let found = format!("{} problems", problem.count());
            return Err(Error::invalid("study of batch sizes", "one problem", found, "select one"));
        }
        let mut loaded = engine.load(problem)?;
        let best = best_fit(problem, engine)?;
        let target = judge(&mut loaded, &best)? - self.within;
        self.batches.iter().map(|batch| self.row(*batch, problem, engine, &mut loaded, &best, target)).collect()
    }

    fn row(
        &self,
        batch: usize,
        problem: &Problem,
        engine: &Engine,
        loaded: &mut LoadedProblem,
        best: &MeanField,
        target: f64,
    ) -> Result<BatchRow> {
        let mut first: Option<(f64, usize, f64)> = None;
        for rate in &self.learning_rates {
            // What takes longer than another rate did cannot be the first.
            let seconds = first.map_or(self.seconds, |(seconds, ..)| seconds);
            if let Some((iterations, time)) = self.arrival(batch, *rate, seconds, problem, loaded, target)? {
                first = Some((time.as_secs_f64(), iterations, *rate));
            }
        }
        Ok(BatchRow {
            hardware: engine.hardware().clone(),
            batch,
            variance: variance(batch, loaded, best)?,
            learning_rate: first.map_or(f64::NAN, |(_, _, rate)| rate),
            iterations: first.map(|(_, iterations, _)| iterations),
            seconds: first.map_or(f64::NAN, |(seconds, _, _)| seconds),
        })
    }

    /// Iterations and time until the ELBO is at `target`, if that takes no more than `seconds`.
    fn arrival(
        &self,
        batch: usize,
        learning_rate: f64,
        seconds: f64,
        problem: &Problem,
        loaded: &mut LoadedProblem,
        target: f64,
    ) -> Result<Option<(usize, Duration)>> {
        let mean = problem.background.mean_of(0).to_owned().insert_axis(Axis(0));
        let mut q = MeanField::new(&mean, &Array2::ones(mean.raw_dim()))?;
        let settings = AdamSettings { learning_rate, ..AdamSettings::default() };
        let mut adam = Adam::new(settings, q.units(), self.iterations);
        let mut gradient = vec![0.0; q.units().len()];
        let mut draw = Draw { map: q.to_map(), stream: Stream::MonteCarlo, iteration: 0, count: batch };
        let (mut spent, mut clock, mut look) = (Duration::ZERO, Instant::now(), 1.0);
        for iteration in 0..self.iterations {
            draw.iteration = iteration as u32;
            let moments = loaded.moments(&draw, Terms::ALL)?;
            q.pull_back(&moments, Estimator::Plain, &mut gradient);
            adam.step(q.parameters(), &gradient);
            q.write_map(&mut draw.map);
            if (iteration + 1) as f64 >= look {
                spent += clock.elapsed();
                if !draw.map.is_finite() || spent.as_secs_f64() > seconds {
                    return Ok(None);
                }
                if judge(loaded, &q)? >= target {
                    return Ok(Some((iteration + 1, spent)));
                }
                look = (look * PATIENCE).max(look + 1.0);
                clock = Instant::now();
            }
        }
        Ok(None)
    }
}

/// The mean field of largest ELBO, from a long fit in large batches that comes to rest.
fn best_fit(problem: &Problem, engine: &Engine) -> Result<MeanField> {
    let settings = ViSettings {
        iterations: 3000,
        batch: Some(1024),
        learning_rate: 0.05,
        schedule: Some(Schedule::Cosine),
        samples: 2,
        ..ViSettings::default()
    };
    let fit = settings.run(problem, engine, &mut Silent)?.remove(0);
    let row = |name| {
        let values = fit.record(name).expect("every fit keeps it").values.iter().copied();
        values.collect::<ndarray::Array1<f64>>().insert_axis(Axis(0))
    };
    MeanField::new(&row("variational_mean"), &row("variational_std"))
}

/// The ELBO of a fit, relative to the cost alone.
fn judge(loaded: &mut LoadedProblem, q: &MeanField) -> Result<f64> {
    let draw = Draw { map: q.to_map(), stream: Stream::Importance, iteration: 0, count: JUDGES };
    let moments = loaded.moments(&draw, Terms::ALL)?;
    Ok(q.elbo(0, &moments[0]).value)
}

/// Variance of the gradient over iterations at a fit held fixed, summed over the parameters.
fn variance(batch: usize, loaded: &mut LoadedProblem, q: &MeanField) -> Result<f64> {
    let count = q.units().len();
    let mut gradients = Array2::zeros((REPEATS, count));
    let mut gradient = vec![0.0; count];
    for (iteration, mut row) in gradients.outer_iter_mut().enumerate() {
        let draw = Draw { map: q.to_map(), stream: Stream::MonteCarlo, iteration: iteration as u32, count: batch };
        q.pull_back(&loaded.moments(&draw, Terms::ALL)?, Estimator::Plain, &mut gradient);
        row.iter_mut().zip(&gradient).for_each(|(to, g)| *to = *g);
    }
    Ok(gradients.var_axis(Axis(0), 1.0).sum())
}

//! The truth that is cycled after, its observations, and the climate that it lives in.

use super::CycleSettings;
use crate::error::{Error, Result};
use crate::problem::{CovarianceFactor, ObservationOperator};
use crate::random::{Stream, StreamRng};
use ndarray::{Array1, Array2, ArrayView1};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::collections::VecDeque;

impl CycleSettings {
    /// A state on the attractor of the model with those parameters and that step.
    fn spun_up(&self, rng: &mut StreamRng, parameters: &[f64], dt: f64) -> Result<Vec<f64>> {
        let mut state: Vec<f64> = (0..self.sites).map(|_| StandardNormal.sample(rng)).collect();
        self.model.integrate(parameters, &mut state, dt, self.spin_up);
        check_bounded(&state)?;
        Ok(state)
    }

    /// Mean and covariance of a free run of the forecast model. It has a seed of its own, so all experiments share it.
    ///
    /// # Errors
    /// A run that leaves the range of numbers, or whose covariance is not positive definite.
    pub fn climatology(&self) -> Result<(Array1<f64>, CovarianceFactor)> {
        let parameters = self.model_parameters();
        let mut state = self.spun_up(&mut StreamRng::new(0, Stream::Climatology), &parameters, self.dt)?;
        let mut sum = Array1::zeros(self.sites);
        let mut products = Array2::zeros((self.sites, self.sites));
        let mut left = self.climatology;
        while left > 0 {
            let mut block = Array2::zeros((left.min(1000), self.sites));
            for mut row in block.rows_mut() {
                self.model.integrate(&parameters, &mut state, self.dt, self.steps_per_time);
                row.assign(&ArrayView1::from(&state));
            }
            left -= block.nrows();
            sum += &block.sum_axis(ndarray::Axis(0));
            products += &block.t().dot(&block);
        }
        check_bounded(&state)?;
        let count = self.climatology as f64;
        let mean: Array1<f64> = sum / count;
        let covariance = Array2::from_shape_fn(products.raw_dim(), |(i, j)| {
            (products[[i, j]] - count * mean[i] * mean[j]) / (count - 1.0)
        });
        Ok((mean, CovarianceFactor::new(covariance)?))
    }

    /// H.
    pub(super) fn observation_operator(&self) -> ObservationOperator {
        ObservationOperator { function: self.operator, block_size: 1 }
    }
}

/// A truth with its observations, from one seed.
pub(super) struct Truth {
    state: Vec<f64>,
    observation_noise: StreamRng,
    model_noise: StreamRng,
    mask: StreamRng,
    /// The error of the first background, in standard deviations: `[sites]`.
    pub initial_noise: Array1<f64>,
    /// Truth and observations of the last times, the newest first, as many as the longest window has.
    past: VecDeque<(Array1<f64>, Array1<f64>)>,
}

impl Truth {
    pub fn new(settings: &CycleSettings, seed: u64) -> Result<Self> {
        let (parameters, dt, _) = settings.truth();
        let state = settings.spun_up(&mut StreamRng::new(seed, Stream::SpinUp), &parameters, dt)?;
        let mut rng = StreamRng::new(seed, Stream::BackgroundNoise);
        let mut truth = Self {
            state,
            observation_noise: StreamRng::new(seed, Stream::ObservationNoise),
            model_noise: StreamRng::new(seed, Stream::ModelNoise),
            mask: StreamRng::new(seed, Stream::Mask),
            initial_noise: Array1::from_shape_simple_fn(settings.sites, || StandardNormal.sample(&mut rng)),
            past: VecDeque::new(),
        };
        truth.observe(settings);
        Ok(truth)
    }

    /// To the next observation time.
    pub fn advance(&mut self, settings: &CycleSettings) -> Result<()> {
        let (parameters, dt, steps) = settings.truth();
        settings.model.integrate(&parameters, &mut self.state, dt, steps);
        for x in &mut self.state {
            let noise: f64 = StandardNormal.sample(&mut self.model_noise);
            *x += settings.model_noise * noise;
        }
        check_bounded(&self.state)?;
        self.observe(settings);
        Ok(())
    }

    fn observe(&mut self, settings: &CycleSettings) {
        let truth = Array1::from_vec(self.state.clone());
        let mut observations = Array1::from_vec(settings.observation_operator().apply(&self.state));
        for y in &mut observations {
            let noise: f64 = StandardNormal.sample(&mut self.observation_noise);
            let dropped = self.mask.random::<f64>() < settings.drop;
            *y = if dropped { f64::NAN } else { *y + settings.observation_std * noise };
        }
        self.past.push_front((truth, observations));
        self.past.truncate(settings.longest() + 1);
    }

    /// The truth so many intervals ago: `[sites]`.
    pub fn state(&self, ago: usize) -> ArrayView1<'_, f64> {
        self.past[ago].0.view()
    }

    /// What was observed so many intervals ago: `[sites]`, NaN where nothing was.
    pub fn observations(&self, ago: usize) -> ArrayView1<'_, f64> {
        self.past[ago].1.view()
    }
}

fn check_bounded(state: &[f64]) -> Result<()> {
    // Engines compute in f32 too.
    if state.iter().all(|x| x.abs() <= 1e12) {
        return Ok(());
    }
    Err(Error::invalid(
        "the model's run",
        "a bounded trajectory",
        "an overflow",
        "use a smaller dt with more steps per time, other parameters, or less model noise",
    ))
}

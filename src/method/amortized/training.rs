//! Trains a recognition network: one engine call gives the gradients of all draws of a batch of different windows.

use super::loss::{self, Loss};
use super::network::{AT_A_TIME, Domain, PIECE, Recognition, backgrounds};
use super::{AmortizedTraining, NAME, Recognized};
use crate::engine::{Engine, Listed, LoadedProblem, Members, Row, Terms};
use crate::error::{Error, Result};
use crate::method::{Observer, WatchedTraining};
use crate::neural::{Learner, initial, train, units};
use crate::posterior::log_normalizer;
use crate::problem::Problem;
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;

/// Windows that inputs are standardised by.
const STANDARD: usize = 1024;

/// The iteration of draws by which losses are compared.
const JUDGED: u32 = u32::MAX;

/// Share of windows that may diverge altogether before a loss is none.
const LOST: f64 = 0.01;

impl Recognition {
    /// Trains a network on a set of windows, whose truth is not looked at. `seed` is that of initial weights, order and draws.
    ///
    /// # Errors
    /// Settings or problems that cannot work, an engine's failure, a loss that is not finite at the start.
    pub fn train(
        problem: &Problem,
        settings: &AmortizedTraining,
        engine: &Engine,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        settings.check()?;
        let mut network = Self::new(settings.network, Domain::of(problem)?)?;
        let mut loaded = engine.load(problem)?;
        let some: Vec<u32> = (0..problem.count().min(STANDARD) as u32).collect();
        let points = backgrounds(problem, &some);
        let inputs = network.inputs(problem, &mut loaded, &some, points.view())?;
        network.standardise(&inputs);
        let mut parameters = initial(&network.matrices, seed);
        let steps = units(&network.matrices);
        let draws = settings.training_draws;
        let mut learner = Windows { network: &network, problem, loaded: &mut loaded, draws, seed };
        let (count, course) = (problem.count(), &settings.training);
        let watch = &mut WatchedTraining { method: NAME, observer };
        let history = train(&mut learner, &mut parameters, steps, count, course, seed, watch)?;
        // As the file holds them and the network computes with them.
        parameters.iter_mut().for_each(|w| *w = f64::from(*w as f32));
        if parameters.iter().any(|w| !w.is_finite()) {
            return Err(Error::invalid("weights after training", "finite numbers", "others", "lower --training-rate"));
        }
        network.parameters = parameters;
        network.history = history;
        Ok(network)
    }
}

/// The windows that a network learns from.
struct Windows<'a> {
    network: &'a Recognition,
    problem: &'a Problem,
    loaded: &'a mut LoadedProblem,
    draws: usize,
    seed: u64,
}

/// Some windows on their way through the network.
struct Batch {
    said: Vec<super::network::Said>,
    /// Losses of the windows, None where all draws diverged.
    losses: Vec<Option<Loss>>,
}

impl Windows<'_> {
    /// The loss of what the network says of each window, by one engine call.
    fn judge(&mut self, problems: &[u32], points: ArrayView2<f64>, outputs: &[f32], iteration: u32) -> Result<Batch> {
        let said = self.network.decode(self.problem, problems, points, outputs);
        let n = self.problem.sites();
        let draw = |p: &u32, rank: usize| loss::normals(self.seed, iteration, *p as usize, self.draws, n + rank);
        let normals: Vec<_> = problems.par_iter().zip(&said).map(|(p, said)| draw(p, said.columns.ncols())).collect();
        let states: Vec<_> = said.par_iter().zip(&normals).map(|(s, eps)| loss::states(s, eps.view())).collect();
        let each = states[0].nrows();
        let views: Vec<_> = states.iter().map(|s| s.view()).collect();
        let mut states = concatenate(Axis(0), &views).expect("rows of one length");
        // An engine takes finite numbers alone; what overflowed in the network diverges there.
        states.mapv_inplace(|x| if x.abs() < crate::engine::DIVERGED { x } else { crate::engine::DIVERGED });
        let rows: Vec<_> =
            problems.iter().flat_map(|p| (0..each).map(|k| Row { problem: *p, member: k as u32 })).collect();
        let listed = Listed { states: states.view(), rows: &rows, amplitude: 0.0 };
        let gradients = self.loaded.gradient(Members::Listed(listed), Terms::ALL)?;
        let costs = gradients.costs.total();
        let losses = (0..problems.len())
            .into_par_iter()
            .map(|k| {
                let own = k * each..(k + 1) * each;
                let gradient = gradients.gradient.slice(s![own.clone(), ..]);
                let diverged = &gradients.costs.diverged[own.clone()];
                loss::loss(&said[k], normals[k].view(), costs.slice(s![own]), gradient, diverged)
            })
            .collect();
        Ok(Batch { said, losses })
    }

    /// -ELBO of a window, or its cost where the network says points.
    fn value(&self, problem: u32, loss: &Loss) -> f64 {
        match self.network.settings.posterior {
            Recognized::Delta => loss.value,
            _ => loss.value - log_normalizer(self.problem, problem as usize),
        }
    }

    /// Mean over the windows that did not diverge altogether.
    fn mean(&self, problems: &[u32], losses: &[Option<Loss>]) -> (f64, usize) {
        let values: Vec<f64> =
            problems.iter().zip(losses).filter_map(|(p, l)| l.as_ref().map(|l| self.value(*p, l))).collect();
        (values.iter().sum::<f64>(), values.len())
    }

    /// The gradient of the mean loss with respect to the outputs, as the network lays them out.
    fn by_outputs(&self, problems: &[u32], losses: &[Option<Loss>], share: f64) -> Vec<f32> {
        let (sites, each) = (self.problem.sites(), self.network.per_site());
        let mut all = vec![0.0; problems.len() * sites * each];
        all.par_chunks_mut(sites * each).zip(problems.par_iter().zip(losses)).for_each(|(out, (p, loss))| {
            let Some(loss) = loss else { return };
            let std = self.problem.background.std_of(*p as usize);
            for (i, out) in out.chunks_exact_mut(each).enumerate() {
                out[0] = (share * std[i] * loss.by_mean[i]) as f32;
                if each > 1 {
                    out[1] = (share * loss.by_log_std[i]) as f32;
                }
                for r in 0..loss.by_columns.ncols() {
                    out[2 + r] = (share * std[i] * loss.by_columns[[i, r]]) as f32;
                }
            }
        });
        all
    }
}

/// The windows of a batch in the order in which an engine takes them.
fn ordered(examples: &[usize]) -> Vec<u32> {
    let mut problems: Vec<u32> = examples.iter().map(|e| *e as u32).collect();
    problems.sort_unstable();
    problems
}

impl Learner for Windows<'_> {
    /// The loss is that after the last pass; the gradient is that of the mean over all passes, each of which takes the point
    /// that it starts from as given.
    fn gradient(&mut self, parameters: &[f64], examples: &[usize], step: u32) -> Result<(f64, Vec<f64>)> {
        let (network, problem) = (self.network, self.problem);
        let (problems, sites, passes) = (ordered(examples), problem.sites(), network.settings.passes);
        let mut points = backgrounds(problem, &problems);
        let mut gradient = vec![0.0; parameters.len()];
        let mut value = f64::NAN;
        for _ in 0..passes {
            let inputs = network.inputs(problem, self.loaded, &problems, points.view())?;
            let piece = PIECE * inputs.len() / problems.len();
            let (outputs, forwards): (Vec<_>, Vec<_>) =
                inputs.par_chunks(piece).map(|own| network.forward(parameters, own, sites)).unzip();
            let batch = self.judge(&problems, points.view(), &outputs.concat(), step)?;
            let (sum, kept) = self.mean(&problems, &batch.losses);
            value = sum / kept as f64;
            let by_outputs = self.by_outputs(&problems, &batch.losses, 1.0 / (kept * passes) as f64);
            let pieces: Vec<Vec<f64>> = forwards
                .into_par_iter()
                .zip(by_outputs.par_chunks(PIECE * sites * network.per_site()))
                .map(|(forward, own)| forward.pull_back(own.to_vec()))
                .collect();
            for own in pieces {
                gradient.iter_mut().zip(own).for_each(|(sum, g)| *sum += g);
            }
            advance(&mut points, &batch);
        }
        Ok((value, gradient))
    }

    fn loss(&mut self, parameters: &[f64], examples: &[usize]) -> Result<f64> {
        let (network, problem) = (self.network, self.problem);
        let problems = ordered(examples);
        let (mut sum, mut kept) = (0.0, 0);
        for problems in problems.chunks(AT_A_TIME) {
            let mut points = backgrounds(problem, problems);
            for pass in 0..network.settings.passes {
                let inputs = network.inputs(problem, self.loaded, problems, points.view())?;
                let outputs = network.outputs(parameters, &inputs, problem.sites());
                let batch = self.judge(problems, points.view(), &outputs, JUDGED)?;
                if pass + 1 == network.settings.passes {
                    let own = self.mean(problems, &batch.losses);
                    (sum, kept) = (sum + own.0, kept + own.1);
                }
                advance(&mut points, &batch);
            }
        }
        let lost = (problems.len() - kept) as f64;
        Ok(if lost > LOST * problems.len() as f64 { f64::INFINITY } else { sum / kept as f64 })
    }
}

/// The next pass starts from what this one said, but where that cannot be.
fn advance(points: &mut Array2<f64>, batch: &Batch) {
    for ((mut point, said), loss) in points.outer_iter_mut().zip(&batch.said).zip(&batch.losses) {
        if loss.is_some() {
            point.assign(&said.mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Precision;
    use crate::method::NetworkSettings;
    use crate::model::Model;
    use crate::problem::{Background, ErrorCovariance, ObservationOperator, PointFunction, Window as Times};
    use ndarray::{Array3, array};

    /// Linear-Gaussian problems of one time, a third of whose sites is observed.
    fn windows(count: usize, n: usize) -> Problem {
        Problem {
            model: Model::Lorenz96,
            parameters: array![[8.0]],
            parameter_std: None,
            true_parameters: None,
            model_error: None,
            window: Times { times: 1, assimilated_times: 1, steps_per_time: 1, dt: 0.05 },
            background: Background {
                mean: Array2::from_shape_fn((count, n), |(p, i)| (1.3 * (p * n + i) as f64).sin()),
                error: ErrorCovariance::Diagonal(Array2::from_shape_fn((1, n), |(_, i)| 0.6 + 0.1 * i as f64)),
                scale: array![1.0],
            },
            operator: ObservationOperator { function: PointFunction::Identity, block_size: 1 },
            observations: Array3::from_shape_fn((count, 1, n), |(p, _, j)| {
                if (p + j) % 3 == 0 { (2.1 * (p * n + j) as f64).cos() } else { f64::NAN }
            }),
            observation_std: Array3::from_elem((1, 1, n), 0.4),
            weights: array![[1.0]],
            seeds: (0..count as u64).collect(),
            truth: None,
        }
    }

    #[test]
    fn gradients_of_weights_are_differences_of_the_loss() {
        let engine = Engine::cpu(Precision::F64).unwrap();
        let problem = windows(20, 5);
        for posterior in Recognized::ALL {
            let settings = NetworkSettings {
                posterior,
                posterior_rank: 2,
                network_width: 6,
                network_layers: 2,
                network_radius: 1,
                passes: 1,
                ..NetworkSettings::default()
            };
            let mut loaded = engine.load(&problem).unwrap();
            let network = Recognition::new(settings, Domain::of(&problem).unwrap()).unwrap();
            let parameters = initial(&network.matrices, 3);
            let units = units(&network.matrices);
            let mut learner = Windows { network: &network, problem: &problem, loaded: &mut loaded, draws: 4, seed: 9 };
            let examples: Vec<usize> = (0..18).rev().collect();
            let (loss, gradient) = learner.gradient(&parameters, &examples, 3).unwrap();
            assert!(loss.is_finite() && gradient.iter().any(|g| g.abs() > 0.01));
            // Along a direction of all weights at a time: networks are f32, and ReLUs have a kink.
            for k in 0..6 {
                let direction: Vec<f64> =
                    units.iter().enumerate().map(|(i, u)| u * (0.7 * (i * (k + 1)) as f64).sin()).collect();
                let h = 2e-3;
                let [up, down] = [h, -h].map(|by| {
                    let moved: Vec<f64> = parameters.iter().zip(&direction).map(|(w, d)| w + by * d).collect();
                    learner.gradient(&moved, &examples, 3).unwrap().0
                });
                let want = (up - down) / (2.0 * h);
                let found: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
                let scale = want.abs().max(0.1);
                assert!((found - want).abs() < 0.02 * scale, "{posterior:?}, direction {k}: {found} {want}");
            }
        }
    }
}

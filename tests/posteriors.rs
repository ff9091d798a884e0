//! The families of VI-4DVAR: their gradients against differences of what they are gradients of, their fits against exact
//! posteriors.

#[allow(dead_code, reason = "each test program uses some of it")]
#[path = "common/gaussian.rs"]
mod gaussian;

use gaussian::{exact, gap, linear, number, record};
use ndarray::{Array2, Array3, Axis, array};
use vi4dvar::engine::{Engine, Moments, PatternSums, Precision, Scale};
use vi4dvar::method::{Analysis, InitialFit, Silent, ViSettings};
use vi4dvar::optimizer::Schedule;
use vi4dvar::posterior::{Estimator, Family, FullRank, Gaussian, LowRank, MeanField};
use vi4dvar::problem::{ErrorCovariance, PointFunction, Problem};
use vi4dvar::random::{Stream, standard_normals};

const N: usize = 5;
const DRAWS: usize = 64;

/// A cost with third and fourth derivatives, and its gradient.
fn cost(x: &[f64]) -> (f64, Vec<f64>) {
    let (mut value, mut gradient) = (0.0, vec![0.0; x.len()]);
    for i in 0..x.len() {
        let j = (i + 1) % x.len();
        let bend = x[i] * x[i] - 0.7 * x[j] - 0.3;
        value += 0.5 * x[i] * x[i] + bend * bend;
        gradient[i] += x[i] + 4.0 * bend * x[i];
        gradient[j] -= 1.4 * bend;
    }
    (value, gradient)
}

/// Members c = m + S eps of problem `p`, S multiplied out.
fn members(q: &dyn Gaussian, p: usize, epsilon: &Array2<f64>) -> Array2<f64> {
    let map = q.to_map();
    let root = match &map.scale {
        Scale::Diagonal(d) => Array2::from_diag(&d.row(p)),
        Scale::Lower(l) => l.index_axis(Axis(0), p).to_owned(),
        Scale::LowRank { diagonal, left, right } => {
            let outer = left.index_axis(Axis(0), p).dot(&right.index_axis(Axis(0), p).t());
            outer + Array2::from_diag(&diagonal.row(p))
        }
    };
    epsilon.dot(&root.t()) + map.mean.row(p)
}

/// What an engine would return for the members, summed one by one.
fn moments(q: &dyn Gaussian, p: usize, epsilon: &Array2<f64>) -> Moments {
    let x = members(q, p, epsilon);
    let g = Array2::from_shape_vec(x.dim(), x.outer_iter().flat_map(|x| cost(&x.to_vec()).1).collect()).unwrap();
    let sum = |a: &Array2<f64>| a.sum_axis(Axis(0)).to_vec();
    let lower = |a: Array2<f64>| Array2::from_shape_fn(a.dim(), |(i, j)| if i >= j { a[[i, j]] } else { 0.0 });
    let pattern = match q.to_map().scale {
        Scale::Diagonal(_) => PatternSums::Diagonal,
        Scale::Lower(_) => PatternSums::Lower {
            gradient_epsilon: lower(g.t().dot(epsilon)),
            epsilon_epsilon: lower(epsilon.t().dot(epsilon)),
        },
        Scale::LowRank { left, right, .. } => {
            let (left, right) = (left.index_axis(Axis(0), p).to_owned(), right.index_axis(Axis(0), p).to_owned());
            PatternSums::LowRank {
                gradient_right: g.t().dot(&epsilon.dot(&right)),
                epsilon_left: epsilon.t().dot(&g.dot(&left)),
                epsilon_right: epsilon.t().dot(&epsilon.dot(&right)),
            }
        }
    };
    Moments {
        count: DRAWS,
        diverged: 0,
        gradient: sum(&g),
        gradient_squared: sum(&(&g * &g)),
        epsilon: sum(epsilon),
        epsilon_squared: sum(&(epsilon * epsilon)),
        gradient_epsilon: sum(&(&g * epsilon)),
        pattern,
        ..Moments::default()
    }
}

/// Two problems of each family, with parameters that are nothing special.
fn families() -> Vec<(&'static str, Box<dyn Gaussian>)> {
    let mean = Array2::from_shape_fn((2, N), |(p, i)| 0.3 * i as f64 - 0.5 + p as f64);
    let std = Array2::from_shape_fn((2, N), |(p, i)| 0.2 + 0.1 * i as f64 + 0.05 * p as f64);
    let lower = Array3::from_shape_fn((2, N, N), |(p, i, j)| match i.cmp(&j) {
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => std[[p, i]],
        std::cmp::Ordering::Greater => 0.1 * ((3 * i + 5 * j + p) as f64).sin(),
    });
    let factor = Array3::from_shape_fn((2, N, 2), |(p, i, k)| ((2 * i + 3 * k + p) as f64).cos());
    let mut full = FullRank::new(mean.clone(), lower).unwrap();
    full.parameters().iter_mut().enumerate().for_each(|(k, v)| *v += 0.1 * (k as f64).sin());
    vec![
        ("mean field", Box::new(MeanField::new(&mean, &std).unwrap())),
        ("full rank", Box::new(full)),
        ("low rank", Box::new(LowRank::new(&mean, &std, &factor, Array2::ones((2, N))).unwrap())),
    ]
}

/// With the normals held fixed the loss is an ordinary function of theta: the mean cost less the entropy, or, on the path
/// alone, the mean of J + log q with q's own parameters held back.
#[test]
fn gradients_are_those_of_the_loss_over_fixed_draws() {
    for (name, mut q) in families() {
        let epsilon: Vec<_> = (0..2).map(|p| standard_normals(9 + p, Stream::MonteCarlo, 0, 0..DRAWS, N)).collect();
        for estimator in [Estimator::Plain, Estimator::Path] {
            let held: Vec<_> = (0..2).map(|p| q.normal(p)).collect();
            let loss = |q: &dyn Gaussian| -> f64 {
                (0..2)
                    .map(|p| {
                        let x = members(q, p, &epsilon[p]);
                        let mean = x.outer_iter().map(|x| cost(&x.to_vec()).0).sum::<f64>() / DRAWS as f64;
                        match estimator {
                            Estimator::Plain => mean - q.entropy(p),
                            Estimator::Path => mean + held[p].log_density(x.view()).mean().unwrap(),
                        }
                    })
                    .sum()
            };
            let sums: Vec<_> = (0..2).map(|p| moments(q.as_ref(), p, &epsilon[p])).collect();
            let count = q.parameters().len();
            let mut gradient = vec![f64::NAN; count];
            q.pull_back(&sums, estimator, &mut gradient);
            for k in 0..count {
                let at = |q: &mut Box<dyn Gaussian>, h: f64| {
                    q.parameters()[k] += h;
                    let loss = loss(q.as_ref());
                    q.parameters()[k] -= h;
                    loss
                };
                let want = (at(&mut q, 1e-5) - at(&mut q, -1e-5)) / 2e-5;
                let off = (gradient[k] - want).abs() / want.abs().max(1.0);
                assert!(off < 1e-7, "{name} {estimator:?}: parameter {k} is {} and not {want}", gradient[k]);
            }
        }
    }
}

#[test]
fn densities_and_entropies_belong_to_the_map() {
    for (name, q) in families() {
        for p in 0..2 {
            let normal = q.normal(p);
            let epsilon = standard_normals(4, Stream::Importance, 0, 0..3, N);
            let drawn = normal.draw(4, Stream::Importance, 0..3);
            let x = members(q.as_ref(), p, &epsilon);
            assert!(gap(&drawn.states, x, 1.0) < 1e-12, "{name}");
            assert!(gap(&normal.log_density(drawn.states.view()), drawn.log_density.iter().copied(), 1.0) < 1e-11);
            // Images of the unit vectors: S, with its determinant by nalgebra.
            let root = members(q.as_ref(), p, &Array2::eye(N)) - members(q.as_ref(), p, &Array2::zeros((1, N)));
            let matrix = nalgebra::DMatrix::from_fn(N, N, |i, j| root[[i, j]]);
            let entropy = matrix.determinant().abs().ln() + 0.5 * N as f64 * (std::f64::consts::TAU.ln() + 1.0);
            assert!((q.entropy(p) - entropy).abs() < 1e-12, "{name}: {} {entropy}", q.entropy(p));
            assert!(gap(&normal.covariance(), root.t().dot(&root), 1.0) < 1e-12, "{name}");
        }
    }
}

#[test]
fn draws_that_all_diverged_move_nothing() {
    for (_, q) in families() {
        let lost = Moments { count: 3, diverged: 3, pattern: PatternSums::Diagonal, ..Moments::default() };
        let mut gradient = vec![f64::NAN; q.units().len()];
        q.pull_back(&[lost.clone(), lost], Estimator::Path, &mut gradient);
        assert!(gradient.iter().all(|g| *g == 0.0));
    }
}

#[test]
fn families_refuse_bad_input() {
    let (one, std) = (array![[1.0, 2.0]], array![[1.0, 1.0]]);
    let lower = |v: f64| array![[[1.0, v], [0.5, 1.0]]];
    assert!(FullRank::new(one.clone(), lower(0.0)).is_ok());
    assert!(FullRank::new(one.clone(), lower(0.1)).is_err());
    assert!(FullRank::new(array![[1.0]], lower(0.0)).is_err());
    assert!(FullRank::new(array![[1.0, f64::NAN]], lower(0.0)).is_err());
    assert!(FullRank::new(one.clone(), -lower(0.0)).is_err());
    let factor = Array3::zeros((1, 2, 1));
    assert!(LowRank::new(&one, &std, &factor, std.clone()).is_ok());
    assert!(LowRank::new(&one, &std, &Array3::zeros((1, 2, 0)), std.clone()).is_err());
    assert!(LowRank::new(&one, &array![[1.0, 0.0]], &factor, std.clone()).is_err());
    assert!(LowRank::new(&one, &std, &Array3::zeros((1, 3, 1)), std.clone()).is_err());
}

// ---------------------------------------------------------------------------------------------------------------
// Exact posteriors
// ---------------------------------------------------------------------------------------------------------------

fn fit(problem: &Problem, settings: ViSettings) -> Analysis {
    let engine = Engine::cpu(Precision::F64).unwrap();
    settings.run(problem, &engine, &mut Silent).unwrap().remove(0)
}

/// Whatever the fit starts from: the Laplace approximation is the posterior itself here, a fit from it must stay; one from
/// the background has to find it. Where q is the posterior the path estimator has no noise at all.
#[test]
fn full_rank_and_low_rank_reach_the_exact_posterior() {
    for n in [16, 40] {
        for full in [false, true] {
            let problem = linear(n, 1, full);
            let exact = exact(&problem);
            let observed = problem.assimilated_count(0);
            for (family, rank) in [(Family::FullRank, 1), (Family::LowRank, observed)] {
                if family == Family::LowRank && full {
                    continue; // The precision of a correlated B is no diagonal plus a low rank.
                }
                for start in [InitialFit::Laplace, InitialFit::Background] {
                    let settings = ViSettings {
                        family,
                        rank,
                        start: Some(start),
                        iterations: 3000,
                        learning_rate: 0.02,
                        ..ViSettings::default()
                    };
                    let a = fit(&problem, settings);
                    let label = format!("{n} sites, full B {full}, {family:?} from {start:?}: {}", a.summary);
                    let off = gap(&record(&a, "variational_mean"), exact.mean.iter().copied(), 1.0);
                    assert!(off < 2e-3, "{label}: mean off by {off:e}");
                    let off = gap(&record(&a, "variational_covariance"), exact.covariance.iter().copied(), 1.0);
                    assert!(off < 4e-3, "{label}: covariance off by {off:e}");
                    let (elbo, error) = (number(&a, "final_elbo"), number(&a, "final_elbo_error"));
                    assert!((elbo - exact.log_evidence).abs() < 4.0 * error + 1e-3, "{label}");
                    assert!((number(&a, "iwae") - exact.log_evidence).abs() < 1e-3, "{label}");
                }
            }
        }
    }
}

#[test]
fn a_low_rank_falls_between_mean_field_and_full_rank() {
    let problem = linear(16, 2, true);
    let elbo = |family, rank| {
        let settings = ViSettings { family, rank, batch: Some(256), estimator: Some(Estimator::Path), ..careful() };
        number(&fit(&problem, settings), "final_elbo")
    };
    let ladder = [
        elbo(Family::MeanField, 1),
        elbo(Family::LowRank, 1),
        elbo(Family::LowRank, 4),
        elbo(Family::LowRank, 16),
        elbo(Family::FullRank, 1),
    ];
    assert!(ladder.windows(2).all(|pair| pair[1] > pair[0] - 0.02), "{ladder:?}");
    assert!(ladder[4] > ladder[0] + 0.2, "{ladder:?}");
}

fn careful() -> ViSettings {
    ViSettings { iterations: 2000, learning_rate: 0.02, start: Some(InitialFit::Laplace), ..ViSettings::default() }
}

// ---------------------------------------------------------------------------------------------------------------
// Two modes
// ---------------------------------------------------------------------------------------------------------------

/// One site observed by its square at one time, around a background at zero: two modes. `lean` moves the background
/// towards the right one.
fn two_modes(lean: f64) -> Problem {
    let mut problem = linear(4, 1, false);
    problem.background.mean = array![[lean, 0.0, 0.0, 0.0]];
    problem.background.error = ErrorCovariance::Diagonal(Array2::ones((1, 4)));
    problem.operator.function = PointFunction::Square;
    problem.observations.fill(f64::NAN);
    problem.observations[[0, 0, 0]] = 2.25;
    problem.observation_std.fill(0.4);
    problem.weights.fill(1.0);
    problem
}

/// log p(y) and the mass of x > 0, by quadrature over the observed site; the others know nothing of it.
fn by_quadrature(problem: &Problem) -> (f64, f64) {
    let (y, s, xb) =
        (problem.observations[[0, 0, 0]], problem.observation_std[[0, 0, 0]], problem.background.mean[[0, 0]]);
    let normal = |d: f64, s: f64| (-0.5 * (d / s).powi(2)).exp() / (s * std::f64::consts::TAU.sqrt());
    let step = 1e-4;
    let (mut all, mut right) = (0.0, 0.0);
    for k in -80_000..80_000 {
        let x = (f64::from(k) + 0.5) * step;
        let density = normal(x - xb, 1.0) * normal(x * x - y, s) * step;
        all += density;
        right += if x > 0.0 { density } else { 0.0 };
    }
    (all.ln(), right / all)
}

#[test]
fn a_mixture_finds_both_modes_and_their_weights() {
    for lean in [0.0, 0.3] {
        let problem = two_modes(lean);
        let (evidence, right) = by_quadrature(&problem);
        let a = fit(&problem, ViSettings { family: Family::Mixture, samples: 20_000, ..ViSettings::default() });
        let (weights, means) = (record(&a, "component_weight"), record(&a, "component_mean"));
        assert_eq!(weights.len(), 2, "{}", a.summary);
        let k = usize::from(means[[1, 0]] > 0.0);
        // A Gaussian is not quite the shape of a mode, so that its best weight is not quite its mass.
        assert!((weights[k] - right).abs() < 0.01, "{} {right}: {}", weights[k], a.summary);
        assert!((number(&a, "iwae") - evidence).abs() < 0.01, "{evidence}: {}", a.summary);
        let corrected = ViSettings {
            family: Family::Mixture,
            samples: 20_000,
            corrected: true,
            importance_draws: 200_000,
            ..ViSettings::default()
        };
        let b = fit(&problem, corrected);
        for (a, tolerance) in [(&a, 0.015), (&b, 0.01)] {
            let share = a.samples.iter().step_by(4).filter(|x| **x > 0.0).count() as f64 / 20_000.0;
            assert!((share - right).abs() < tolerance, "{share} {right}");
        }
        // A single Gaussian sits on one of them, and its ELBO lacks the other.
        let single = fit(&problem, ViSettings { family: Family::FullRank, ..ViSettings::default() });
        assert!(number(&single, "final_elbo") < number(&a, "final_elbo") - 0.3, "{}", single.summary);
        // No draw of it comes near the other one, so its k-hat is fine: the other minimum is what gives it away.
        assert!(number(&single, "k_hat") < 0.7, "{}", single.summary);
        assert!(single.summary.contains("trust neither"), "{}", single.summary);
        assert!(a.summary.contains("trust the mean and the spread"), "{}", a.summary);
        eprintln!("a single Gaussian: {}\na mixture: {}", single.summary, a.summary);
    }
}

/// Where most starts find a minimum of their own, there are more modes than were found, and k-hat knows nothing of it.
#[test]
fn a_mixture_of_too_few_starts_says_so() {
    let mut problem = two_modes(0.0);
    problem.observations.fill(2.25);
    problem.window.assimilated_times = 1;
    let of =
        |mixture_starts| fit(&problem, ViSettings { family: Family::Mixture, mixture_starts, ..ViSettings::default() });
    let (few, many) = (of(8), of(300));
    assert!(few.summary.contains("trust neither") && few.summary.contains("there are more"), "{}", few.summary);
    assert_eq!(record(&many, "component_weight").len(), 16, "{}", many.summary);
    assert!(many.summary.contains("trust the mean and the spread"), "{}", many.summary);
    // Sites are independent here, and one of them is the problem of two modes.
    let evidence = 4.0 * by_quadrature(&two_modes(0.0)).0;
    assert!((number(&many, "iwae") - evidence).abs() < 0.02, "{evidence}: {}", many.summary);
}

/// Duplicates and overlaps count once: whatever the number of starts, the weights stay.
#[test]
fn weights_do_not_count_starts() {
    let weights = |mixture_starts| {
        let settings = ViSettings { family: Family::Mixture, mixture_starts, ..ViSettings::default() };
        record(&fit(&two_modes(0.3), settings), "component_weight")
    };
    let (few, many) = (weights(8), weights(200));
    assert!(few.iter().zip(&many).all(|(a, b)| (a - b).abs() < 1e-3), "{few} {many}");
}

/// Tempering notes the ELBO of the whole likelihood, and ends where a fit without it does on a posterior of one mode.
#[test]
fn tempering_ends_at_the_same_fit() {
    let problem = linear(8, 1, false);
    for family in [Family::MeanField, Family::FullRank] {
        let settings = ViSettings {
            family,
            iterations: 3000,
            batch: Some(256),
            learning_rate: 0.02,
            schedule: Some(Schedule::Cosine),
            start: Some(InitialFit::Background),
            ..ViSettings::default()
        };
        let [plain, tempered] = [1, 10].map(|tempering| fit(&problem, ViSettings { tempering, ..settings }));
        let off = gap(&record(&tempered, "variational_mean"), record(&plain, "variational_mean"), 1.0);
        assert!(off < 5e-3, "{family:?}: {off:e}");
        assert!((number(&tempered, "final_elbo") - number(&plain, "final_elbo")).abs() < 0.02);
        // The last iteration of a cold level is worth less than the end, but is the same kind of number.
        let elbo = record(&tempered, "elbo");
        assert!(elbo[1400] < elbo[2999] + 1.0 && elbo[1400] > elbo[2999] - 50.0, "{} {}", elbo[1400], elbo[2999]);
    }
}

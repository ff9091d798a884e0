//! Normalizing flows: their densities against quadrature, where they start, and their fits against exact evidence.
#![cfg(feature = "neural")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/gaussian.rs"]
mod gaussian;

use gaussian::{exact, linear, number, ring_covariance};
use ndarray::{Array1, Array2, Array3, Axis, array};
use vi4dvar::engine::{Engine, Members, Precision, Terms};
use vi4dvar::method::{Silent, ViSettings};
use vi4dvar::posterior::{Family, Flow, FlowSettings, Normal, Posterior, log_normalizer};
use vi4dvar::problem::{ErrorCovariance, ObservationOperator, PointFunction, Problem};
use vi4dvar::random::{Stream, standard_normals};

const FLOWS: [Family; 3] = [Family::RealNvp, Family::Planar, Family::Spline];

/// A Gaussian for each of `problems` problems, all of them different.
fn bases(problems: usize, n: usize) -> Vec<Normal> {
    let base = |p: usize| {
        let mean = Array1::from_shape_fn(n, |i| (i + p) as f64 - 2.0);
        match p % 2 {
            0 => Normal::of_covariance(mean, ring_covariance(n).view()).unwrap(),
            _ => Normal::diagonal(mean, Array1::from_shape_fn(n, |i| 0.3 + 0.4 * i as f64)),
        }
    };
    (0..problems).map(base).collect()
}

/// A flow whose parameters have all moved by about `shift` of their units.
fn shifted(family: Family, settings: &FlowSettings, base: Vec<Normal>, shift: f64) -> Flow {
    let seeds: Vec<u64> = (0..base.len() as u64).map(|p| 40 + p).collect();
    let mut flow = Flow::new(family, settings, base, &seeds).unwrap();
    let units = Array1::from(flow.units());
    for p in 0..seeds.len() {
        let z = standard_normals(seeds[p], Stream::Starts, 7, 0..1, units.len()).remove_axis(Axis(0));
        flow.row_mut(p).zip_mut_with(&(z * &units), |v, z| *v += shift * z);
    }
    flow
}

#[test]
fn a_flow_starts_as_its_gaussian() {
    for (family, problems) in FLOWS.into_iter().flat_map(|f| [(f, 1), (f, 3)]) {
        for n in [4, 7] {
            let base = bases(problems, n);
            let flow = shifted(family, &FlowSettings::default(), base.clone(), 0.0);
            assert_eq!((flow.problems(), flow.control()), (problems, n));
            for (p, base) in base.iter().enumerate() {
                let (got, want) = (flow.draw(p, 3, Stream::Posterior, 5..25), base.draw(3, Stream::Posterior, 5..25));
                let worst = (&got.states - &want.states).iter().fold(0.0f64, |m, d| m.max(d.abs()));
                assert!(worst < 1e-5, "{family:?}: states differ by {worst}");
                let worst = (&got.log_density - &want.log_density).iter().fold(0.0f64, |m, d| m.max(d.abs()));
                assert!(worst < 1e-5, "{family:?}: log q differs by {worst}");
            }
        }
    }
}

#[test]
fn the_density_of_a_draw_is_found_from_its_state() {
    for (family, problems) in FLOWS.into_iter().flat_map(|f| [(f, 1), (f, 3)]) {
        for (n, bound) in [(4, 1e-6), (40, 1e-5)] {
            let flow = shifted(family, &FlowSettings::default(), bases(problems, n), 0.1);
            for p in 0..problems {
                let draws = flow.draw(p, 9, Stream::Importance, 0..2000);
                let again = flow.log_density(p, draws.states.view());
                let worst = (&again - &draws.log_density).iter().fold(0.0f64, |m, d| m.max(d.abs()));
                eprintln!("{family:?}, {n} sites: {worst:.1e}");
                assert!(worst < bound, "{family:?}, {n} sites: log q differs by {worst}");
                let gaussian = &bases(problems, n)[p];
                let far = (gaussian.log_density(draws.states.view()) - &draws.log_density).std(0.0);
                assert!(far > 0.1, "{family:?}: the flow is still its Gaussian");
            }
        }
    }
}

/// With two sites quadrature sees all of q: its mass is 1, and the draws have its moments.
#[test]
fn a_density_has_mass_one_and_the_moments_of_its_draws() {
    for family in FLOWS {
        let settings = FlowSettings { width: 16, ..FlowSettings::default() };
        let base = Normal::of_covariance(array![0.5, -1.0], array![[1.0, 0.4], [0.4, 0.5]].view()).unwrap();
        let flow = shifted(family, &settings, vec![base], 0.15);
        let draws = flow.draw(0, 5, Stream::Posterior, 0..40_000).states;
        let (mean, std) = (draws.mean_axis(Axis(0)).unwrap(), draws.std_axis(Axis(0), 1.0));
        let (points, reach) = (500, 9.0);
        let at = |k: usize, i: usize| mean[i] + std[i] * reach * (2.0 * (k as f64 + 0.5) / points as f64 - 1.0);
        let grid =
            Array2::from_shape_fn((points * points, 2), |(k, i)| at(if i == 0 { k / points } else { k % points }, i));
        let cell = (2.0 * reach / points as f64).powi(2) * std.product();
        let weight = flow.log_density(0, grid.view()).mapv(f64::exp) * cell;
        assert!((weight.sum() - 1.0).abs() < 2e-3, "{family:?}: a mass of {}", weight.sum());
        for i in 0..2 {
            let x = grid.column(i);
            let moment = |k: i32| (&x.mapv(|x| ((x - mean[i]) / std[i]).powi(k)) * &weight).sum();
            let of_draws = |k: i32| draws.column(i).mapv(|x| ((x - mean[i]) / std[i]).powi(k)).mean().unwrap();
            for k in 1..=3 {
                // Standard errors of 0.005, 0.007 and some 0.03.
                let (got, want) = (of_draws(k), moment(k));
                assert!((got - want).abs() < 0.05 * f64::from(k), "{family:?}, site {i}, moment {k}: {got} and {want}");
            }
        }
    }
}

#[test]
fn draws_do_not_depend_on_those_around_them() {
    for family in FLOWS {
        let flow = shifted(family, &FlowSettings::default(), bases(1, 6), 0.3);
        let (all, some) = (flow.draw(0, 7, Stream::Posterior, 0..3000), flow.draw(0, 7, Stream::Posterior, 2000..2003));
        // Networks in f32 round by the size of a batch.
        let states = &all.states.slice(ndarray::s![2000..2003, ..]) - &some.states;
        let log_density = &all.log_density.slice(ndarray::s![2000..2003]) - &some.log_density;
        assert!(states.iter().chain(&log_density).all(|d| d.abs() < 1e-5), "{family:?}: {states} {log_density}");
        assert_eq!(flow.draw(0, 7, Stream::Posterior, 3..3).states.dim(), (0, 6));
    }
}

#[test]
fn flows_refuse_what_cannot_work() {
    let settings = FlowSettings::default();
    assert!(Flow::new(Family::FullRank, &settings, bases(1, 4), &[1]).is_err());
    assert!(Flow::new(Family::RealNvp, &settings, bases(2, 4), &[1]).is_err());
    assert!(Flow::new(Family::RealNvp, &settings, bases(1, 1), &[1]).is_err());
    assert!(Flow::new(Family::RealNvp, &settings, Vec::new(), &[]).is_err());
    for wrong in [
        FlowSettings { layers: 0, ..settings },
        FlowSettings { width: 0, ..settings },
        FlowSettings { hidden: 17, ..settings },
    ] {
        assert!(Flow::new(Family::RealNvp, &wrong, bases(1, 4), &[1]).is_err());
        assert!(ViSettings { flow: wrong, ..ViSettings::default() }.check().is_err());
    }
    // Each of them is in its range; together they would need terabytes.
    let huge = FlowSettings { layers: 1000, width: 4096, hidden: 16 };
    let problem = linear(4, 1, false);
    let settings = ViSettings { family: Family::RealNvp, flow: huge, ..ViSettings::default() };
    let refused = settings.run(&problem, &Engine::cpu(Precision::F64).unwrap(), &mut Silent);
    assert!(refused.is_err_and(|e| e.to_string().contains("--flow-width")));
}

/// The ELBO of problem 0 and its standard error, from 20,000 draws and the engine's costs.
fn elbo(q: &dyn Posterior, problem: &Problem, engine: &Engine, p: usize) -> (f64, f64) {
    let draws = q.draw(p, 123, Stream::Importance, 0..20_000);
    let one = problem.select(&[p]);
    let costs = engine.load(&one).unwrap().cost(Members::Given(draws.states.view()), Terms::ALL).unwrap();
    assert!(!costs.diverged.contains(&true));
    let weights = log_normalizer(problem, p) - costs.total() - draws.log_density;
    (weights.mean().unwrap(), weights.std(1.0) / (weights.len() as f64).sqrt())
}

/// Started from a mean field of one and a half times the exact deviations, the posterior being correlated.
fn reaches_the_evidence(family: Family, n: usize, settings: ViSettings) {
    let (problem, engine) = (linear(n, 1, true), Engine::cpu(Precision::F64).unwrap());
    let exact = exact(&problem);
    let mean = Array1::from_iter(exact.mean.iter().copied());
    let std = Array1::from_shape_fn(n, |i| 1.5 * exact.covariance[(i, i)].sqrt());
    let base = Normal::diagonal(mean, std);
    let start = Flow::new(family, &settings.flow, vec![base.clone()], &problem.seeds).unwrap();
    let (before, _) = elbo(&start, &problem, &engine, 0);
    let clock = std::time::Instant::now();
    let flow = settings.fit_flow_from(&problem, &engine, vec![base], &mut Silent).unwrap();
    let (after, error) = elbo(&flow, &problem, &engine, 0);
    let gap = exact.log_evidence - after;
    eprintln!(
        "{family:?}: gap {:.3} before, {gap:.4} +- {error:.4} after {:?}",
        exact.log_evidence - before,
        clock.elapsed()
    );
    assert!(exact.log_evidence - before > 1.0, "the start is too good to tell");
    assert!(gap < 0.05 && gap > -4.0 * error, "{family:?}: {gap} +- {error} below the evidence");
}

#[test]
fn realnvp_reaches_the_evidence_of_a_linear_problem() {
    let settings = ViSettings { family: Family::RealNvp, iterations: 600, ..ViSettings::default() };
    reaches_the_evidence(Family::RealNvp, 16, settings);
}

#[test]
fn splines_reach_the_evidence_of_a_linear_problem() {
    let settings = ViSettings { family: Family::Spline, iterations: 500, ..ViSettings::default() };
    reaches_the_evidence(Family::Spline, 16, settings);
}

/// As users run them, from the full-rank fit: that is exact here, and the layers must not leave it.
#[test]
fn flows_keep_the_evidence_of_their_gaussian() {
    for (n, family) in [16, 40].into_iter().flat_map(|n| FLOWS.map(|family| (n, family))) {
        let problem = linear(n, 1, true);
        let settings = ViSettings { family, iterations: 100, importance_draws: 20_000, ..ViSettings::default() };
        let fit = settings.run(&problem, &Engine::cpu(Precision::F64).unwrap(), &mut Silent).unwrap().remove(0);
        let gap = exact(&problem).log_evidence - number(&fit, "final_elbo");
        eprintln!("{n} sites, {family:?}: {gap:.4} nats below the evidence");
        assert!(gap.abs() < 0.05, "{n} sites, {family:?}: {gap}; {}", fit.summary);
    }
}

/// Couples of sites of which the mean square is observed: a posterior along an arc, for x_b at some distance from 0.
fn arcs(problems: usize) -> Problem {
    let mut problem = linear(4, 1, false);
    problem.background.mean =
        Array2::from_shape_fn((problems, 4), |(p, i)| if i % 2 == 0 { 1.2 + 0.1 * p as f64 } else { 0.0 });
    problem.background.error = ErrorCovariance::Diagonal(Array2::ones((1, 4)));
    problem.operator = ObservationOperator { function: PointFunction::Square, block_size: 2 };
    problem.observations = Array3::from_elem((1, 1, 2), 1.0);
    problem.observation_std = Array3::from_elem((1, 1, 2), 0.15);
    problem.weights = array![[1.0]];
    problem.seeds = (0..problems as u64).map(|p| 60 + p).collect();
    problem
}

/// log p(y) of problem `p` of [`arcs`] by quadrature, for couples are independent.
fn arcs_evidence(problem: &Problem, p: usize) -> f64 {
    let (points, reach) = (1200, 6.0);
    let at = |k: usize| reach * (2.0 * (k as f64 + 0.5) / points as f64 - 1.0);
    let normal =
        |x: f64, mean: f64, std: f64| (-0.5 * ((x - mean) / std).powi(2)).exp() / (std * std::f64::consts::TAU.sqrt());
    let mean = problem.background.mean.row(p);
    let couple = |j: usize| {
        let mut sum = 0.0;
        for (a, b) in (0..points).flat_map(|a| (0..points).map(move |b| (at(a), at(b)))) {
            sum += normal(a, mean[2 * j], 1.0)
                * normal(b, mean[2 * j + 1], 1.0)
                * normal(0.5 * (a * a + b * b), 1.0, 0.15);
        }
        (sum * (2.0 * reach / points as f64).powi(2)).ln()
    };
    couple(0) + couple(1)
}

#[test]
fn flows_follow_an_arc_that_no_gaussian_can() {
    let (problem, engine) = (arcs(2), Engine::cpu(Precision::F64).unwrap());
    let evidence: Vec<f64> = (0..2).map(|p| arcs_evidence(&problem, p)).collect();
    let gaps = |family: Family| -> Vec<f64> {
        let layers = if family == Family::Planar { 24 } else { 8 };
        let flow = FlowSettings { layers, ..FlowSettings::default() };
        let settings = ViSettings { family, iterations: 400, importance_draws: 20_000, flow, ..ViSettings::default() };
        let analyses = settings.run(&problem, &engine, &mut Silent).unwrap();
        analyses.iter().zip(&evidence).map(|(a, e)| e - number(a, "final_elbo")).collect()
    };
    let gaussian = gaps(Family::FullRank);
    assert!(gaussian.iter().all(|gap| *gap > 0.5), "a Gaussian does too well: {gaussian:?}");
    for (family, share) in [(Family::RealNvp, 0.25), (Family::Planar, 0.75), (Family::Spline, 0.25)] {
        let flow = gaps(family);
        eprintln!("{family:?}: {flow:.3?} below the evidence, a Gaussian {gaussian:.3?}");
        for (flow, gaussian) in flow.iter().zip(&gaussian) {
            assert!(
                *flow > -0.05 && *flow < share * gaussian,
                "{family:?}: {flow} below the evidence, a Gaussian {gaussian}"
            );
        }
    }
}

//! The rows of a validation, each a function from the engine to a figure and its threshold.

use super::oracle::{self, Oracle};
use super::subject::{
    Measured, Run, Subject, differing, draw, draws, error, error_of_pattern, error_of_sums, members, normals, problem,
    true_gradients, twin, worse,
};
use crate::engine::{AffineMap, Draw, Engine, LoadedProblem, Members, Scale, Terms};
use crate::error::{Error, Result};
use crate::experiment::TwinSettings;
use crate::problem::{PointFunction, Problem};
use crate::random::Stream;
use ndarray::{Array2, Array3, Axis};

/// All rows but the last, in their order: from one step to whole batches.
pub(super) const ALL: &[(&str, Run)] = &[
    ("one step", one_step),
    ("short window", short_window),
    ("cost", cost),
    ("gradient", gradient),
    ("whole control", whole_control),
    ("dot product", dot_product),
    ("Taylor remainder", taylor_remainder),
    ("random stream", random_stream),
    ("ELBO gradient", elbo_gradient),
    ("reductions", reductions),
    ("chunk invariance", chunk_invariance),
    ("segment invariance", segment_invariance),
    ("beyond the loop limit", beyond_the_loop_limit),
    ("divergence flags", divergence_flags),
    ("largest buffers", largest_buffers),
];

/// States alone in an invocation's registers, states shared by lanes; odd sizes and averages; every model.
fn twins(times: usize) -> Vec<TwinSettings> {
    let mut twins = vec![
        twin(4, times, 2, 0.05, PointFunction::Identity),
        twin(13, times, 1, 0.05, PointFunction::Cubic),
        twin(16, times, 1, 0.05, PointFunction::Square),
        twin(40, times, 1, 0.05, PointFunction::Softplus),
        twin(128, times, 1, 0.05, PointFunction::Square),
        twin(3, times, 2, 0.02, PointFunction::Square),
    ];
    twins[2].background_correlation = 2.0;
    twins[3].block_size = 4;
    twins
}

/// The worst figure over the twins, but those that the kernel does not take.
fn worst(settings: Vec<TwinSettings>, mut figure: impl FnMut(&Problem) -> Result<f64>) -> Result<f64> {
    let (mut worst, mut refused, mut ran) = (0.0, None, 0);
    for settings in settings {
        match figure(&problem(&settings)?) {
            Ok(figure) => (worst, ran) = (worse(figure, worst), ran + 1),
            // A kernel asked for by name takes some sizes.
            Err(error @ Error::Invalid { .. }) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    match refused {
        Some(error) if ran == 0 || !matches!(&error, Error::Invalid { what, .. } if what.starts_with("kernel")) => {
            Err(error)
        }
        _ => Ok(worst),
    }
}

fn trajectories(subject: &Subject, problem: &Problem) -> Result<f64> {
    let members = members(problem, 65);
    let got = subject.load(problem)?.forecast(Members::Given(members.view()))?;
    let oracle = Oracle::<f64>::new(problem, 0);
    let want = members.rows().into_iter().flat_map(|x0| oracle.trajectory(&x0.to_vec()).concat());
    Ok(error(&got, &want.collect::<Vec<_>>()))
}

fn one_step(subject: &Subject) -> Result<Measured> {
    let settings = twins(2).into_iter().map(|t| TwinSettings { steps_per_time: 1, ..t }).collect();
    let figure = worst(settings, |problem| trajectories(subject, problem))?;
    Ok(Measured::new(figure, subject.bound(2e-6, 1e-14), "largest error of a state, 3 to 128 sites"))
}

fn short_window(subject: &Subject) -> Result<Measured> {
    let figure = worst(twins(13), |problem| trajectories(subject, problem))?;
    Ok(Measured::new(figure, subject.bound(5e-5, 1e-11), "largest error of a state over 0.5 to 1.2 time units"))
}

fn cost(subject: &Subject) -> Result<Measured> {
    let figure = worst(twins(13), |problem| {
        let members = members(problem, 65);
        let got = subject.load(problem)?.cost(Members::Given(members.view()), Terms::ALL)?;
        let oracle = Oracle::<f64>::new(problem, 0);
        let want: Vec<_> = members.rows().into_iter().map(|x0| oracle.cost(&x0.to_vec())).collect();
        let background: Vec<_> = want.iter().map(|c| c.background).collect();
        let observation: Vec<_> = want.iter().map(|c| c.observation).collect();
        Ok(worse(error(&got.background, &background), error(&got.observation, &observation)))
    })?;
    Ok(Measured::new(
        figure,
        subject.bound(5e-5, 1e-11),
        "largest error of J_b and J_o, every operator, full and diagonal B",
    ))
}

fn gradients(subject: &Subject, problem: &Problem) -> Result<f64> {
    let members = members(problem, 17);
    let got = subject.load(problem)?.gradient(Members::Given(members.view()), Terms::ALL)?;
    let (want, _) = true_gradients::<f64>(problem, &members);
    Ok(error(&got.gradient, &want))
}

fn gradient(subject: &Subject) -> Result<Measured> {
    let figure = worst(twins(13), |problem| gradients(subject, problem))?;
    Ok(Measured::new(
        figure,
        subject.bound(5e-5, 1e-11),
        "largest error of dJ/dx0, every operator, full and diagonal B",
    ))
}

/// Errors of the model before stored times and between them, a diagonal and a full Q, estimated parameters.
fn whole_control(subject: &Subject) -> Result<Measured> {
    let base = |sites: usize, steps: usize| TwinSettings {
        model_error_std: Some(0.2),
        ..twin(sites, 7, steps, 0.05 / steps as f64, PointFunction::Square)
    };
    let estimated = |twin: TwinSettings| TwinSettings {
        parameter_std: twin.model.parameter_names().iter().map(|name| (*name, 0.5)).collect(),
        ..twin
    };
    let settings = vec![
        base(16, 1),
        TwinSettings { model_error_interval: Some(2), ..estimated(base(13, 3)) },
        TwinSettings { model_error_correlation: 2.0, ..estimated(base(40, 1)) },
        TwinSettings { model_error_std: None, background_correlation: 2.0, ..estimated(base(16, 1)) },
        estimated(base(3, 1)),
        TwinSettings { model_error_interval: Some(2), model_error_correlation: 2.0, ..estimated(base(3, 3)) },
    ];
    let figure = worst(settings, |problem| gradients(subject, problem))?;
    Ok(Measured::new(
        figure,
        subject.bound(5e-5, 1e-11),
        "largest error of dJ/dcontrol, with model errors and estimated parameters",
    ))
}

/// <w, M v> against <M' w, v>, both from the engine's own kernels.
fn dot_product(subject: &Subject) -> Result<Measured> {
    let figure = worst(twins(13), |problem| {
        let (rows, sites, times) = (5, problem.sites(), problem.window.times);
        let members = members(problem, rows);
        let given = Members::Given(members.view());
        let v = normals(rows, sites, 78);
        let w = normals(rows, times * sites, 79);
        let mut loaded = subject.load(problem)?;
        let forcing = Array3::from_shape_vec((rows, times, sites), w.iter().copied().collect()).expect("as many");
        let forward = loaded.tangent(given, v.view())?;
        let back = loaded.adjoint(given, forcing.view())?;
        let mut worst = 0.0;
        for k in 0..rows {
            let dot = |a: &mut dyn Iterator<Item = (&f64, &f64)>| -> f64 { a.map(|(a, b)| a * b).sum() };
            let (f, w) = (forward.index_axis(Axis(0), k), forcing.index_axis(Axis(0), k));
            let (b, v) = (back.row(k), v.row(k));
            let size = |a: &mut dyn Iterator<Item = &f64>| -> f64 { a.map(|a| a * a).sum::<f64>().sqrt() };
            let scale = (size(&mut w.iter()) * size(&mut f.iter())).max(size(&mut b.iter()) * size(&mut v.iter()));
            let gap = dot(&mut f.iter().zip(&w)) - dot(&mut b.iter().zip(&v));
            worst = worse(gap.abs() / scale, worst);
        }
        Ok(worst)
    })?;
    Ok(Measured::new(figure, subject.bound(2e-5, 1e-12), "<w, M v> - <M'w, v> over the lengths of its parts"))
}

/// J(x + a v) - J(x) - a <g, v> falls with the square of a.
fn taylor_remainder(subject: &Subject) -> Result<Measured> {
    let (large, small) = (subject.bound(0.02, 1e-3), subject.bound(0.004, 1e-4));
    let figure = worst(vec![twin(40, 9, 1, 0.05, PointFunction::Square)], |problem| {
        let x = members(problem, 16);
        let v = normals(16, problem.sites(), 80);
        let mut loaded = subject.load(problem)?;
        let at_x = loaded.gradient(Members::Given(x.view()), Terms::ALL)?;
        let (cost, slope) = (at_x.costs.total(), (&at_x.gradient * &v).sum_axis(Axis(1)));
        let mut remainder = |a: f64| -> Result<f64> {
            let moved = &x + &(&v * a);
            let moved = loaded.cost(Members::Given(moved.view()), Terms::ALL)?.total();
            Ok((moved - &cost - &slope * a).mapv(f64::abs).sum())
        };
        let order = (remainder(large)? / remainder(small)?).ln() / (large / small).ln();
        Ok((order - 2.0).abs())
    })?;
    let meaning = format!("distance from 2 of the order at which J(x + a v) nears its tangent, a {large} and {small}");
    Ok(Measured::new(figure, subject.bound(0.1, 0.02), meaning))
}

/// The normals of a few members: seed 0x0123456789ABCDEF, posterior stream, iteration 7. By the
/// definition in `random`, evaluated in 50 digits.
const KNOWN_NORMALS: &[(u32, [f64; 8])] = &[
    (
        0,
        [
            -0.1922089207,
            0.7635111499,
            -0.2636939553,
            0.8565076995,
            -0.09744759995,
            1.252989709,
            -0.1103276928,
            0.04194572046,
        ],
    ),
    (
        1,
        [0.6217221099, -1.982881285, 0.9063267276, -1.245764986, -1.424516095, -1.157136934, 1.00964521, -0.1880911337],
    ),
    (
        63,
        [
            1.478242653,
            1.583840218,
            -0.8404299737,
            -0.8215529012,
            0.4587839229,
            0.08310722062,
            -0.006895972156,
            -1.810558134,
        ],
    ),
    (
        69999,
        [
            -0.1741656373,
            -0.1438142827,
            0.4767410175,
            0.6015843369,
            -1.940504359,
            -0.6702418412,
            -0.6777130496,
            -1.665507873,
        ],
    ),
];

fn random_stream(subject: &Subject) -> Result<Measured> {
    let seed = 0x0123_4567_89AB_CDEF;
    let mut problem = problem(&twin(8, 1, 1, 0.05, PointFunction::Identity))?;
    problem.seeds = vec![seed];
    let (count, iteration, stream) = (70_000, 7, Stream::Posterior);
    let map = AffineMap { mean: Array2::zeros((1, 8)), scale: Scale::Diagonal(Array2::ones((1, 8))) };
    let got = subject.load(&problem)?.forecast(Members::Drawn(&Draw { map, stream, iteration, count }))?;
    let mut worst = 0u32;
    for (member, known) in KNOWN_NORMALS {
        let row = got.index_axis(Axis(0), *member as usize);
        worst = row.iter().zip(known).map(|(a, b)| ulps(*a, *b)).fold(worst, u32::max);
    }
    for member in (0..count).step_by(997) {
        let want = oracle::normals(seed, stream as u32, iteration, member as u32, 8);
        let row = got.index_axis(Axis(0), member);
        worst = row.iter().zip(&want).map(|(a, b)| ulps(*a, *b)).fold(worst, u32::max);
    }
    let meaning = "units in the last place of f32 from known normals and from exact ones, 70,000 members";
    Ok(Measured::new(f64::from(worst), 6.0, meaning))
}

/// Units in the last place between two numbers of f32; huge for anything not finite.
fn ulps(a: f64, b: f64) -> u32 {
    let key = |v: f64| {
        let bits = (v as f32).to_bits() as i32;
        i64::from(if bits < 0 { i32::MIN - bits } else { bits })
    };
    if a.is_finite() && b.is_finite() { key(a).abs_diff(key(b)).min(u64::from(u32::MAX)) as u32 } else { u32::MAX }
}

/// A member's eps, from a draw with m = 0 and S = 1.
fn epsilons(loaded: &mut LoadedProblem, of: &Draw) -> Result<Array2<f64>> {
    let shape = of.map.mean.raw_dim();
    let map = AffineMap { mean: Array2::zeros(shape), scale: Scale::Diagonal(Array2::ones(shape)) };
    Ok(loaded.forecast(Members::Drawn(&Draw { map, ..of.clone() }))?.index_axis(Axis(1), 0).to_owned())
}

fn rows_of(array: &Array2<f64>) -> Vec<Vec<f64>> {
    array.rows().into_iter().map(|row| row.to_vec()).collect()
}

fn elbo_gradient(subject: &Subject) -> Result<Measured> {
    let figure = worst(twins(13), |problem| {
        let mut loaded = subject.load(problem)?;
        let mut worst = 0.0;
        for drawn in draws(problem, if problem.sites() > 64 { 17 } else { 300 }) {
            let eps = rows_of(&epsilons(&mut loaded, &drawn)?);
            let members = loaded.forecast(Members::Drawn(&drawn))?.index_axis(Axis(1), 0).to_owned();
            let got = loaded.moments(&drawn, Terms::ALL)?;
            let (gradients, costs) = true_gradients::<f64>(problem, &members);
            let gradients = rows_of(&gradients);
            worst = worse(error_of_sums(&got[0], &oracle::sums(&costs, &gradients, &eps)), worst);
            let pattern = oracle::pattern_sums(&drawn.map.scale, 0, &gradients, &eps);
            worst = worse(error_of_pattern(&got[0], &pattern), worst);
        }
        Ok(worst)
    })?;
    let meaning = "largest error of the sums over members drawn by diagonal, triangular and low-rank scales";
    Ok(Measured::new(figure, subject.bound(2e-4, 1e-11), meaning))
}

/// Sums over more blocks than one run of them, against the same engine's gradients added up in f64.
fn reductions(subject: &Subject) -> Result<Measured> {
    let problem = problem(&twin(4, 3, 1, 0.05, PointFunction::Square))?;
    let drawn = draw(&problem, 70_001);
    let mut loaded = subject.load(&problem)?;
    let eps = epsilons(&mut loaded, &drawn)?;
    let own = loaded.gradient(Members::Drawn(&drawn), Terms::ALL)?;
    let got = loaded.moments(&drawn, Terms::ALL)?;
    let costs: Vec<_> = own.costs.background.iter().copied().zip(own.costs.observation.iter().copied()).collect();
    let want = oracle::sums(&costs, &rows_of(&own.gradient), &rows_of(&eps));
    let bound = subject.bound(5e-6, 1e-12);
    Ok(Measured::new(error_of_sums(&got[0], &want), bound, "largest error of sums over 70,001 members"))
}

/// Gradients, costs and sums of a batch on two engines: how many numbers differ.
fn differences(a: &Engine, b: &Engine, problem: &Problem, drawn: &Draw) -> Result<f64> {
    let run = |engine: &Engine| -> Result<Vec<f64>> {
        let mut loaded = engine.load(problem)?;
        let gradients = loaded.gradient(Members::Drawn(drawn), Terms::ALL)?;
        let mut all = Vec::new();
        for drawn in draws(problem, drawn.count) {
            let sums = loaded.moments(&drawn, Terms::ALL)?.remove(0);
            all.extend([sums.cost_background, sums.cost_observation, sums.cost_deviation]);
            all.extend(
                sums.gradient.iter().chain(&sums.gradient_squared).chain(&sums.epsilon).chain(&sums.gradient_epsilon),
            );
            all.extend(sums.pattern.arrays().into_iter().flatten());
        }
        all.extend(gradients.costs.background.iter().chain(&gradients.costs.observation).chain(&gradients.gradient));
        Ok(all)
    };
    Ok(differing(&run(a)?, &run(b)?))
}

fn chunk_invariance(subject: &Subject) -> Result<Measured> {
    let problem = problem(&twin(16, 12, 1, 0.05, PointFunction::Square))?;
    let figure = differences(&subject.engine, &subject.cut_small(1)?, &problem, &draw(&problem, 10_000))?;
    let meaning = format!("numbers of 10,000 members that differ {}", cut_name(subject));
    Ok(Measured::new(figure, 0.0, meaning))
}

fn cut_name(subject: &Subject) -> &'static str {
    if subject.on_cpu() { "on one thread" } else { "when little memory cuts them small" }
}

fn segment_invariance(subject: &Subject) -> Result<Measured> {
    let problem = problem(&twin(40, 5, 500, 5e-4, PointFunction::Identity))?;
    let figure = differences(&subject.engine, &subject.cut_small(4)?, &problem, &draw(&problem, 70))?;
    let meaning = format!("numbers of 70 members over 2,000 steps that differ {}", cut_name(subject));
    Ok(Measured::new(figure, 0.0, meaning))
}

/// More steps than Mesa's software Vulkan runs loop iterations in one invocation: it drops the rest in silence.
fn beyond_the_loop_limit(subject: &Subject) -> Result<Measured> {
    let problem = problem(&twin(8, 8, 10_000, 2e-5, PointFunction::Identity))?;
    let members = members(&problem, 2);
    let got = subject.load(&problem)?.gradient(Members::Given(members.view()), Terms::ALL)?.gradient;
    let (want, _) = true_gradients::<f64>(&problem, &members);
    let bound = subject.bound_by_plain_f32(|| error(&true_gradients::<f32>(&problem, &members).0, &want));
    Ok(Measured::new(error(&got, &want), bound, "largest error of dJ/dx0 over 70,000 steps"))
}

/// Members far out of range among sound ones: flagged, and the others as if they were not there.
fn divergence_flags(subject: &Subject) -> Result<Measured> {
    let problem = problem(&twin(16, 12, 1, 0.05, PointFunction::Square))?;
    let sound = members(&problem, 130);
    let mut mixed = sound.clone();
    let wild = |k: usize| k % 7 == 3;
    for k in (0..130).filter(|k| wild(*k)) {
        mixed.row_mut(k).mapv_inplace(|v| v * 1e12);
    }
    let mut loaded = subject.load(&problem)?;
    let want = loaded.gradient(Members::Given(sound.view()), Terms::ALL)?;
    let got = loaded.gradient(Members::Given(mixed.view()), Terms::ALL)?;
    let mut wrong = 0.0;
    for k in 0..130 {
        wrong += f64::from(u8::from(got.costs.diverged[k] != wild(k)));
        if !wild(k) {
            wrong += differing(got.gradient.row(k), want.gradient.row(k));
        }
    }
    let mut far = draw(&problem, 1000);
    far.map.scale = Scale::Diagonal(Array2::from_elem((1, 16), 1e20));
    let sums = loaded.moments(&far, Terms::ALL)?.remove(0);
    wrong += (sums.count - sums.diverged) as f64 + f64::from(u8::from(sums.gradient.iter().any(|g| *g != 0.0)));
    Ok(Measured::new(wrong, 0.0, "wrong flags, and sound members that wild neighbours changed"))
}

/// As many members at a time as memory allows, against the CPU engine in f64.
fn largest_buffers(subject: &Subject) -> Result<Measured> {
    let problem = problem(&twin(16, 2, 1, 0.05, PointFunction::Square))?;
    let drawn = draw(&problem, 3_000_000);
    let got = subject.load(&problem)?.moments(&drawn, Terms::ALL)?.remove(0);
    let want = Engine::cpu(crate::engine::Precision::F64)?.load(&problem)?.moments(&drawn, Terms::ALL)?.remove(0);
    let sums = oracle::Sums {
        cost_background: want.cost_background,
        cost_observation: want.cost_observation,
        cost_deviation: want.cost_deviation,
        gradient: want.gradient,
        gradient_squared: want.gradient_squared,
        epsilon: want.epsilon,
        epsilon_squared: want.epsilon_squared,
        gradient_epsilon: want.gradient_epsilon,
    };
    let meaning = format!(
        "largest error of sums over 3,000,000 members, as many at a time as {} MiB hold",
        subject.settings.memory_mib
    );
    Ok(Measured::new(error_of_sums(&got, &sums), subject.bound(2e-4, 1e-11), meaning))
}

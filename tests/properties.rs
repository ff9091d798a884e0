//! Properties that hold for every problem: random ones, on every engine, against the oracle and against themselves.
//!
//! Without more said each run takes the same few problems. `PROPTEST_CASES=2000 cargo test --test properties` takes so many
//! new ones for each property; a problem that fails is made small, printed, and noted in `tests/regressions`, from where each
//! later run repeats it first.

#[allow(dead_code, reason = "each test target uses a part")]
#[path = "common/bench.rs"]
mod bench;
#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use bench::{
    Bench, check_cost, check_gradient, check_moments_of, check_tangent_adjoint, check_trajectory, draw, everything,
    flat_gradients, low_rank, lower, same_bytes, same_everything,
};
use common::{PerProblem, Quantity, Recipe, Report, compare, tolerance};
use ndarray::s;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{
    Config, FailurePersistence, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner,
};
use std::cell::RefCell;
use vi4dvar::engine::{Backend, Engine, EngineSettings, Members, Precision, Terms, adapters};
use vi4dvar::model::Model;
use vi4dvar::problem::PointFunction;

// The problems.

/// What a kernel is made for.
#[derive(Clone, Debug)]
struct Shape {
    model: Model,
    sites: usize,
    block_size: usize,
    function: PointFunction,
    full_background: bool,
    errors: Option<(usize, bool)>,
    estimated: bool,
}

/// Any shape of at most 40 sites, most of them small.
fn shapes() -> impl Strategy<Value = Shape> {
    let sites = prop_oneof![4 => 4..=16usize, 1 => 17..=40usize];
    let lorenz96 = sites.prop_flat_map(|sites| {
        let divisors: Vec<usize> = (1..=sites).filter(|d| sites % d == 0).collect();
        // Most often none: averages hide what happens at a site.
        (Just(Model::Lorenz96), Just(sites), prop_oneof![2 => Just(1), 1 => proptest::sample::select(divisors)])
    });
    let lorenz63 = (Just(Model::Lorenz63), Just(3), proptest::sample::select(vec![1, 1, 3]));
    let function = proptest::sample::select(PointFunction::ALL.to_vec());
    let errors = proptest::option::of((1..=6usize, any::<bool>()));
    (prop_oneof![3 => lorenz96, 1 => lorenz63], function, any::<bool>(), errors, any::<bool>()).prop_map(
        |((model, sites, block_size), function, full_background, errors, estimated)| Shape {
            model,
            sites,
            block_size,
            function,
            full_background,
            errors,
            estimated,
        },
    )
}

/// A window of at most 1.2 time units, over which the bound on rounding is stated (0.48 for Lorenz-63, whose errors grow that much faster):
/// times, how many of them are assimilated, steps, the longest step.
fn windows() -> impl Strategy<Value = (usize, usize, usize, f64)> {
    (1..=13usize, 1..=5usize, 0.002..0.05f64).prop_flat_map(|(times, steps, dt)| {
        let assimilated = prop_oneof![Just(times), 1..=times];
        (Just(times), assimilated, Just(steps), Just(dt))
    })
}

fn stored_once_or_each() -> impl Strategy<Value = PerProblem> {
    any::<[bool; 8]>().prop_map(|own| PerProblem {
        background: own[0],
        deviations: own[1],
        scale: own[2],
        observations: own[3],
        observation_std: own[4],
        weights: own[5],
        parameters: own[6],
        control: own[7],
    })
}

/// A problem set of that shape, and members for each problem.
fn problems(shape: impl Strategy<Value = Shape>, most: usize) -> impl Strategy<Value = (Recipe, usize)> {
    let observed = prop_oneof![1 => Just(0.0), 2 => Just(1.0), 3 => 0.05..0.95f64];
    // From observations ten times as sharp as usual to ten times as dull.
    let noise = (-1.0..1.0f64).prop_map(|power| 10f64.powf(power));
    let set = (prop_oneof![2 => Just(1), 1 => 2..=4usize], stored_once_or_each());
    let members = prop_oneof![3 => 1..=9usize, 1 => 1..=most];
    (shape, windows(), observed, noise, any::<bool>(), set, any::<u32>(), members).prop_map(
        |(
            shape,
            (times, assimilated, steps, dt),
            observed,
            noise,
            weighted,
            (problems, per_problem),
            seed,
            members,
        )| {
            let (errors, steps_in_window) = (shape.errors, (assimilated - 1) * steps);
            let span = if shape.model == Model::Lorenz63 { 0.48 } else { 1.2 };
            let recipe = Recipe {
                model: shape.model,
                seed: u64::from(seed),
                sites: shape.sites,
                times,
                assimilated_times: Some(assimilated),
                steps_per_time: steps,
                dt: dt.min(span / ((times - 1) * steps).max(24) as f64),
                function: shape.function,
                block_size: shape.block_size,
                noise,
                full_background: shape.full_background,
                observed,
                weighted,
                // A window holds at least one error, or there are none.
                errors: errors.map(|(interval, full)| (interval.min(steps_in_window), full)).filter(|e| e.0 > 0),
                estimated: shape.estimated,
                problems,
                per_problem,
            };
            (recipe, members)
        },
    )
}

// Running them.

/// Runs a property over so many problems; panics with the smallest one for which it fails.
fn hold(
    name: &'static str,
    cases: u32,
    problems: impl Strategy<Value = (Recipe, usize)>,
    check: impl Fn(&mut Report, &Recipe, usize),
) {
    let more = std::env::var("PROPTEST_CASES").ok().and_then(|v| v.parse().ok());
    let default = Config::default();
    let path: &'static str = Box::leak(format!("tests/regressions/properties/{name}.txt").into_boxed_str());
    let persistence: Box<dyn FailurePersistence> = Box::new(FileFailurePersistence::Direct(path));
    let config = Config {
        cases: more.unwrap_or(cases),
        // A run of the whole suite says something about the code, not about the day.
        rng_seed: if more.is_some() { default.rng_seed } else { RngSeed::Fixed(1) },
        failure_persistence: Some(persistence),
        max_shrink_iters: 300,
        ..default
    };
    let report = RefCell::new(Report::default());
    let outcome = TestRunner::new(config).run(&problems, |(recipe, members)| {
        check(&mut report.borrow_mut(), &recipe, members);
        let failures = std::mem::take(&mut report.borrow_mut().failures);
        if failures.is_empty() { Ok(()) } else { Err(TestCaseError::fail(failures.join("\n"))) }
    });
    eprint!("{name}\n{}", report.borrow().figures());
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (recipe, members))) => panic!("{members} members of {recipe:?}\n{reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// A machine without an adapter fails here.
fn bench(backend: Backend, precision: Precision) -> Bench {
    let settings = EngineSettings { backend, precision, ..EngineSettings::default() };
    let engine = Engine::new(&settings).unwrap_or_else(|e| panic!("{backend:?} {precision:?}: {e}"));
    Bench { settings, engine, random: true }
}

/// Whether there is an adapter without f64, and none that has it: Metal has no f64 at all.
fn lacks_f64() -> bool {
    let adapters = adapters();
    !adapters.is_empty() && adapters.iter().all(|a| !a.f64)
}

/// Every operation of an engine against the oracle, and sums against those of the oracle's gradients.
fn check_all(bench: &Bench, report: &mut Report, recipe: &Recipe, members: usize) {
    check_trajectory(bench, report, recipe, members);
    check_cost(bench, report, recipe, members);
    check_gradient(bench, report, recipe, members);
    check_tangent_adjoint(bench, report, recipe, members.min(9));
    let problem = recipe.build();
    let plain = draw(recipe, &problem, members, 3);
    let drawn = match recipe.seed % 3 {
        0 => lower(&plain, 1),
        1 => low_rank(&plain, 2),
        _ => plain,
    };
    check_moments_of(bench, report, recipe, &problem, &drawn, Terms::ALL);
}

// The properties.

#[test]
fn cpu_f64_is_the_oracle() {
    let bench = bench(Backend::Cpu, Precision::F64);
    hold("cpu_f64", 150, problems(shapes(), 70), |report, recipe, members| check_all(&bench, report, recipe, members));
}

#[test]
fn cpu_f32_is_the_oracle_within_its_bound() {
    let bench = bench(Backend::Cpu, Precision::F32);
    hold("cpu_f32", 150, problems(shapes(), 70), |report, recipe, members| check_all(&bench, report, recipe, members));
}

/// Few shapes, because software Vulkan takes long to compile; whatever else a problem has is random.
fn few_shapes() -> impl Strategy<Value = Shape> {
    let plain = Shape {
        model: Model::Lorenz96,
        sites: 8,
        block_size: 1,
        function: PointFunction::Square,
        full_background: false,
        errors: None,
        estimated: false,
    };
    let averages =
        Shape { sites: 12, block_size: 3, function: PointFunction::Softplus, full_background: true, ..plain.clone() };
    let control = Shape {
        model: Model::Lorenz63,
        sites: 3,
        errors: Some((1, true)),
        estimated: true,
        function: PointFunction::Identity,
        ..plain.clone()
    };
    proptest::sample::select(vec![plain, averages, control])
}

#[test]
fn gpu_f32_is_the_oracle_within_its_bound() {
    let bench = bench(Backend::Gpu, Precision::F32);
    hold("gpu_f32", 8, problems(few_shapes(), 130), |report, recipe, members| {
        check_all(&bench, report, recipe, members);
    });
}

#[test]
fn gpu_f64_is_the_oracle_and_the_cpu() {
    if lacks_f64() {
        eprintln!("==== SKIPPED: no adapter computes in f64. ====");
        return;
    }
    let (gpu, cpu) = (bench(Backend::Gpu, Precision::F64), bench(Backend::Cpu, Precision::F64));
    hold("gpu_f64", 8, problems(few_shapes(), 130), |report, recipe, members| {
        check_all(&gpu, report, recipe, members);
        let problem = recipe.build();
        let states = recipe.members(&problem, members);
        let (given, bound) = (Members::Given(states.view()), tolerance(Quantity::Short, Precision::F64));
        let [got, want] = [&gpu, &cpu].map(|bench| bench.load(&problem).forecast(given).unwrap());
        compare("GPU against CPU: trajectory", &recipe.label(), got.view(), want.view(), bound).note(report);
        let [got, want] = [&gpu, &cpu].map(|bench| bench.load(&problem).gradient(given, Terms::ALL).unwrap());
        compare("GPU against CPU: gradient", &recipe.label(), got.gradient.view(), want.gradient.view(), bound)
            .note(report);
    });
}

/// How a batch is cut, by memory or among threads, and who else is in it change no byte.
fn check_cuts(bench: &Bench, cuts: &[(String, Engine)], report: &mut Report, recipe: &Recipe, members: usize) {
    let whole = everything(&bench.engine, recipe, members);
    for (what, engine) in cuts {
        same_everything(report, &format!("{what}, {}", recipe.label()), &everything(engine, recipe, members), &whole);
    }
    if recipe.problems > 1 {
        return;
    }
    let problem = recipe.build();
    let states = recipe.members(&problem, members);
    let mut loaded = bench.load(&problem);
    let mut gradient = |from: usize, to: usize| {
        let states = states.slice(s![from..to, ..]);
        let gradients = loaded.gradient(Members::Given(states), Terms::ALL).unwrap();
        flat_gradients(&gradients)
    };
    // From a member in the middle on it lies in other lanes.
    let (first, columns) = (members / 2, recipe.control());
    let (all, part) = (gradient(0, members), gradient(first, members));
    let rows = members - first;
    let tail = |flat: &ndarray::Array1<f64>, count: usize| flat.slice(s![flat.len() - count * columns..]).to_owned();
    let (all, part) = (tail(&all, rows), tail(&part, rows));
    same_bytes(report, &format!("from member {first} on, {}", recipe.label()), part.view(), all.view());
}

fn cuts(bench: &Bench, memory: &[u64], threads: &[usize]) -> Vec<(String, Engine)> {
    let by_memory = memory.iter().map(|mib| (format!("{mib} MiB"), bench.variant(|s| s.memory_mib = *mib)));
    let by_threads = threads.iter().map(|n| (format!("{n} threads"), bench.variant(|s| s.threads = Some(*n))));
    by_memory.chain(by_threads).collect()
}

#[test]
fn cpu_gives_the_same_bytes_however_a_batch_is_cut() {
    for (name, precision) in [("cuts_cpu_f32", Precision::F32), ("cuts_cpu_f64", Precision::F64)] {
        let bench = bench(Backend::Cpu, precision);
        let cuts = cuts(&bench, &[1], &[1, 3]);
        hold(name, 24, problems(shapes(), 1200), |report, recipe, members| {
            check_cuts(&bench, &cuts, report, recipe, members);
        });
    }
}

#[test]
fn gpu_gives_the_same_bytes_however_a_batch_is_cut() {
    let bench = bench(Backend::Gpu, Precision::F32);
    let cuts = cuts(&bench, &[1], &[]);
    let shape = few_shapes().prop_filter("one shape", |shape| shape.block_size == 1 && !shape.estimated);
    hold("cuts_gpu_f32", 4, problems(shape, 1200), |report, recipe, members| {
        check_cuts(&bench, &cuts, report, recipe, members);
    });
}

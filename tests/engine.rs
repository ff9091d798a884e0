//! One body, all engines: every promise of the engine's contract, checked against the oracle on each engine.
//!
//! Each engine is one test, so that all GPU cases of a precision share one process and one device (nextest starts
//! a process per test, and software Vulkan compiles at the first dispatch). A test runs every body, collects what
//! fails, and prints the largest errors: `cargo test --test engine -- --nocapture` shows them.
//! `VI4DVAR_TEST_BODY=name` runs the bodies whose name contains `name`.
//!
//! `VI4DVAR_REQUIRE_GPU=1`, which the README's test command sets, turns a missing adapter into a failure.

#[allow(dead_code, reason = "each test target uses a part")]
#[path = "common/bench.rs"]
mod bench;
#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use bench::{
    Bench, check_cost, check_gradient, check_moments, check_moments_of, check_tangent_adjoint, check_trajectory,
    compare_costs, compare_costs_within, compare_pattern, compare_sums, diagonal, draw, everything, flat, flat_costs,
    flat_gradients, flat_moments, flat_selections, loss, low_rank, lower, members_of, normals_of, same_bytes,
    same_everything, scale_name,
};

use common::{
    NORMAL_ULPS, NORMAL_ULPS_BETWEEN_ENGINES, PerProblem, Quantity, Recipe, Report, Tolerance, Truth, compare,
    compare_scaled, plain_f32_loss, ulps,
};
use ndarray::{Array1, Array2, Array3, Axis, s};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use vi4dvar::engine::{
    AffineMap, Backend, CostHistogram, Counters, Draw, Engine, EngineSettings, Keep, Listed, LoadedProblem, Members,
    PatternSums, Precision, Resident, Row, Scale, Selection, Terms, adapters,
};
use vi4dvar::error::Result;
use vi4dvar::optimizer::{Adam, AdamSettings, Schedule};
use vi4dvar::problem::{ErrorCovariance, ModelError, PointFunction, Problem};
use vi4dvar::random::Stream;
use vi4dvar::validation::oracle;

/// Batches around a lane group, a workgroup and two blocks of a sum.
const MEMBER_COUNTS: [usize; 5] = [1, 63, 64, 65, 513];

/// The smallest state on a ring, one lane group, an odd size, the case study's, the field's, two beyond registers, and the
/// three of Lorenz-63.
const SIZES: [usize; 8] = [4, 8, 13, 16, 40, 64, 128, 3];

type Body = fn(&Bench, &mut Report);

const BODIES: &[(&str, Body)] = &[
    ("trajectory_sizes", trajectory_sizes),
    ("gradient_matrix", gradient_matrix),
    ("gradient_operators_and_averages", gradient_operators_and_averages),
    ("gradient_extreme_states", gradient_extreme_states),
    ("gradient_awkward_sizes", gradient_awkward_sizes),
    ("cost_sizes", cost_sizes),
    ("tangent_adjoint_sizes", tangent_adjoint_sizes),
    ("kernels_match_oracle", kernels_match_oracle),
    ("kernels_in_segments", kernels_in_segments),
    ("member_counts", member_counts),
    ("window_edges", window_edges),
    ("terms_switched_off", terms_switched_off),
    ("problem_sets", problem_sets),
    ("taylor_remainders", taylor_remainders),
    ("central_differences", central_differences),
    ("draws_match_oracle_and_cpu", draws_match_oracle_and_cpu),
    ("draws_survive_growth", draws_survive_growth),
    ("draws_of_lower_scales", draws_of_lower_scales),
    ("draws_of_low_rank_scales", draws_of_low_rank_scales),
    ("moments_match_oracle", moments_match_oracle),
    ("pattern_sums_match_oracle", pattern_sums_match_oracle),
    ("pattern_sums_of_many_blocks", pattern_sums_of_many_blocks),
    ("pattern_sums_of_a_large_state", pattern_sums_of_a_large_state),
    ("selection_matches_brute_force", selection_matches_brute_force),
    ("selection_differs_from_the_cpu_only_at_the_threshold", selection_differs_from_the_cpu_only_at_the_threshold),
    ("selection_leaves_the_diverged_out", selection_leaves_the_diverged_out),
    ("selection_brings_down_only_what_is_kept", selection_brings_down_only_what_is_kept),
    ("invariance_of_chunks", invariance_of_chunks),
    ("invariance_of_threads", invariance_of_threads),
    ("invariance_of_batch", invariance_of_batch),
    ("invariance_of_history", invariance_of_history),
    ("perturbed_rows_match_oracle", perturbed_rows_match_oracle),
    ("perturbed_normals_match_oracle", perturbed_normals_match_oracle),
    ("listed_rows_without_perturbation", listed_rows_without_perturbation),
    ("listed_rows_alone_and_in_company", listed_rows_alone_and_in_company),
    ("listed_rows_do_not_mind_chunks_and_threads", listed_rows_do_not_mind_chunks_and_threads),
    ("perturbed_rows_of_a_long_window", perturbed_rows_of_a_long_window),
    ("resident_adam_is_the_hosts", resident_adam_is_the_hosts),
    ("resident_members_gathered_keep_their_course", resident_members_gathered_keep_their_course),
    ("resident_members_do_not_mind_chunks_and_threads", resident_members_do_not_mind_chunks_and_threads),
    ("resident_members_that_diverge_stand_still", resident_members_that_diverge_stand_still),
    ("controls_match_oracle", controls_match_oracle),
    ("controls_drawn_match_oracle", controls_drawn_match_oracle),
    ("controls_with_data_of_their_own", controls_with_data_of_their_own),
    ("controls_do_not_mind_chunks_and_segments", controls_do_not_mind_chunks_and_segments),
    ("controls_by_taylor_and_differences", controls_by_taylor_and_differences),
    ("controls_without_errors_are_the_strong_constraint", controls_without_errors_are_the_strong_constraint),
    ("divergence_is_contained", divergence_is_contained),
    ("divergence_in_moments", divergence_in_moments),
    ("divergence_of_squares", divergence_of_squares),
    ("long_window_ten_thousand_steps", long_window_ten_thousand_steps),
    ("long_window_error_growth", long_window_error_growth),
    ("many_members", many_members),
    ("trajectory_after_a_gradient_of_nothing", trajectory_after_a_gradient_of_nothing),
    ("counters_are_pinned", counters_are_pinned),
    ("kernels_are_timed", kernels_are_timed),
    ("kernels_by_name_give_the_same_bytes", kernels_by_name_give_the_same_bytes),
    ("fewer_members_prepare_nothing", fewer_members_prepare_nothing),
    ("bad_input_is_refused", bad_input_is_refused),
];

macro_rules! engines {
    ($($test:ident: $backend:ident $precision:ident,)*) => {
        $(
            #[test]
            fn $test() {
                run_all(stringify!($test), Backend::$backend, Precision::$precision);
            }
        )*
    };
}

engines! {
    cpu_f64: Cpu F64,
    cpu_f32: Cpu F32,
    gpu_f32: Gpu F32,
    gpu_f64: Gpu F64,
}

/// Runs every body on one engine; fails with the list of everything that went wrong.
fn run_all(test: &str, backend: Backend, precision: Precision) {
    let settings = EngineSettings { backend, precision, ..EngineSettings::default() };
    if backend == Backend::Gpu {
        let found = adapters();
        let demanded = std::env::var("VI4DVAR_REQUIRE_GPU").is_ok_and(|v| v == "1");
        if found.is_empty() {
            assert!(!demanded, "{test}: VI4DVAR_REQUIRE_GPU=1, and no adapter was found");
            eprintln!("==== SKIPPED {test}: no adapter. Nothing on the GPU was tested. ====");
            return;
        }
        if precision == Precision::F64 && found.iter().all(|a| !a.f64) {
            eprintln!("==== SKIPPED {test}: no adapter computes in f64. ====");
            return;
        }
    }
    let engine = Engine::new(&settings).unwrap_or_else(|e| panic!("{test}: {e}"));
    eprintln!("{test} on {}", engine.hardware());
    let bench = Bench { settings, engine, random: false };
    let wanted = std::env::var("VI4DVAR_TEST_BODY").unwrap_or_default();
    let mut report = Report::default();
    for (name, body) in BODIES.iter().filter(|(name, _)| name.contains(&wanted)) {
        let (before, start) = (report.failures.len(), Instant::now());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&bench, &mut report))) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            report.failures.push(format!("panicked: {}", text.unwrap_or_default()));
        }
        report.failures[before..].iter_mut().for_each(|f| *f = format!("{name}: {f}"));
        let verdict = if report.failures.len() == before { "ok" } else { "FAILED" };
        eprintln!("  {verdict:6} {name:<34} {:6.1} s", start.elapsed().as_secs_f64());
    }
    eprint!("{}", report.figures());
    let count = report.failures.len();
    assert!(count == 0, "{test}: {count} failures\n{}", report.failures.join("\n"));
}

// Bodies.

fn trajectory_sizes(bench: &Bench, report: &mut Report) {
    for (k, sites) in SIZES.into_iter().enumerate() {
        let recipe = Recipe { seed: 100 + k as u64, ..Recipe::default() }.sized(sites);
        check_trajectory(bench, report, &recipe, MEMBER_COUNTS[k % 4]);
        check_trajectory(bench, report, &Recipe { steps_per_time: 10, dt: 0.005, ..recipe }, 3);
    }
}

fn gradient_matrix(bench: &Bench, report: &mut Report) {
    let mut seed = 200;
    for sites in SIZES {
        for function in [PointFunction::Identity, PointFunction::Square] {
            for full_background in [false, true] {
                for (steps_per_time, dt) in [(1, 0.05), (10, 0.005)] {
                    seed += 1;
                    let recipe = Recipe { seed, function, full_background, steps_per_time, dt, ..Recipe::default() };
                    let recipe = recipe.sized(sites);
                    let count = if sites > 16 && steps_per_time > 1 { 3 } else { MEMBER_COUNTS[seed as usize % 4] };
                    check_gradient(bench, report, &recipe, count);
                }
            }
        }
    }
}

fn gradient_operators_and_averages(bench: &Bench, report: &mut Report) {
    for (k, function) in PointFunction::ALL.into_iter().enumerate() {
        for block_size in [1, 2, 4, 16] {
            let recipe = Recipe { seed: 300 + k as u64, function, block_size, observed: 0.8, ..Recipe::default() };
            check_gradient(bench, report, &recipe, 5);
            if block_size < 4 {
                let full = Recipe { full_background: true, steps_per_time: 10, dt: 0.005, weighted: true, ..recipe };
                check_gradient(bench, report, &full, 5);
            }
        }
    }
    // A block that ends between lanes, and one that covers an odd state whole.
    for (sites, block_size) in [(40, 5), (13, 13), (3, 3)] {
        let recipe = Recipe { block_size, function: PointFunction::Square, ..Recipe::default() }.sized(sites);
        check_gradient(bench, report, &recipe, 5);
    }
}

/// States far outside the attractor, where a careless softplus overflows.
fn gradient_extreme_states(bench: &Bench, report: &mut Report) {
    for function in PointFunction::ALL {
        let recipe = Recipe { seed: 350, times: 1, function, observed: 1.0, ..Recipe::default() };
        let problem = recipe.build();
        let members = recipe.directions(4) * 200.0;
        let got = bench.load(&problem).gradient(Members::Given(members.view()), Terms::ALL).unwrap();
        let want = Truth::new(&problem, &members).gradients::<f64>();
        let bound = bench.bound(Quantity::Short);
        compare_costs(bench, report, &recipe.label(), &got.costs, &(want.background.clone(), want.observation.clone()));
        compare("gradient, extreme", &recipe.label(), got.gradient.view(), want.gradient().view(), bound).note(report);
    }
}

/// Sizes that no number of lanes divides, averages that keep lanes apart, and a state far beyond registers.
fn gradient_awkward_sizes(bench: &Bench, report: &mut Report) {
    let base = Recipe { seed: 360, times: 9, function: PointFunction::Square, weighted: true, ..Recipe::default() };
    check_gradient(bench, report, &Recipe { sites: 5, ..base.clone() }, 5);
    let prime = Recipe { sites: 67, full_background: true, ..base.clone() };
    check_gradient(bench, report, &prime, 65);
    check_tangent_adjoint(bench, report, &prime, 3);
    check_moments(bench, report, &prime, 5, Terms::ALL);
    check_gradient(bench, report, &Recipe { sites: 100, block_size: 20, ..base.clone() }, 5);
    check_gradient(bench, report, &Recipe { sites: 1000, block_size: 8, times: 3, ..base }, 2);
}

fn cost_sizes(bench: &Bench, report: &mut Report) {
    for (k, sites) in SIZES.into_iter().enumerate() {
        let base = Recipe { seed: 400 + k as u64, full_background: k % 2 == 0, ..Recipe::default() }.sized(sites);
        let function = if sites == 40 { PointFunction::Square } else { PointFunction::Identity };
        check_cost(bench, report, &Recipe { function, ..base.clone() }, MEMBER_COUNTS[k % 4]);
        check_cost(bench, report, &Recipe { steps_per_time: 10, dt: 0.005, weighted: true, ..base }, 3);
    }
}

fn tangent_adjoint_sizes(bench: &Bench, report: &mut Report) {
    for (k, sites) in SIZES.into_iter().enumerate() {
        let base = Recipe { seed: 500 + k as u64, ..Recipe::default() }.sized(sites);
        check_tangent_adjoint(bench, report, &Recipe { assimilated_times: Some(9), ..base.clone() }, 5);
        if sites <= 40 {
            check_tangent_adjoint(bench, report, &Recipe { steps_per_time: 10, dt: 0.005, ..base }, 3);
        }
    }
}

/// The same engine with a given variant of its kernels, for a window of this recipe. None: subgroups that this adapter
/// does not have.
fn with_kernel(bench: &Bench, report: &mut Report, kernel: &str, recipe: &Recipe) -> Option<Bench> {
    let settings = EngineSettings { kernel: kernel.into(), ..bench.settings.clone() };
    let engine = Engine::new(&settings).expect("a variant of a working engine");
    let refused = engine.load(&recipe.build()).err().map(|e| e.to_string());
    let no_subgroups = refused.as_ref().is_some_and(|e| e.contains("halo=subgroup"));
    report.expect(refused.is_none() || (no_subgroups && !engine.hardware().software), || {
        format!("{kernel}, {}: {}", recipe.label(), refused.clone().unwrap_or_default())
    });
    refused.is_none().then_some(Bench { settings, engine, random: false })
}

/// Every way to lay a member out, as small as 16 KiB of workgroup memory allow: lanes that divide the state and lanes that do not, both ways to exchange edges, every
/// place for the trajectory, what is kept of a step, and small and large workgroups.
fn kernels_match_oracle(bench: &Bench, report: &mut Report) {
    if !bench.is_gpu() {
        return;
    }
    let base = Recipe { seed: 700, times: 7, function: PointFunction::Square, weighted: true, ..Recipe::default() };
    // Each with its block size. Lanes mean the same in every sweep, so the first of each size runs them all.
    let cases: [(usize, usize, &[&str]); 9] = [
        (4, 1, &["lanes=2,group=64,halo=subgroup", "lanes=1,group=32,stages=kept"]),
        (13, 1, &["lanes=3,group=33,trajectory=workgroup", "lanes=2,group=64,halo=subgroup,stages=kept"]),
        (
            16,
            1,
            &[
                "lanes=4,group=64,halo=subgroup,trajectory=workgroup",
                "lanes=1,group=16,trajectory=workgroup",
                "lanes=8,group=256",
                "lanes=1,group=128,stages=kept",
            ],
        ),
        (40, 4, &["lanes=5,group=30,trajectory=workgroup", "lanes=4,group=64,halo=subgroup"]),
        (64, 1, &["lanes=13,group=26", "lanes=8,group=64,halo=subgroup"]),
        (67, 1, &["lanes=8,group=64,halo=subgroup", "lanes=14,group=14,trajectory=workgroup,stages=kept"]),
        (128, 8, &["lanes=16,group=16", "lanes=8,group=64,halo=subgroup"]),
        (1000, 1, &["lanes=250,group=250", "lanes=91,group=91"]),
        (3, 1, &["lanes=1,group=32,stages=kept", "lanes=1,group=16,trajectory=workgroup"]),
    ];
    for (k, (sites, block_size, kernels)) in cases.into_iter().enumerate() {
        let times = if sites > 100 { 3 } else { base.times };
        let recipe = Recipe { block_size, times, full_background: k % 2 == 1, ..base.clone() }.sized(sites);
        let set = Recipe { problems: 2, per_problem: PerProblem::ALL, ..recipe.clone() };
        for (at, kernel) in kernels.iter().enumerate() {
            let Some(bench) = with_kernel(bench, report, kernel, &recipe) else { continue };
            check_gradient(&bench, report, if at == 0 { &set } else { &recipe }, if sites > 100 { 3 } else { 65 });
            if at == 0 && sites < 100 {
                check_cost(&bench, report, &recipe, 5);
                check_tangent_adjoint(&bench, report, &recipe, 3);
                check_moments(&bench, report, &recipe, 33, Terms::ALL);
            }
        }
    }
    let large = Recipe { sites: 4096, times: 2, ..base };
    // The 64-bit edges of 256 lanes fill the workgroup memory of the smallest GPUs.
    if let Some(bench) = with_kernel(bench, report, "lanes=256,group=256", &large) {
        check_gradient(&bench, report, &large, 1);
    }
}

/// Windows cut into segments: the same bytes with each kernel as in one, and the oracle's numbers.
fn kernels_in_segments(bench: &Bench, report: &mut Report) {
    if !bench.is_gpu() {
        return;
    }
    let fine = Recipe { seed: 750, steps_per_time: 7, dt: 0.005, function: PointFunction::Square, ..Recipe::default() };
    let recipe = Recipe { sites: 16, times: 15, ..fine };
    for (kernel, recipe, mib) in [
        ("lanes=3,group=63,stages=kept", &recipe, 2),
        ("lanes=4,group=64,halo=subgroup", &recipe, 2),
        ("lanes=4,group=4,trajectory=workgroup", &recipe, 2),
        ("lanes=1,group=64", &recipe.clone().lorenz63(), 1),
    ] {
        let Some(wide) = with_kernel(bench, report, kernel, recipe) else { continue };
        check_gradient(&wide, report, recipe, 513);
        let narrow = wide.variant(|s| s.memory_mib = mib);
        let (one, many) = (everything(&wide.engine, recipe, 513), everything(&narrow, recipe, 513));
        same_everything(report, &format!("{kernel}, {mib} MiB"), &many, &one);
    }
}

fn member_counts(bench: &Bench, report: &mut Report) {
    for count in MEMBER_COUNTS {
        let recipe = Recipe { seed: 600 + count as u64, times: 9, full_background: true, ..Recipe::default() };
        for recipe in [recipe.clone().lorenz63(), recipe] {
            check_trajectory(bench, report, &recipe, count);
            check_cost(bench, report, &recipe, count);
            check_gradient(bench, report, &recipe, count);
            check_tangent_adjoint(bench, report, &recipe, count);
            check_moments(bench, report, &recipe, count, Terms::ALL);
        }
    }
}

fn window_edges(bench: &Bench, report: &mut Report) {
    let base = Recipe { seed: 700, function: PointFunction::Square, observed: 1.0, ..Recipe::default() };
    for recipe in [
        Recipe { times: 1, ..base.clone() },
        Recipe { times: 1, full_background: true, block_size: 4, ..base.clone() },
        Recipe { times: 2, ..base.clone() },
        Recipe { assimilated_times: Some(1), ..base.clone() },
        Recipe { assimilated_times: Some(12), steps_per_time: 2, dt: 0.025, ..base.clone() },
        Recipe { observed: 0.0, ..base.clone() },
        Recipe { observed: 0.0, times: 1, full_background: true, ..base.clone() },
        Recipe { observed: 0.02, times: 5, ..base.clone() },
        Recipe { weighted: true, ..base.clone() },
        Recipe { weighted: true, assimilated_times: Some(7), full_background: true, ..base.clone() },
        Recipe { times: 1, full_background: true, block_size: 3, ..base.clone() }.lorenz63(),
        Recipe { assimilated_times: Some(12), weighted: true, steps_per_time: 2, dt: 0.025, ..base }.lorenz63(),
    ] {
        check_trajectory(bench, report, &recipe, 5);
        check_cost(bench, report, &recipe, 5);
        check_gradient(bench, report, &recipe, 5);
        check_tangent_adjoint(bench, report, &recipe, 5);
        check_moments(bench, report, &recipe, 5, Terms::ALL);
    }
}

fn terms_switched_off(bench: &Bench, report: &mut Report) {
    for (full_background, sites) in [(false, 16), (true, 16), (false, 3), (true, 3)] {
        let recipe = Recipe { seed: 800, full_background, function: PointFunction::Square, ..Recipe::default() };
        let recipe = recipe.sized(sites);
        let problem = recipe.build();
        let members = recipe.members(&problem, 5);
        let want = Truth::new(&problem, &members).gradients::<f64>();
        let mut loaded = bench.load(&problem);
        for (background, observation) in [(true, false), (false, true), (false, false)] {
            let terms = Terms { background, observation };
            let case = format!("{} {terms:?}", recipe.label());
            let (b, o) = (f64::from(u8::from(background)), f64::from(u8::from(observation)));
            let costs = (&want.background * b, &want.observation * o);
            let gradient = &want.background_gradient * b + &want.observation_gradient * o;
            let got = loaded.gradient(Members::Given(members.view()), terms).unwrap();
            compare_costs(bench, report, &case, &got.costs, &costs);
            let bound = bench.bound(Quantity::Short);
            compare("gradient", &case, got.gradient.view(), gradient.view(), bound).note(report);
            let got = loaded.cost(Members::Given(members.view()), terms).unwrap();
            compare_costs(bench, report, &case, &got, &costs);
            check_moments(bench, report, &recipe, 65, terms);
        }
    }
}

fn problem_sets(bench: &Bench, report: &mut Report) {
    let base =
        Recipe { seed: 900, sites: 8, times: 7, problems: 3, weighted: true, observed: 0.7, ..Recipe::default() };
    let only = |change: fn(&mut PerProblem)| {
        let mut own = PerProblem::NONE;
        change(&mut own);
        own
    };
    for per_problem in [
        PerProblem::NONE,
        PerProblem::ALL,
        only(|o| o.background = true),
        only(|o| o.deviations = true),
        only(|o| o.scale = true),
        only(|o| o.observations = true),
        only(|o| o.observation_std = true),
        only(|o| o.weights = true),
        only(|o| o.parameters = true),
    ] {
        for full_background in [false, true] {
            let recipe = Recipe { per_problem, full_background, ..base.clone() };
            for recipe in [recipe.clone().lorenz63(), recipe] {
                check_gradient(bench, report, &recipe, 5);
                check_cost(bench, report, &recipe, 5);
                check_moments(bench, report, &recipe, 5, Terms::ALL);
            }
        }
    }
    // Each problem's members and sums straddle lanes and blocks, and each problem has its own data and one member.
    for (problems, count, sites) in [(3, 257, 8), (65, 1, 8), (3, 257, 3), (65, 1, 3)] {
        let recipe = Recipe { problems, per_problem: PerProblem::ALL, ..base.clone() }.sized(sites);
        check_trajectory(bench, report, &recipe, count);
        check_gradient(bench, report, &recipe, count);
        check_cost(bench, report, &recipe, count);
        check_tangent_adjoint(bench, report, &recipe, count);
        check_moments(bench, report, &recipe, count, Terms::ALL);
    }
}

/// What is left of M(x + a v) - M(x) - a M'v, and of J, shrinks with a^2. Rounding hides it in f32.
fn taylor_remainders(bench: &Bench, report: &mut Report) {
    if bench.precision() == Precision::F32 {
        return;
    }
    for (sites, function) in [(13, PointFunction::Cubic), (40, PointFunction::Square), (3, PointFunction::Square)] {
        check_taylor(bench, report, &Recipe { seed: 1000, times: 9, function, ..Recipe::default() }.sized(sites));
    }
}

fn check_taylor(bench: &Bench, report: &mut Report, recipe: &Recipe) {
    let problem = recipe.build();
    let x = recipe.members(&problem, 3);
    let v = recipe.directions(3);
    let mut loaded = bench.load(&problem);
    let base = loaded.forecast(Members::Given(x.view())).unwrap();
    let tangent = loaded.tangent(Members::Given(x.view()), v.view()).unwrap();
    let at_x = loaded.gradient(Members::Given(x.view()), Terms::ALL).unwrap();
    let slopes = (&at_x.gradient * &v).sum_axis(Axis(1));
    let mut remainders = |a: f64| {
        let moved = &x + &(&v * a);
        let states = loaded.forecast(Members::Given(moved.view())).unwrap() - &base - &tangent * a;
        let cost = loaded.cost(Members::Given(moved.view()), Terms::ALL).unwrap().total();
        let cost = cost - at_x.costs.total() - &slopes * a;
        (states.map(|r| r * r).sum().sqrt(), cost.map(|r| r.abs()).sum())
    };
    let (coarse, fine) = (remainders(1e-3), remainders(1e-4));
    for (what, ratio) in [("trajectory", coarse.0 / fine.0), ("cost", coarse.1 / fine.1)] {
        report.expect((90.0..110.0).contains(&ratio), || {
            format!("Taylor remainder of the {what} [{}] fell by {ratio}, not by 100", recipe.label())
        });
    }
}

/// Each term of the gradient against central differences of the same engine's cost.
fn central_differences(bench: &Bench, report: &mut Report) {
    if bench.precision() == Precision::F32 {
        return;
    }
    for function in PointFunction::ALL {
        let recipe = Recipe { seed: 1100, times: 7, function, full_background: true, ..Recipe::default() };
        check_central_differences(bench, report, &recipe.clone().lorenz63());
        check_central_differences(bench, report, &recipe);
    }
}

fn check_central_differences(bench: &Bench, report: &mut Report, recipe: &Recipe) {
    let problem = recipe.build();
    let (x, n, step) = (recipe.members(&problem, 1), recipe.control(), 1e-4);
    let moved = Array2::from_shape_fn((2 * n, n), |(row, i)| {
        x[[0, i]]
            + if row % n != i {
                0.0
            } else if row < n {
                step
            } else {
                -step
            }
    });
    let mut loaded = bench.load(&problem);
    for (background, observation) in [(true, false), (false, true)] {
        let terms = Terms { background, observation };
        let cost = loaded.cost(Members::Given(moved.view()), terms).unwrap().total();
        let want = (&cost.slice(s![..n]) - &cost.slice(s![n..])) / (2.0 * step);
        let got = loaded.gradient(Members::Given(x.view()), terms).unwrap().gradient;
        let case = format!("{} {terms:?}", recipe.label());
        compare("central differences", &case, got.row(0), want.view(), bench.bound(Quantity::Differences)).note(report);
    }
}

fn draws_match_oracle_and_cpu(bench: &Bench, report: &mut Report) {
    for (sites, problems, count, stream, iteration) in [
        (4, 1, 1000, Stream::MonteCarlo, 0),
        (13, 3, 65, Stream::Posterior, 1499),
        (16, 1, 513, Stream::Starts, u32::MAX),
        (40, 2, 63, Stream::MonteCarlo, 7),
        (3, 2, 65, Stream::MonteCarlo, 7),
    ] {
        let recipe = Recipe { seed: 0xFACE_0000_0000 + sites as u64, times: 1, problems, ..Recipe::default() };
        let recipe = recipe.sized(sites);
        let problem = recipe.build();
        let drawn = Draw { stream, ..draw(&recipe, &problem, count, iteration) };
        let mut loaded = bench.load(&problem);
        let eps = members_of(&mut loaded, &normals_of(&drawn));
        let exact = Array2::from_shape_fn(eps.raw_dim(), |(row, i)| {
            let (p, member) = (row / count, (row % count) as u32);
            oracle::normals(problem.seeds[p], stream as u32, iteration, member, i + 1)[i]
        });
        let cpu = Engine::cpu(Precision::F32).unwrap().load(&problem);
        let cpu = members_of(&mut cpu.unwrap(), &normals_of(&drawn));
        for (other, name, allowed) in
            [(&exact, "the oracle", NORMAL_ULPS), (&cpu, "cpu-f32", NORMAL_ULPS_BETWEEN_ENGINES)]
        {
            let worst = eps.iter().zip(other).map(|(a, b)| ulps(*a, *b)).max().unwrap();
            report.figure(&format!("normals against {name}, ulp"), f64::from(worst), f64::from(allowed));
            report.expect(eps.dim() == other.dim() && worst <= allowed, || {
                format!("n {sites} P {problems} M {count}: normals {worst} ulp from {name}, {allowed} allowed")
            });
        }
        let narrow = eps.iter().all(|e| f64::from(*e as f32) == *e);
        report.expect(narrow, || format!("n {sites}: normals are not those of f32"));
        let scale = diagonal(&drawn);
        let want = Array2::from_shape_fn(eps.raw_dim(), |(row, i)| {
            drawn.map.mean[[row / count, i]] + scale[[row / count, i]] * exact[[row, i]]
        });
        let got = members_of(&mut loaded, &drawn);
        let case = format!("n {sites} P {problems} M {count}");
        compare("m + S eps", &case, got.view(), want.view(), bench.bound(Quantity::Draws)).note(report);
    }
}

fn draws_survive_growth(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 1200, times: 3, problems: 2, per_problem: PerProblem::ALL, ..Recipe::default() };
    let problem = recipe.build();
    let mut loaded = bench.load(&problem);
    let [small, large] = [100, 1000].map(|m| loaded.forecast(Members::Drawn(&draw(&recipe, &problem, m, 5))).unwrap());
    for p in 0..2 {
        let (s, l) =
            (small.slice(s![p * 100..(p + 1) * 100, .., ..]), large.slice(s![p * 1000..p * 1000 + 100, .., ..]));
        same_bytes(report, &format!("batch 1000 begins with batch 100, problem {p}"), s, l);
    }
    let other = loaded.forecast(Members::Drawn(&draw(&recipe, &problem, 100, 6))).unwrap();
    let repeated = small.iter().zip(&other).filter(|(a, b)| a == b).count();
    report
        .expect(repeated < small.len() / 100, || format!("{repeated} values of iteration 5 came again in iteration 6"));
}

fn moments_match_oracle(bench: &Bench, report: &mut Report) {
    for (sites, count) in [(4, 257), (13, 65), (40, 65), (64, 5), (3, 257)] {
        let recipe = Recipe { seed: 1300, function: PointFunction::Square, ..Recipe::default() }.sized(sites);
        check_moments(bench, report, &recipe, count, Terms::ALL);
    }
    for function in PointFunction::ALL {
        let recipe = Recipe { seed: 1301, function, full_background: true, block_size: 2, ..Recipe::default() };
        check_moments(bench, report, &recipe, 300, Terms::ALL);
    }
}

/// Lower triangular scales, one for all and one for each problem, and low ranks from 1 to a full one.
fn pattern_sums_match_oracle(bench: &Bench, report: &mut Report) {
    let base = Recipe { seed: 1310, times: 9, function: PointFunction::Square, ..Recipe::default() };
    let mut cases: Vec<(Recipe, usize)> = MEMBER_COUNTS.map(|count| (base.clone(), count)).into();
    cases.extend([4, 33, 68, 3].map(|sites| (base.clone().sized(sites), 70)));
    for (problems, count) in [(3, 1), (3, 65), (2, 300), (70, 2)] {
        let recipe = Recipe { seed: 1311, sites: 13, problems, per_problem: PerProblem::ALL, ..base.clone() };
        cases.push((recipe, count));
    }
    for (recipe, count) in cases {
        let (problem, n) = (recipe.build(), recipe.control());
        let plain = draw(&recipe, &problem, count, 3);
        let mut draws = vec![lower(&plain, 1), low_rank(&plain, 1), low_rank(&plain, 4.min(n)), low_rank(&plain, n)];
        if recipe.problems > 1 {
            draws.push(lower(&plain, recipe.problems));
        }
        for drawn in draws {
            check_moments_of(bench, report, &recipe, &problem, &drawn, Terms::ALL);
        }
    }
}

/// More blocks than a run of them, and problems whose runs do not end with a chunk.
fn pattern_sums_of_many_blocks(bench: &Bench, report: &mut Report) {
    let recipe =
        Recipe { seed: 1320, sites: 4, times: 2, problems: 2, per_problem: PerProblem::ALL, ..Recipe::default() };
    let problem = recipe.build();
    let plain = draw(&recipe, &problem, 66_000, 0);
    for drawn in [lower(&plain, 2), low_rank(&plain, 2)] {
        check_moments_of(bench, report, &recipe, &problem, &drawn, Terms::ALL);
    }
}

/// A full rank of 200 sites: 40,200 sums, in chunks of members and a few blocks at a time where memory is short, and
/// refused with the bytes where it cannot be.
fn pattern_sums_of_a_large_state(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 1330, sites: 200, times: 2, ..Recipe::default() };
    let problem = recipe.build();
    let plain = draw(&recipe, &problem, 600, 2);
    let drawn = lower(&plain, 1);
    let mut loaded = bench.load(&problem);
    let got = loaded.moments(&drawn, Terms::ALL).unwrap();
    let eps = members_of(&mut loaded, &normals_of(&drawn));
    let own = loaded.gradient(Members::Drawn(&drawn), Terms::ALL).unwrap().gradient;
    let PatternSums::Lower { gradient_epsilon, epsilon_epsilon } = &got[0].pattern else {
        panic!("sums on the pattern of a lower triangular scale")
    };
    for (name, got, rows) in [("g eps'", gradient_epsilon, &own), ("eps eps'", epsilon_epsilon, &eps)] {
        let mut want = rows.t().dot(&eps);
        want.indexed_iter_mut().filter(|((i, j), _)| j > i).for_each(|(_, v)| *v = 0.0);
        let largest = |a: &Array2<f64>| a.columns().into_iter().map(|c| c.dot(&c)).fold(0.0, f64::max);
        let most = (largest(rows) * largest(&eps)).sqrt();
        let bound = bench.bound(Quantity::OwnSums);
        compare_scaled(&format!("pattern of 200 sites: {name}"), "", got.view(), want.view(), most, bound).note(report);
    }
    let short = bench.variant(|s| s.memory_mib = 4).load(&problem).unwrap().moments(&drawn, Terms::ALL).unwrap();
    report.expect(short == got, || "other sums of 200 sites where memory is short".into());
    if bench.is_gpu() {
        let refused = bench.variant(|s| s.memory_mib = 1).load(&problem).unwrap().moments(&drawn, Terms::ALL);
        let message = refused.map_or_else(|e| e.to_string(), |_| "accepted".into());
        report.expect(message.contains("MiB"), || format!("40,200 sums in 1 MiB: {message}"));
    }
}

/// A scale of low rank against the host's normals and products, in every operation that draws.
fn draws_of_low_rank_scales(bench: &Bench, report: &mut Report) {
    for (sites, problems, rank, count) in
        [(4, 1, 1, 257), (13, 3, 13, 65), (16, 1, 4, 65), (16, 33, 5, 2), (64, 2, 8, 9), (3, 2, 2, 65)]
    {
        let recipe = Recipe { seed: 1270 + sites as u64, times: 3, problems, ..Recipe::default() }.sized(sites);
        let problem = recipe.build();
        let drawn = low_rank(&draw(&recipe, &problem, count, 4), rank);
        let Scale::LowRank { diagonal, left, right } = &drawn.map.scale else { panic!("a scale of low rank") };
        let want = Array2::from_shape_fn((problems * count, sites), |(row, i)| {
            let (p, member) = (row / count, (row % count) as u32);
            let eps = oracle::normals(problem.seeds[p], drawn.stream as u32, 4, member, sites);
            let on_right = |k: usize| (0..sites).map(|j| right[[p, j, k]] * eps[j]).sum::<f64>();
            let low = (0..rank).map(|k| left[[p, i, k]] * on_right(k)).sum::<f64>();
            drawn.map.mean[[p, i]] + diagonal[[p, i]] * eps[i] + low
        });
        let case = format!("n {sites} P {problems}, rank {rank}, M {count}");
        let mut loaded = bench.load(&problem);
        let members = members_of(&mut loaded, &drawn);
        compare("m + (D + W Z') eps", &case, members.view(), want.view(), bench.bound(Quantity::Draws)).note(report);
        let given = loaded.gradient(Members::Given(members.view()), Terms::ALL).unwrap();
        let own = loaded.gradient(Members::Drawn(&drawn), Terms::ALL).unwrap();
        same_bytes(report, &format!("gradient, {case}"), own.gradient.view(), given.gradient.view());
        let cost = loaded.cost(Members::Drawn(&drawn), Terms::ALL).unwrap();
        let given = loaded.cost(Members::Given(members.view()), Terms::ALL).unwrap();
        same_bytes(report, &format!("cost, {case}"), cost.total().view(), given.total().view());
        check_selection(report, &case, &mut loaded, &drawn, Terms::ALL, Keep::Best(5));
    }
}

/// A lower triangular scale against the host's normals and matrix product, in every operation that draws.
fn draws_of_lower_scales(bench: &Bench, report: &mut Report) {
    for (sites, problems, matrices, count) in
        [(4, 1, 1, 257), (13, 3, 1, 65), (16, 3, 3, 65), (16, 33, 33, 2), (64, 2, 2, 9), (3, 2, 2, 65)]
    {
        let recipe = Recipe { seed: 1250 + sites as u64, times: 3, problems, ..Recipe::default() }.sized(sites);
        let problem = recipe.build();
        let plain = draw(&recipe, &problem, count, 4);
        let drawn = lower(&plain, matrices);
        let Scale::Lower(scale) = &drawn.map.scale else { panic!("a lower triangular scale") };
        let want = Array2::from_shape_fn((problems * count, sites), |(row, i)| {
            let (p, member) = (row / count, (row % count) as u32);
            let eps = oracle::normals(problem.seeds[p], drawn.stream as u32, 4, member, sites);
            let matrix = scale.index_axis(Axis(0), if matrices == 1 { 0 } else { p });
            drawn.map.mean[[p, i]] + (0..=i).map(|j| matrix[[i, j]] * eps[j]).sum::<f64>()
        });
        let case = format!("n {sites} P {problems}, {matrices} matrices, M {count}");
        let mut loaded = bench.load(&problem);
        let before = loaded.cost(Members::Drawn(&plain), Terms::ALL).unwrap();
        let members = members_of(&mut loaded, &drawn);
        compare("m + L eps", &case, members.view(), want.view(), bench.bound(Quantity::Draws)).note(report);
        // The numbers of an engine's members survive the way through f64.
        let given = loaded.gradient(Members::Given(members.view()), Terms::ALL).unwrap();
        let own = loaded.gradient(Members::Drawn(&drawn), Terms::ALL).unwrap();
        same_bytes(report, &format!("gradient, {case}"), own.gradient.view(), given.gradient.view());
        let cost = loaded.cost(Members::Drawn(&drawn), Terms::ALL).unwrap();
        let given = loaded.cost(Members::Given(members.view()), Terms::ALL).unwrap();
        same_bytes(report, &format!("cost, {case}"), cost.total().view(), given.total().view());
        check_selection(report, &case, &mut loaded, &drawn, Terms::ALL, Keep::Best(5));
        // A diagonal scale after a lower triangular one, in calls that differ in nothing else.
        let after = loaded.cost(Members::Drawn(&plain), Terms::ALL).unwrap();
        same_bytes(report, &format!("diagonal again, {case}"), after.total().view(), before.total().view());
    }
}

/// A selection against all costs of the same engine, sorted.
fn check_selection(
    report: &mut Report,
    case: &str,
    loaded: &mut LoadedProblem,
    drawn: &Draw,
    terms: Terms,
    keep: Keep,
) -> Vec<Selection> {
    let case = format!("{case} {terms:?} {keep:?}");
    let costs = loaded.cost(Members::Drawn(drawn), terms).unwrap();
    let got = loaded.select(drawn, terms, keep).unwrap();
    for (p, got) in got.iter().enumerate() {
        let rows = p * drawn.count..(p + 1) * drawn.count;
        let criterion = |k: usize| costs.background[k] + costs.observation[k];
        let sound: Vec<usize> = rows.clone().filter(|k| !costs.diverged[*k]).collect();
        let mut best = sound.clone();
        best.sort_by(|a, b| criterion(*a).total_cmp(&criterion(*b)));
        match keep {
            Keep::Best(count) => best.truncate(count),
            Keep::Below(threshold) => best.retain(|k| criterion(*k) <= threshold),
        }
        let members: Vec<u32> = best.iter().map(|k| (k - rows.start) as u32).collect();
        report.expect(got.member == members, || format!("{case}: kept {:?}, expected {members:?}", got.member));
        let own = |of: &Array1<f64>| -> Vec<f64> { best.iter().map(|k| of[*k]).collect() };
        report.expect(
            got.cost_background == own(&costs.background) && got.cost_observation == own(&costs.observation),
            || format!("{case}: the costs of the kept are not those of `cost`"),
        );
        report.expect(got.count == drawn.count && got.diverged == drawn.count - sound.len(), || {
            format!("{case}: count {} and diverged {}", got.count, got.diverged)
        });
        let edges: Vec<f64> = (1..CostHistogram::BINS).map(CostHistogram::edge).collect();
        let mut counts = vec![0; CostHistogram::BINS];
        // Which bin is decided in single precision.
        sound.iter().for_each(|k| counts[edges.partition_point(|e| *e <= f64::from(criterion(*k) as f32))] += 1);
        report.expect(got.histogram.counts == counts, || format!("{case}: another histogram"));
        let least = sound.iter().map(|k| costs.observation[*k]).fold(f64::INFINITY, f64::min);
        for (power, got) in [(1.0, got.log_weight_sum), (2.0, got.log_weight_square_sum)] {
            let sum: f64 = sound.iter().map(|k| (power * (least - costs.observation[*k])).exp()).sum();
            let want = if sum > 0.0 { sum.ln() - power * least } else { f64::NEG_INFINITY };
            // A relative error of the sum is an absolute one of its logarithm, which has a rounding of its own.
            let allowed = 1e-5 + 1e-12 * want.abs();
            report.expect(got == want || (got - want).abs() < allowed, || {
                format!("{case}: log of the sum of weights^{power} is {got}, expected {want}")
            });
        }
    }
    got
}

fn selection_matches_brute_force(bench: &Bench, report: &mut Report) {
    let observation = Terms { background: false, observation: true };
    let background = Terms { background: true, observation: false };
    for (sites, problems, count, function) in [
        (16, 1, 2000, PointFunction::Square),
        (8, 3, 300, PointFunction::Softplus),
        (8, 65, 5, PointFunction::Identity),
        (64, 2, 65, PointFunction::Identity),
        (3, 2, 300, PointFunction::Square),
    ] {
        let recipe = Recipe {
            seed: 1350 + sites as u64,
            times: 6,
            problems,
            function,
            full_background: sites == 64,
            per_problem: PerProblem::ALL,
            ..Recipe::default()
        }
        .sized(sites);
        let problem = recipe.build();
        let drawn = draw(&recipe, &problem, count, 2);
        let mut loaded = bench.load(&problem);
        for terms in [observation, Terms::ALL, background] {
            let mut all: Vec<f64> = loaded.cost(Members::Drawn(&drawn), terms).unwrap().total().to_vec();
            all.sort_by(f64::total_cmp);
            let case = recipe.label();
            let keeps =
                [Keep::Best(1), Keep::Best(count / 3 + 1), Keep::Best(count + 7), Keep::Below(all[all.len() / 4])];
            for keep in keeps {
                check_selection(report, &case, &mut loaded, &drawn, terms, keep);
            }
        }
        let none = loaded.select(&drawn, Terms::ALL, Keep::Below(-1.0)).unwrap();
        report.expect(none.iter().all(|s| s.member.is_empty()), || "members of a cost below -1".into());
    }
}

/// Two engines may disagree about a member only where its cost is within 1e-5 of the worst that is kept.
fn selection_differs_from_the_cpu_only_at_the_threshold(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 1370, times: 6, function: PointFunction::Square, ..Recipe::default() };
    let problem = recipe.build();
    let drawn = draw(&recipe, &problem, 20_000, 0);
    let mut cpu = Engine::cpu(bench.precision()).unwrap().load(&problem).unwrap();
    let costs = cpu.cost(Members::Drawn(&drawn), Terms::ALL).unwrap().total();
    for kept in [20, 2000] {
        let own = bench.load(&problem).select(&drawn, Terms::ALL, Keep::Best(kept)).unwrap().remove(0);
        let other = cpu.select(&drawn, Terms::ALL, Keep::Best(kept)).unwrap().remove(0);
        let threshold = other.criterion()[kept - 1];
        let only_in = |a: &Selection, b: &Selection| -> Vec<u32> {
            a.member.iter().copied().filter(|m| !b.member.contains(m)).collect()
        };
        for member in only_in(&own, &other).into_iter().chain(only_in(&other, &own)) {
            let cost = costs[member as usize];
            report.expect((cost / threshold - 1.0).abs() < 1e-5, || {
                format!("the engines disagree about member {member} of cost {cost}; the worst kept is {threshold}")
            });
        }
        let gap = (own.log_weight_sum - other.log_weight_sum).abs() / other.log_weight_sum.abs();
        report.expect(gap < 1e-5, || format!("sums of weights {gap:e} apart"));
    }
}

fn selection_leaves_the_diverged_out(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 1900, sites: 8, times: 9, problems: 3, ..Recipe::default() };
    let problem = recipe.build();
    let mut drawn = draw(&recipe, &problem, 300, 0);
    let Scale::Diagonal(scale) = &mut drawn.map.scale else { panic!("a diagonal scale") };
    // Problem 0 keeps all its members, problem 1 loses some, problem 2 all.
    scale.row_mut(1).fill(20.0);
    scale.row_mut(2).fill(1e15);
    let mut loaded = bench.load(&problem);
    for keep in [Keep::Best(20), Keep::Best(300), Keep::Below(f64::INFINITY)] {
        let got = check_selection(report, &recipe.label(), &mut loaded, &drawn, Terms::ALL, keep);
        let lost: Vec<usize> = got.iter().map(|s| s.diverged).collect();
        report.expect(lost[0] == 0 && (1..300).contains(&lost[1]) && lost[2] == 300, || {
            format!("{lost:?} diverged: not the shares that this test wants")
        });
        report.expect(got[2].importance_ess() == 0.0, || "an effective sample of the diverged".into());
    }
}

/// Of many members, what comes down is what is kept, the histogram and three sums of each block.
fn selection_brings_down_only_what_is_kept(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 1380, sites: 4, times: 2, function: PointFunction::Square, ..Recipe::default() };
    let problem = recipe.build();
    let (count, kept) = (200_000, 50);
    let drawn = draw(&recipe, &problem, count, 0);
    let mut reference: Option<Vec<Selection>> = None;
    for mib in [1, 1024] {
        let engine = bench.variant(|s| s.memory_mib = mib);
        let mut loaded = engine.load(&problem).unwrap();
        let before = loaded.counters();
        let got = loaded.select(&drawn, Terms::ALL, Keep::Best(kept)).unwrap();
        let down = loaded.counters().bytes_down - before.bytes_down;
        let number = bench.precision().bytes();
        let blocks = count.div_ceil(256);
        let sums = 3 * number * blocks + 4 * CostHistogram::BINS;
        // The best so far of each of at most 20 chunks, and the members that share a bin with the worst of them.
        let lists = 20 * 2 * kept * (4 + 2 * number);
        report.expect(bench.is_gpu() != (down == 0) && down as usize <= sums + lists, || {
            format!("{down} bytes down with {mib} MiB, at most {sums} of sums and {lists} of members expected")
        });
        let same = reference.get_or_insert_with(|| got.clone()) == &got;
        report.expect(same, || "a selection that depends on the memory budget".into());
    }
}

/// Small budgets split these batches by members and cut the windows into segments; the answer is the same to the
/// byte.
fn invariance_of_chunks(bench: &Bench, report: &mut Report) {
    let budgets = [1, 2].map(|mib| (mib, bench.variant(|s| s.memory_mib = mib)));
    let fine = Recipe { steps_per_time: 10, dt: 0.005, ..Recipe::default() };
    for (recipe, count) in [
        (Recipe { seed: 1400, function: PointFunction::Square, ..Recipe::default() }, 1025),
        (Recipe { seed: 1401, problems: 3, per_problem: PerProblem::ALL, ..Recipe::default() }, 300),
        (Recipe { seed: 1402, full_background: true, times: 9, ..fine.clone() }, 513),
        (Recipe { seed: 1403, problems: 2, per_problem: PerProblem::ALL, ..fine }.lorenz63(), 1025),
    ] {
        let wide = everything(&bench.engine, &recipe, count);
        for (mib, engine) in &budgets {
            let narrow = everything(engine, &recipe, count);
            same_everything(report, &format!("{mib} MiB against 1024 MiB, {}", recipe.label()), &narrow, &wide);
        }
    }
}

fn invariance_of_threads(bench: &Bench, report: &mut Report) {
    if bench.is_gpu() {
        return;
    }
    let [one, two, three] = [1, 2, 3].map(|t| bench.variant(|s| s.threads = Some(t)));
    for (recipe, count) in [
        (Recipe { seed: 1500, function: PointFunction::Square, ..Recipe::default() }, 1025),
        (Recipe { seed: 1501, problems: 3, per_problem: PerProblem::ALL, times: 9, ..Recipe::default() }, 300),
        (Recipe { seed: 1502, problems: 65, per_problem: PerProblem::ALL, times: 9, ..Recipe::default() }, 1),
        (Recipe { seed: 1503, ..Recipe::default() }.lorenz63(), 1025),
    ] {
        let alone = everything(&one, &recipe, count);
        same_everything(report, &format!("2 threads, {}", recipe.label()), &everything(&two, &recipe, count), &alone);
        same_everything(report, &format!("3 threads, {}", recipe.label()), &everything(&three, &recipe, count), &alone);
    }
}

/// A member's numbers do not depend on who else is in the batch.
fn invariance_of_batch(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 1600, function: PointFunction::Square, ..Recipe::default() };
    let problem = recipe.build();
    let members = recipe.members(&problem, 513);
    let mut loaded = bench.load(&problem);
    let all = loaded.gradient(Members::Given(members.view()), Terms::ALL).unwrap();
    for (start, count) in [(0, 1), (0, 63), (64, 65), (512, 1), (255, 2)] {
        let rows = s![start..start + count, ..];
        let part = loaded.gradient(Members::Given(members.slice(rows)), Terms::ALL).unwrap();
        let case = format!("gradient of members {start} to {} alone and among 513", start + count);
        same_bytes(report, &case, part.gradient.view(), all.gradient.slice(rows));
        same_bytes(report, &case, part.costs.total().view(), all.costs.total().slice(s![start..start + count]));
    }
}

/// Nothing left over from an earlier batch, garbage included, reaches a later one.
fn invariance_of_history(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 1700, function: PointFunction::Square, full_background: true, ..Recipe::default() };
    let problem = recipe.build();
    let fresh = everything(&bench.engine, &recipe, 65);
    let mut loaded = bench.load(&problem);
    let wild = recipe.members(&problem, 513) * 1e12;
    loaded.gradient(Members::Given(wild.view()), Terms::ALL).unwrap();
    loaded.cost(Members::Given(wild.view()), Terms::ALL).unwrap();
    loaded.tangent(Members::Given(wild.view()), recipe.directions(513).view()).unwrap();
    let mut far = draw(&recipe, &problem, 513, 11);
    far.map.mean *= 1e12;
    loaded.moments(&lower(&far, 1), Terms::ALL).unwrap();
    loaded.moments(&low_rank(&far, 5), Terms::ALL).unwrap();
    let (members, drawn) = (recipe.members(&problem, 65), draw(&recipe, &problem, 65, 11));
    let given = Members::Given(members.view());
    let again = [
        ("forecast", flat(loaded.forecast(given).unwrap().iter())),
        ("cost", flat_costs(&loaded.cost(given, Terms::ALL).unwrap())),
        ("gradient", flat_gradients(&loaded.gradient(given, Terms::ALL).unwrap())),
        ("gradient of drawn members", flat_gradients(&loaded.gradient(Members::Drawn(&drawn), Terms::ALL).unwrap())),
        ("moments", Array1::from(flat_moments(&loaded.moments(&drawn, Terms::ALL).unwrap()[0]))),
        (
            "moments of lower scales",
            Array1::from(flat_moments(&loaded.moments(&lower(&drawn, 1), Terms::ALL).unwrap()[0])),
        ),
        (
            "moments of low ranks",
            Array1::from(flat_moments(&loaded.moments(&low_rank(&drawn, 3), Terms::ALL).unwrap()[0])),
        ),
        ("tangent", flat(loaded.tangent(given, recipe.directions(65).view()).unwrap().iter())),
        ("adjoint", flat(loaded.adjoint(given, recipe.forcing(65).view()).unwrap().iter())),
        ("select", flat_selections(&loaded.select(&drawn, Terms::ALL, Keep::Best(10)).unwrap())),
    ];
    same_everything(report, "after a batch of garbage", &again, &fresh);
}

// Controls that hold more than x0.

/// Errors before stored times and between them, with diagonal and full Q, parameters, and both; problems that share all of
/// it and problems that share nothing; sizes that lanes do not divide.
fn controls() -> Vec<Recipe> {
    let base = Recipe { seed: 1700, times: 9, function: PointFunction::Square, observed: 0.7, ..Recipe::default() };
    let set = Recipe { problems: 3, per_problem: PerProblem::ALL, weighted: true, ..base.clone() };
    let steps = Recipe { steps_per_time: 3, dt: 0.02, ..base.clone() };
    vec![
        Recipe { errors: Some((1, false)), ..base.clone() },
        Recipe { estimated: true, sites: 40, ..base.clone() },
        Recipe { errors: Some((3, true)), estimated: true, sites: 13, ..steps.clone() },
        // Errors between the stored times, and none after the last assimilated one.
        Recipe { errors: Some((2, false)), estimated: true, assimilated_times: Some(5), sites: 5, ..steps.clone() },
        Recipe { errors: Some((1, true)), full_background: true, sites: 8, ..set.clone() },
        Recipe { estimated: true, full_background: true, sites: 13, ..set.clone() },
        Recipe { errors: Some((1, false)), estimated: true, block_size: 4, ..set.clone() },
        Recipe { errors: Some((1, true)), estimated: true, ..base }.lorenz63(),
        Recipe { errors: Some((2, false)), estimated: true, assimilated_times: Some(5), ..steps }.lorenz63(),
        Recipe { estimated: true, full_background: true, ..set }.lorenz63(),
    ]
}

fn controls_match_oracle(bench: &Bench, report: &mut Report) {
    for (k, recipe) in controls().into_iter().enumerate() {
        let count = MEMBER_COUNTS[k % 4];
        check_trajectory(bench, report, &recipe, count);
        check_cost(bench, report, &recipe, count);
        check_gradient(bench, report, &recipe, count);
        check_tangent_adjoint(bench, report, &recipe, 3);
    }
}

fn controls_drawn_match_oracle(bench: &Bench, report: &mut Report) {
    for recipe in controls() {
        let problem = recipe.build();
        let drawn = draw(&recipe, &problem, 65, 3);
        let matrices = if recipe.problems > 1 { recipe.problems } else { 1 };
        for drawn in [drawn.clone(), lower(&drawn, matrices), low_rank(&drawn, 3)] {
            check_moments_of(bench, report, &recipe, &problem, &drawn, Terms::ALL);
        }
        check_moments(bench, report, &recipe, 5, Terms { background: true, observation: false });
        // The draws of a selection are those of the other operations.
        let mut loaded = bench.load(&problem);
        let costs = loaded.cost(Members::Drawn(&drawn), Terms::ALL).unwrap().total();
        for (p, selection) in loaded.select(&drawn, Terms::ALL, Keep::Best(1)).unwrap().into_iter().enumerate() {
            let own = costs.slice(s![p * 65..(p + 1) * 65]);
            let least = own.iter().copied().fold(f64::INFINITY, f64::min);
            let kept = own[selection.member[0] as usize];
            report.expect(kept == least, || format!("{}: kept {kept}, the least is {least}", recipe.label()));
        }
    }
}

/// Listed rows with perturbed observations, and members that live on the device with backgrounds of their own.
fn controls_with_data_of_their_own(bench: &Bench, report: &mut Report) {
    for recipe in controls() {
        check_perturbed(bench, report, &recipe, 20, 0.7);
        check_resident_adam(bench, report, Recipe { times: 5, assimilated_times: None, ..recipe });
    }
}

fn controls_do_not_mind_chunks_and_segments(bench: &Bench, report: &mut Report) {
    for recipe in controls() {
        let base = everything(&bench.engine, &recipe, 40);
        for (cut, engine) in other_cuts(bench) {
            let case = format!("{cut}, {}", recipe.label());
            same_everything(report, &case, &everything(&engine, &recipe, 40), &base);
        }
    }
    // A window of several segments, whose ends are no times of errors.
    let fine = Recipe { seed: 1720, steps_per_time: 7, dt: 2e-3, errors: Some((5, false)), ..Recipe::default() };
    let long = Recipe { sites: 40, times: 101, estimated: true, ..fine };
    let problem = long.build();
    let members = long.members(&problem, 64);
    let want = Truth::new(&problem, &members).gradients::<f64>();
    let tight = bench.variant(|s| s.memory_mib = 12);
    let got = tight.load(&problem).unwrap().gradient(Members::Given(members.view()), Terms::ALL).unwrap();
    let bound = bench.bound(Quantity::Short);
    compare("gradient in segments", &long.label(), got.gradient.view(), want.gradient().view(), bound).note(report);
}

fn controls_by_taylor_and_differences(bench: &Bench, report: &mut Report) {
    if bench.precision() == Precision::F32 {
        return;
    }
    for recipe in controls() {
        let recipe = Recipe { problems: 1, per_problem: PerProblem::NONE, ..recipe };
        check_taylor(bench, report, &recipe);
        check_central_differences(bench, report, &recipe);
    }
}

/// Where Q is 0 the errors of the control do nothing, bit for bit, but for their own prior.
fn controls_without_errors_are_the_strong_constraint(bench: &Bench, report: &mut Report) {
    for recipe in controls().into_iter().filter(|r| r.errors.is_some_and(|(_, full)| !full)) {
        let mut weak = recipe.build();
        let (n, rest) = (recipe.sites, recipe.parameters());
        if let Some(q) = &mut weak.model_error {
            q.covariance = ErrorCovariance::Diagonal(Array2::zeros((1, n)));
        }
        let members = recipe.members(&weak, 5);
        let columns: Vec<usize> = (0..n).chain(members.ncols() - rest..members.ncols()).collect();
        let strong = Problem { model_error: None, ..weak.clone() };
        let alone = members.select(Axis(1), &columns);
        let (mut weak, mut strong) = (bench.load(&weak), bench.load(&strong));
        let (weak_given, strong_given) = (Members::Given(members.view()), Members::Given(alone.view()));
        let case = recipe.label();
        let [a, b] = [weak.forecast(weak_given), strong.forecast(strong_given)].map(|t| t.unwrap());
        same_bytes(report, &format!("trajectory, {case}"), a.view(), b.view());
        for terms in [Terms { background: false, observation: true }, Terms::ALL] {
            let [a, b] = [weak.gradient(weak_given, terms), strong.gradient(strong_given, terms)].map(|g| g.unwrap());
            let gradient = a.gradient.select(Axis(1), &columns);
            same_bytes(report, &format!("gradient, {case}"), gradient.view(), b.gradient.view());
            same_bytes(report, &format!("J_o, {case}"), a.costs.observation.view(), b.costs.observation.view());
            let xi = members.slice(s![.., n..members.ncols() - rest]).to_owned();
            let own = a.gradient.slice(s![.., n..members.ncols() - rest]).to_owned();
            let prior = if terms.background { xi } else { Array2::zeros(xi.raw_dim()) };
            compare("gradient of xi", &case, own.view(), prior.view(), bench.bound(Quantity::Short)).note(report);
        }
    }
}

// Rows with data of their own.

/// Uneven numbers of members: one of the first problem, many of the last, numbers with gaps.
fn uneven_rows(problems: usize, most: usize) -> Vec<Row> {
    let counts = (0..problems).map(|p| (p, if p + 1 == problems { most } else { 1 + 3 * p }));
    counts
        .flat_map(|(p, count)| (0..count).map(move |k| Row { problem: p as u32, member: (7 * k + p) as u32 }))
        .collect()
}

/// The problem set in which each row is a problem of its own, its observations perturbed by the oracle's normals.
fn one_problem_per_row(problem: &Problem, rows: &[Row], amplitude: f64) -> Problem {
    let of = |k: usize| rows[k].problem as usize;
    let pick2 = |a: &Array2<f64>| {
        Array2::from_shape_fn((rows.len(), a.ncols()), |(k, i)| a[[if a.nrows() == 1 { 0 } else { of(k) }, i]])
    };
    let pick3 = |a: &Array3<f64>| {
        let (own, times, width) = a.dim();
        Array3::from_shape_fn((rows.len(), times, width), |(k, t, j)| a[[if own == 1 { 0 } else { of(k) }, t, j]])
    };
    let mut set = problem.clone();
    set.parameters = pick2(&problem.parameters);
    set.background.mean = pick2(&problem.background.mean);
    let pick_covariance = |covariance: &ErrorCovariance| match covariance {
        ErrorCovariance::Diagonal(std) => ErrorCovariance::Diagonal(pick2(std)),
        ErrorCovariance::Full(all) if all.len() == 1 => ErrorCovariance::Full(all.clone()),
        ErrorCovariance::Full(all) => ErrorCovariance::Full((0..rows.len()).map(|k| all[of(k)].clone()).collect()),
    };
    set.background.error = pick_covariance(&problem.background.error);
    set.parameter_std = problem.parameter_std.as_ref().map(&pick2);
    if let Some(q) = &problem.model_error {
        set.model_error = Some(ModelError { covariance: pick_covariance(&q.covariance), interval: q.interval });
    }
    let scale = &problem.background.scale;
    set.background.scale = (0..rows.len()).map(|k| scale[if scale.len() == 1 { 0 } else { of(k) }]).collect();
    set.observations = pick3(&problem.observations);
    set.observation_std = pick3(&problem.observation_std);
    set.weights = pick2(&problem.weights);
    set.seeds = (0..rows.len()).map(|k| problem.seeds[of(k)]).collect();
    let (_, times, width) = set.observations.dim();
    for (k, row) in rows.iter().enumerate() {
        for t in 0..times {
            let stream = Stream::ObservationPerturbation as u32;
            let eps = oracle::normals(set.seeds[k], stream, t as u32, row.member, width);
            for j in 0..width {
                set.observations[[k, t, j]] += amplitude * set.observation_std[[k, t, j]] * eps[j];
            }
        }
    }
    set
}

/// Members around each row's background.
fn listed_states(recipe: &Recipe, problem: &Problem, rows: &[Row]) -> Array2<f64> {
    let noise = recipe.directions(rows.len());
    let means: Vec<_> = rows.iter().map(|row| recipe.mean(problem, row.problem as usize)).collect();
    Array2::from_shape_fn(noise.raw_dim(), |(k, i)| means[k][i] + 0.4 * noise[[k, i]])
}

fn check_perturbed(bench: &Bench, report: &mut Report, recipe: &Recipe, most: usize, amplitude: f64) {
    let problem = recipe.build();
    let rows = uneven_rows(recipe.problems, most);
    let states = listed_states(recipe, &problem, &rows);
    let set = one_problem_per_row(&problem, &rows, amplitude);
    let want = Truth::new(&set, &states).gradients::<f64>();
    let members = Members::Listed(Listed { states: states.view(), rows: &rows, amplitude });
    let mut loaded = bench.load(&problem);
    let case = format!("{} perturbed by {amplitude}, {} rows", recipe.label(), rows.len());
    let costs = (want.background.clone(), want.observation.clone());
    let bound = perturbed_bound(bench);
    compare_costs_within(bound, report, &case, &loaded.cost(members, Terms::ALL).unwrap(), &costs);
    let got = loaded.gradient(members, Terms::ALL).unwrap();
    compare_costs_within(bound, report, &case, &got.costs, &costs);
    compare("gradient, perturbed", &case, got.gradient.view(), want.gradient().view(), bound).note(report);
    // The other operations take a list too, and no observations.
    let (v, w) = (recipe.directions(rows.len()), recipe.forcing(rows.len()));
    let truth = Truth::new(&set, &states);
    let bound = bench.bound(Quantity::Short);
    let got = loaded.forecast(members).unwrap();
    compare("trajectory, listed", &case, got.view(), truth.trajectories::<f64>().view(), bound).note(report);
    let got = loaded.tangent(members, v.view()).unwrap();
    compare("tangent, listed", &case, got.view(), truth.tangents::<f64>(&v).view(), bound).note(report);
    let got = loaded.adjoint(members, w.view()).unwrap();
    compare("adjoint, listed", &case, got.view(), truth.adjoints::<f64>(&w).view(), bound).note(report);
}

/// The normals are made in f32 on every engine.
fn perturbed_bound(bench: &Bench) -> Tolerance {
    let short = bench.bound(Quantity::Short);
    let draws = bench.bound(Quantity::Draws);
    if short.bound > draws.bound { short } else { draws }
}

fn perturbed_rows_match_oracle(bench: &Bench, report: &mut Report) {
    let base = Recipe { seed: 2600, times: 9, weighted: true, observed: 0.6, ..Recipe::default() };
    check_perturbed(bench, report, &Recipe { function: PointFunction::Square, ..base.clone() }, 65, 1.0);
    let set = Recipe { problems: 3, per_problem: PerProblem::ALL, ..base.clone() };
    check_perturbed(bench, report, &Recipe { sites: 13, full_background: true, ..set.clone() }, 70, 0.7);
    check_perturbed(bench, report, &Recipe { times: 1, ..set.clone() }, 3, 1.0);
    // Averages; then lanes that share a member, and whose quads of observations no lane holds whole.
    check_perturbed(bench, report, &Recipe { sites: 40, block_size: 4, ..set.clone() }, 5, 1.0);
    check_perturbed(bench, report, &Recipe { sites: 67, ..set.clone() }, 5, 1.0);
    check_perturbed(bench, report, &Recipe { sites: 120, block_size: 3, steps_per_time: 2, ..set.clone() }, 5, 2.0);
    check_perturbed(bench, report, &Recipe { full_background: true, ..set }.lorenz63(), 70, 1.0);
}

/// The normals themselves, one by one: where y = 0, R = 1 and x = 0, dJ_o/dx0 at a window of one time is -eps.
fn perturbed_normals_match_oracle(bench: &Bench, report: &mut Report) {
    for sites in [5, 13, 67, 3] {
        let recipe = Recipe { seed: 2650, times: 1, observed: 1.0, problems: 3, ..Recipe::default() }.sized(sites);
        let mut problem = recipe.build();
        problem.observations.fill(0.0);
        problem.observation_std.fill(1.0);
        let rows = uneven_rows(3, 65);
        let states = Array2::zeros((rows.len(), sites));
        let members = Members::Listed(Listed { states: states.view(), rows: &rows, amplitude: 1.0 });
        let terms = Terms { background: false, observation: true };
        let got = bench.load(&problem).gradient(members, terms).unwrap().gradient;
        let mut worst = [0; 2];
        for (k, row) in rows.iter().enumerate() {
            let p = row.problem as usize;
            let stream = Stream::ObservationPerturbation as u32;
            let exact = oracle::normals(problem.seeds[p], stream, 0, row.member, sites);
            let host = problem.perturbed_observations(p, row.member, 1.0);
            for i in 0..sites {
                worst[0] = worst[0].max(ulps(-got[[k, i]], exact[i]));
                worst[1] = worst[1].max(ulps(-got[[k, i]], host[[0, i]]));
            }
        }
        for (worst, allowed, name) in
            [(worst[0], NORMAL_ULPS, "the oracle"), (worst[1], NORMAL_ULPS_BETWEEN_ENGINES, "the host")]
        {
            report.figure(&format!("perturbations against {name}, ulp"), f64::from(worst), f64::from(allowed));
            report.expect(worst <= allowed, || format!("n {sites}: perturbations {worst} ulp from {name}"));
        }
    }
}

/// A list of all members of each problem, unperturbed, is what it lists.
fn listed_rows_without_perturbation(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 2700, problems: 3, per_problem: PerProblem::ALL, times: 9, ..Recipe::default() };
    let problem = recipe.build();
    let states = recipe.members(&problem, 65);
    let rows: Vec<_> = (0..195).map(|k| Row { problem: k / 65, member: k % 65 }).collect();
    let mut loaded = bench.load(&problem);
    let given = loaded.gradient(Members::Given(states.view()), Terms::ALL).unwrap();
    let listed = Members::Listed(Listed { states: states.view(), rows: &rows, amplitude: 0.0 });
    let listed = loaded.gradient(listed, Terms::ALL).unwrap();
    let (given, listed) = (flat_gradients(&given), flat_gradients(&listed));
    if bench.is_gpu() {
        // Another kernel, which a driver may contract otherwise.
        let bound = bench.bound(Quantity::OwnSums);
        compare("listed against given", &recipe.label(), listed.view(), given.view(), bound).note(report);
    } else {
        same_bytes(report, "listed against given", listed.view(), given.view());
    }
}

/// A row's numbers do not depend on which others are listed.
fn listed_rows_alone_and_in_company(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 2750, problems: 3, per_problem: PerProblem::ALL, times: 9, ..Recipe::default() };
    let problem = recipe.build();
    let rows = uneven_rows(3, 300);
    let states = listed_states(&recipe, &problem, &rows);
    let mut loaded = bench.load(&problem);
    let mut gradient = |keep: &[usize]| {
        let (states, rows) = (states.select(Axis(0), keep), keep.iter().map(|&k| rows[k]).collect::<Vec<_>>());
        let members = Members::Listed(Listed { states: states.view(), rows: &rows, amplitude: 1.0 });
        loaded.gradient(members, Terms::ALL).unwrap()
    };
    let all = gradient(&(0..rows.len()).collect::<Vec<_>>());
    for keep in [vec![0], vec![3, 4, 5, 64], (1..rows.len()).step_by(3).collect(), (5..rows.len()).collect::<Vec<_>>()]
    {
        let part = gradient(&keep);
        let case = format!("{} of {} rows", keep.len(), rows.len());
        same_bytes(report, &case, part.gradient.view(), all.gradient.select(Axis(0), &keep).view());
        same_bytes(report, &case, part.costs.total().view(), all.costs.total().select(Axis(0), &keep).view());
    }
}

fn listed_rows_do_not_mind_chunks_and_threads(bench: &Bench, report: &mut Report) {
    let fine = Recipe { steps_per_time: 10, dt: 0.005, ..Recipe::default() };
    let recipe = Recipe { seed: 2800, problems: 3, per_problem: PerProblem::ALL, times: 9, ..fine };
    let problem = recipe.build();
    let rows = uneven_rows(3, 1000);
    let states = listed_states(&recipe, &problem, &rows);
    let run = |engine: &Engine| {
        let members = Members::Listed(Listed { states: states.view(), rows: &rows, amplitude: 1.0 });
        let mut loaded = engine.load(&problem).unwrap();
        let gradient = flat_gradients(&loaded.gradient(members, Terms::ALL).unwrap());
        [gradient, flat_costs(&loaded.cost(members, Terms::ALL).unwrap())]
    };
    let wide = run(&bench.engine);
    for (what, engine) in other_cuts(bench) {
        let narrow = run(&engine);
        same_bytes(report, &format!("gradient of listed rows, {what}"), narrow[0].view(), wide[0].view());
        same_bytes(report, &format!("cost of listed rows, {what}"), narrow[1].view(), wide[1].view());
    }
}

/// The same engine with its batches cut otherwise.
fn other_cuts(bench: &Bench) -> Vec<(String, Engine)> {
    if bench.is_gpu() {
        return [1, 2].map(|mib| (format!("{mib} MiB"), bench.variant(|s| s.memory_mib = mib))).into();
    }
    [1, 3].map(|n| (format!("{n} threads"), bench.variant(|s| s.threads = Some(n)))).into()
}

/// 600 steps with little memory: the perturbed cost is added segment by segment.
fn perturbed_rows_of_a_long_window(bench: &Bench, report: &mut Report) {
    let tight = bench.variant(|s| s.memory_mib = 2);
    let fine = Recipe { steps_per_time: 15, dt: 0.002, function: PointFunction::Square, ..Recipe::default() };
    let recipe = Recipe { seed: 2850, sites: 40, times: 41, problems: 2, per_problem: PerProblem::ALL, ..fine };
    let problem = recipe.build();
    let rows = uneven_rows(2, 65);
    let states = listed_states(&recipe, &problem, &rows);
    let set = one_problem_per_row(&problem, &rows, 1.0);
    let want = Truth::new(&set, &states).gradients::<f64>();
    let members = Members::Listed(Listed { states: states.view(), rows: &rows, amplitude: 1.0 });
    let got = bench.load(&problem).gradient(members, Terms::ALL).unwrap();
    let bound = perturbed_bound(bench);
    let case = recipe.label();
    compare("gradient, perturbed", &case, got.gradient.view(), want.gradient().view(), bound).note(report);
    compare("J_o, perturbed", &case, got.costs.observation.view(), want.observation.view(), bound).note(report);
    let less = tight.load(&problem).unwrap().gradient(members, Terms::ALL).unwrap();
    same_bytes(report, &format!("2 MiB, {case}"), flat_gradients(&less).view(), flat_gradients(&got).view());
}

// Resident members.

/// What settles members: rows, states, their own backgrounds, units.
struct Settlement {
    recipe: Recipe,
    problem: Problem,
    rows: Vec<Row>,
    states: Array2<f64>,
    backgrounds: Array2<f64>,
    units: Array2<f64>,
}

impl Settlement {
    fn new(recipe: Recipe, most: usize) -> Self {
        let problem = recipe.build();
        let rows = uneven_rows(recipe.problems, most);
        let states = listed_states(&recipe, &problem, &rows);
        let noise = Recipe { seed: recipe.seed + 1, ..recipe.clone() }.directions(rows.len());
        let backgrounds = &states + &(noise * 0.3);
        let units =
            Array2::from_shape_fn((recipe.problems, recipe.control()), |(p, i)| 0.3 + 0.1 * p as f64 + 0.01 * i as f64);
        Self { recipe, problem, rows, states, backgrounds, units }
    }

    fn settle(&self, loaded: &mut LoadedProblem) -> Resident {
        let members = Listed { states: self.states.view(), rows: &self.rows, amplitude: 1.0 };
        loaded.settle(members, self.backgrounds.view(), self.units.view()).unwrap()
    }
}

const COSINE: AdamSettings =
    AdamSettings { learning_rate: 0.02, schedule: Schedule::Cosine, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

/// Fifty steps on the device, in two calls, against the host's Adam on the gradients of one problem per row, each with
/// the row's background and observations.
fn resident_adam_is_the_hosts(bench: &Bench, report: &mut Report) {
    let base = Recipe { seed: 2900, times: 5, problems: 3, per_problem: PerProblem::ALL, ..Recipe::default() };
    for recipe in [base.clone(), Recipe { sites: 13, full_background: true, ..base.clone() }, base.lorenz63()] {
        check_resident_adam(bench, report, recipe);
    }
}

fn check_resident_adam(bench: &Bench, report: &mut Report, recipe: Recipe) {
    let settled = Settlement::new(recipe, 20);
    let case = settled.recipe.label();
    let mut loaded = bench.load(&settled.problem);
    let mut resident = settled.settle(&mut loaded);
    let steps: Vec<_> = COSINE.steps(50).take(50).collect();
    loaded.adam(&mut resident, &steps[..20], Terms::ALL).unwrap();
    loaded.adam(&mut resident, &steps[20..], Terms::ALL).unwrap();
    let got = loaded.states(&resident).unwrap();
    let seen = loaded.inspect(&mut resident, Terms::ALL).unwrap();

    // The same observations, drawn by the host, so that f64 engines agree beyond the normals' precision.
    let mut set = one_problem_per_row(&settled.problem, &settled.rows, 0.0);
    let sites = settled.recipe.sites;
    set.background.mean.assign(&settled.backgrounds.slice(s![.., ..sites]));
    // Of a problem, xi has the prior mean 0: what the rows' own one adds to J_b and its gradient.
    let xi = sites..settled.recipe.control() - settled.recipe.parameters();
    if settled.recipe.estimated {
        set.parameters.assign(&settled.backgrounds.slice(s![.., xi.end..]));
    }
    let own_xi = settled.backgrounds.slice(s![.., xi.clone()]).to_owned();
    for (k, row) in settled.rows.iter().enumerate() {
        let own = settled.problem.perturbed_observations(row.problem as usize, row.member, 1.0);
        set.observations.index_axis_mut(Axis(0), k).assign(&own);
    }
    let units: Vec<f64> = settled.rows.iter().flat_map(|r| settled.units.row(r.problem as usize).to_vec()).collect();
    let mut host = Adam::new(COSINE, units.clone(), 50);
    let mut want = settled.states.clone();
    let mut each = bench.load(&set);
    for _ in 0..50 {
        let mut gradient = each.gradient(Members::Given(want.view()), Terms::ALL).unwrap().gradient;
        let mut of_xi = gradient.slice_mut(s![.., xi.clone()]);
        of_xi -= &own_xi;
        host.step(want.as_slice_mut().unwrap(), gradient.as_slice().unwrap());
    }
    let moved = (&want - &settled.states).map(|d| d.abs()).mean().unwrap();
    report.expect(moved > 0.05, || format!("{case}: members moved by {moved} only"));
    let (bound, reason) = match (bench.precision(), bench.is_gpu()) {
        // A normal drawn on the GPU may differ from the host's by ulps of f32.
        (Precision::F64, true) => (1e-6, "normals of f32"),
        (Precision::F64, false) => (1e-12, "rounding"),
        (Precision::F32, _) => (2e-3, "a small gradient's sign decides a step"),
    };
    let bound = Tolerance { bound, reason };
    compare("resident states", &case, got.view(), want.view(), bound).note(report);
    let mut last = each.gradient(Members::Given(got.view()), Terms::ALL).unwrap();
    let mut of_xi = last.gradient.slice_mut(s![.., xi.clone()]);
    of_xi -= &own_xi;
    let moved_prior = &own_xi * &(&own_xi * 0.5 - got.slice(s![.., xi]));
    last.costs.background += &moved_prior.sum_axis(Axis(1));
    let bound = perturbed_bound(bench);
    let norms: Array1<f64> = (last.gradient.rows().into_iter().zip(units.chunks(settled.recipe.control())))
        .map(|(g, units)| g.iter().zip(units).map(|(g, u)| (g * u).powi(2)).sum::<f64>().sqrt())
        .collect();
    compare("resident J_b", &case, seen.costs.background.view(), last.costs.background.view(), bound).note(report);
    compare("resident J_o", &case, seen.costs.observation.view(), last.costs.observation.view(), bound).note(report);
    compare("resident gradient norm", &case, seen.gradient_norm.view(), norms.view(), bound).note(report);
}

fn resident_members_gathered_keep_their_course(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 2950, times: 5, problems: 3, per_problem: PerProblem::ALL, ..Recipe::default() };
    let settled = Settlement::new(recipe, 300);
    let steps: Vec<_> = COSINE.steps(12).take(12).collect();
    let mut loaded = bench.load(&settled.problem);
    let mut all = settled.settle(&mut loaded);
    loaded.adam(&mut all, &steps, Terms::ALL).unwrap();
    let want = loaded.states(&all).unwrap();
    let seen = loaded.inspect(&mut all, Terms::ALL).unwrap();

    let mut some = settled.settle(&mut loaded);
    let mut left: Vec<usize> = (0..settled.rows.len()).collect();
    for (k, steps) in steps.chunks(4).enumerate() {
        loaded.adam(&mut some, steps, Terms::ALL).unwrap();
        let keep: Vec<usize> = (0..left.len()).filter(|i| i % 3 != k % 3).collect();
        loaded.gather(&mut some, &keep).unwrap();
        left = keep.iter().map(|&i| left[i]).collect();
        let rows: Vec<_> = left.iter().map(|&k| settled.rows[k]).collect();
        report.expect(some.rows() == rows, || "gathered rows are not those that were kept".into());
    }
    let got = loaded.states(&some).unwrap();
    same_bytes(report, "states of gathered members", got.view(), want.select(Axis(0), &left).view());
    let got = loaded.inspect(&mut some, Terms::ALL).unwrap();
    let totals = seen.costs.total().select(Axis(0), &left);
    same_bytes(report, "costs of gathered members", got.costs.total().view(), totals.view());
    let norms = seen.gradient_norm.select(Axis(0), &left);
    same_bytes(report, "gradient norms of gathered members", got.gradient_norm.view(), norms.view());

    let foreign = bench.load(&settled.problem).adam(&mut some, &steps, Terms::ALL);
    report.expect(foreign.is_err(), || "members of another loaded problem were taken".into());
    for keep in [vec![], vec![1, 1], vec![2, 1], vec![left.len()]] {
        report.expect(loaded.gather(&mut some, &keep).is_err(), || format!("places {keep:?} were taken"));
    }
}

fn resident_members_do_not_mind_chunks_and_threads(bench: &Bench, report: &mut Report) {
    let fine = Recipe { steps_per_time: 10, dt: 0.005, ..Recipe::default() };
    let recipe = Recipe { seed: 3000, times: 9, problems: 3, per_problem: PerProblem::ALL, ..fine };
    let settled = Settlement::new(recipe, 700);
    let steps: Vec<_> = COSINE.steps(3).take(3).collect();
    let run = |engine: &Engine| {
        let mut loaded = engine.load(&settled.problem).unwrap();
        let mut resident = settled.settle(&mut loaded);
        loaded.adam(&mut resident, &steps, Terms::ALL).unwrap();
        loaded.states(&resident).unwrap()
    };
    let wide = run(&bench.engine);
    for (what, engine) in other_cuts(bench) {
        same_bytes(report, &format!("resident states, {what}"), run(&engine).view(), wide.view());
    }
}

fn resident_members_that_diverge_stand_still(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 3050, times: 5, problems: 2, per_problem: PerProblem::ALL, ..Recipe::default() };
    let sound = Settlement::new(recipe.clone(), 70);
    let mut mixed = Settlement::new(recipe, 70);
    let lost = [2, 5, 64];
    lost.iter().for_each(|&k| mixed.states.row_mut(k).mapv_inplace(|x| x * 1e12));
    let steps: Vec<_> = COSINE.steps(5).take(5).collect();
    let mut loaded = bench.load(&sound.problem);
    let mut run = |settled: &Settlement| {
        let mut resident = settled.settle(&mut loaded);
        loaded.adam(&mut resident, &steps, Terms::ALL).unwrap();
        (loaded.states(&resident).unwrap(), loaded.inspect(&mut resident, Terms::ALL).unwrap())
    };
    let (want, got) = (run(&sound), run(&mixed));
    for k in 0..sound.rows.len() {
        if lost.contains(&k) {
            let before = mixed.states.row(k);
            let still = got.0.row(k).iter().zip(before).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs());
            report.expect(still, || format!("diverged member {k} moved"));
        } else {
            same_bytes(report, &format!("member {k} beside diverged ones"), got.0.row(k), want.0.row(k));
        }
        report.expect(got.1.costs.diverged[k] == lost.contains(&k), || format!("member {k} is flagged wrongly"));
    }
}

fn divergence_is_contained(bench: &Bench, report: &mut Report) {
    let lost = [0, 5, 64, 129];
    for (sites, times, size) in [(16, 9, 1e10), (16, 9, 1e300), (16, 1, 1e300), (3, 9, 1e10)] {
        let recipe = Recipe { seed: 1800, times, function: PointFunction::Square, observed: 1.0, ..Recipe::default() };
        let recipe = recipe.sized(sites);
        let problem = recipe.build();
        let sound = recipe.members(&problem, 130);
        let mut mixed = sound.clone();
        lost.iter().for_each(|&k| mixed.row_mut(k).mapv_inplace(|x| x * size));
        let case = format!("{} with members of size {size:e}", recipe.label());
        let mut loaded = bench.load(&problem);
        let want = loaded.gradient(Members::Given(sound.view()), Terms::ALL).unwrap();
        let got = loaded.gradient(Members::Given(mixed.view()), Terms::ALL).unwrap();
        let cost = loaded.cost(Members::Given(mixed.view()), Terms::ALL).unwrap();
        let (states, sound_states) = (
            loaded.forecast(Members::Given(mixed.view())).unwrap(),
            loaded.forecast(Members::Given(sound.view())).unwrap(),
        );
        for (operation, flags) in [("gradient", &got.costs.diverged), ("cost", &cost.diverged)] {
            let flagged: Vec<usize> = (0..130).filter(|&k| flags[k]).collect();
            report.expect(flagged == lost, || format!("{operation} flags {flagged:?}, expected {lost:?}: {case}"));
        }
        for k in (0..130).filter(|k| !lost.contains(k)) {
            same_bytes(report, &format!("gradient of member {k}: {case}"), got.gradient.row(k), want.gradient.row(k));
            same_bytes(
                report,
                &format!("trajectory of member {k}: {case}"),
                states.index_axis(Axis(0), k),
                sound_states.index_axis(Axis(0), k),
            );
            let (a, b) = (got.costs.total()[k], want.costs.total()[k]);
            report.expect(a.to_bits() == b.to_bits(), || format!("cost of member {k} is {a}, alone {b}: {case}"));
        }
    }
}

fn divergence_in_moments(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 1900, sites: 8, times: 9, problems: 3, ..Recipe::default() };
    let problem = recipe.build();
    let mut drawn = draw(&recipe, &problem, 300, 0);
    let Scale::Diagonal(scale) = &mut drawn.map.scale else { panic!("a diagonal scale") };
    // Problem 0 keeps all its members, problem 1 loses some, problem 2 all.
    scale.row_mut(1).fill(20.0);
    scale.row_mut(2).fill(1e15);
    let mut triangular = lower(&drawn, 3);
    if let Scale::Lower(scale) = &mut triangular.map.scale {
        [1.0, 50.0, 3e15]
            .iter()
            .enumerate()
            .for_each(|(p, by)| scale.index_axis_mut(Axis(0), p).mapv_inplace(|v| v * by));
    }
    for drawn in [&low_rank(&drawn, 3), &drawn, &triangular] {
        check_divergence_in_moments(bench, report, &recipe, &problem, drawn);
    }
}

fn check_divergence_in_moments(bench: &Bench, report: &mut Report, recipe: &Recipe, problem: &Problem, drawn: &Draw) {
    let mut loaded = bench.load(problem);
    let eps = members_of(&mut loaded, &normals_of(drawn));
    let own = loaded.gradient(Members::Drawn(drawn), Terms::ALL).unwrap();
    let got = loaded.moments(drawn, Terms::ALL).unwrap();
    for (p, got) in got.iter().enumerate() {
        let kept: Vec<usize> = (300 * p..300 * (p + 1)).filter(|&k| !own.costs.diverged[k]).collect();
        let scale = scale_name(&drawn.map.scale);
        let case = format!("{} {scale}, problem {p}: {} of 300 kept", recipe.label(), kept.len());
        let expected = [kept.len() == 300, !kept.is_empty() && kept.len() < 300, kept.is_empty()][p];
        report.expect(expected, || format!("{case}: not the share of divergence that this test wants"));
        report.expect(got.count == 300 && got.diverged == 300 - kept.len(), || {
            format!("{case}: count {}, diverged {}", got.count, got.diverged)
        });
        if kept.is_empty() {
            let sums = flat_moments(got);
            report.expect(sums[2..].iter().all(|v| *v == 0.0), || format!("{case}: sums over nobody are {sums:?}"));
            continue;
        }
        let pick = |a: &Array2<f64>| -> Vec<Vec<f64>> { kept.iter().map(|&k| a.row(k).to_vec()).collect() };
        let costs: Vec<_> = kept.iter().map(|&k| (own.costs.background[k], own.costs.observation[k])).collect();
        let want = oracle::sums(&costs, &pick(&own.gradient), &pick(&eps));
        compare_sums(report, "moments without the diverged", &case, got, &want, bench.bound(Quantity::OwnSums));
        let want = oracle::pattern_sums(&drawn.map.scale, p, &pick(&own.gradient), &pick(&eps));
        compare_pattern(report, "pattern without the diverged", &case, got, &want, bench.bound(Quantity::OwnSums));
    }
}

/// Costs near 1e24 are numbers in f32, but their squares are not. Such members are kept with the right sums or
/// flagged everywhere alike; an ELBO must not stop with an error over them.
fn divergence_of_squares(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 1950, sites: 8, times: 1, problems: 2, ..Recipe::default() };
    let problem = recipe.build();
    let mut drawn = draw(&recipe, &problem, 65, 0);
    let Scale::Diagonal(scale) = &mut drawn.map.scale else { panic!("a diagonal scale") };
    scale.row_mut(1).fill(1e12);
    let mut loaded = bench.load(&problem);
    let eps = members_of(&mut loaded, &normals_of(&drawn));
    let own = loaded.gradient(Members::Drawn(&drawn), Terms::ALL).unwrap();
    let got = loaded.moments(&drawn, Terms::ALL).unwrap();
    for (p, got) in got.iter().enumerate() {
        let kept: Vec<usize> = (65 * p..65 * (p + 1)).filter(|&k| !own.costs.diverged[k]).collect();
        let case = format!("{} problem {p}: {} of 65 kept", recipe.label(), kept.len());
        report.expect(got.count == 65 && got.diverged == 65 - kept.len(), || {
            format!("{case}: count {}, diverged {}", got.count, got.diverged)
        });
        let pick = |a: &Array2<f64>| -> Vec<Vec<f64>> { kept.iter().map(|&k| a.row(k).to_vec()).collect() };
        let costs: Vec<_> = kept.iter().map(|&k| (own.costs.background[k], own.costs.observation[k])).collect();
        if !kept.is_empty() {
            let want = oracle::sums(&costs, &pick(&own.gradient), &pick(&eps));
            compare_sums(report, "moments of huge costs", &case, got, &want, bench.bound(Quantity::OwnSums));
        }
    }
}

/// What the oracle's plain f32 evaluation may lose, else the fixed bound.
fn long_bound(bench: &Bench, loss: impl FnOnce() -> f64) -> Tolerance {
    match bench.precision() {
        Precision::F64 => bench.bound(Quantity::Long),
        Precision::F32 => plain_f32_loss(loss()),
    }
}

/// 10,000 steps to the last observation: more loop iterations than software Vulkan runs in one invocation.
fn long_window_ten_thousand_steps(bench: &Bench, report: &mut Report) {
    let tight = bench.variant(|s| s.memory_mib = 16);
    for (seed, sites, times, steps_per_time, function) in [
        (2000, 40, 11, 1000, PointFunction::Identity),
        (2001, 40, 401, 25, PointFunction::Square),
        (2002, 40, 10_001, 1, PointFunction::Identity),
        (2003, 3, 401, 25, PointFunction::Square),
    ] {
        let recipe = Recipe { seed, times, steps_per_time, dt: 2e-4, function, ..Recipe::default() }.sized(sites);
        let problem = recipe.build();
        let members = recipe.members(&problem, 3);
        let given = Members::Given(members.view());
        let case = recipe.label();
        let truth = Truth::new(&problem, &members);
        let mut loaded = bench.load(&problem);

        let want = truth.trajectories::<f64>();
        let bound = long_bound(bench, || loss(truth.trajectories::<f32>().view(), want.view()));
        let got = loaded.forecast(given).unwrap();
        compare("10,000 steps: trajectory", &case, got.view(), want.view(), bound).note(report);

        let want = truth.gradients::<f64>();
        let plain = (bench.precision() == Precision::F32).then(|| truth.gradients::<f32>());
        let total = &want.background + &want.observation;
        let bound = long_bound(bench, || {
            let plain = plain.as_ref().unwrap();
            loss((&plain.background + &plain.observation).view(), total.view())
        });
        let got = loaded.gradient(given, Terms::ALL).unwrap();
        let cost = loaded.cost(given, Terms::ALL).unwrap();
        compare("10,000 steps: cost", &case, cost.total().view(), total.view(), bound).note(report);
        compare("10,000 steps: cost", &case, got.costs.total().view(), total.view(), bound).note(report);
        let bound = long_bound(bench, || loss(plain.as_ref().unwrap().gradient().view(), want.gradient().view()));
        compare("10,000 steps: gradient", &case, got.gradient.view(), want.gradient().view(), bound).note(report);
        report.expect(got.costs.diverged.iter().chain(&cost.diverged).all(|d| !d), || format!("diverged: {case}"));

        let less = tight.load(&problem).unwrap().gradient(given, Terms::ALL).unwrap();
        same_bytes(report, &format!("16 MiB against 1024 MiB, {case}"), less.gradient.view(), got.gradient.view());
        let wild = &members * 1e12;
        let wild = loaded.gradient(Members::Given(wild.view()), Terms::ALL).unwrap();
        report.expect(wild.costs.diverged.iter().all(|d| *d), || format!("members of size 1e12 survived: {case}"));
        let again = loaded.gradient(given, Terms::ALL).unwrap();
        same_bytes(report, &format!("after a batch of garbage, {case}"), again.gradient.view(), got.gradient.view());

        if steps_per_time == 1000 {
            // The last observation still reaches x0: only the last time is forced.
            let mut forcing = Array3::zeros((3, times, 40));
            let last = recipe.directions(3);
            forcing.index_axis_mut(Axis(1), times - 1).assign(&last);
            let want = truth.adjoints::<f64>(&forcing);
            let growth = want.map(|v| v * v).sum().sqrt() / last.map(|v| v * v).sum().sqrt();
            report.expect(growth > 1.0, || format!("the adjoint shrank to {growth} over the window: {case}"));
            let bound = long_bound(bench, || loss(truth.adjoints::<f32>(&forcing).view(), want.view()));
            let got = loaded.adjoint(given, forcing.view()).unwrap();
            compare("10,000 steps: adjoint", &case, got.view(), want.view(), bound).note(report);
            let v = recipe.directions(3);
            let want = truth.tangents::<f64>(&v);
            let bound = long_bound(bench, || loss(truth.tangents::<f32>(&v).view(), want.view()));
            let got = loaded.tangent(given, v.view()).unwrap();
            compare("10,000 steps: tangent", &case, got.view(), want.view(), bound).note(report);
        }
    }
}

/// The gradient's error against the window's length, beside the loss of a plain f32 evaluation.
fn long_window_error_growth(bench: &Bench, report: &mut Report) {
    eprintln!("    gradient's error, n 40, dt 0.05: time units, this engine, plain f32 oracle, ratio");
    for times in [1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41] {
        let recipe = Recipe { seed: 2100, sites: 40, times, function: PointFunction::Square, ..Recipe::default() };
        let problem = recipe.build();
        let members = recipe.members(&problem, 16);
        let truth = Truth::new(&problem, &members);
        let want = truth.gradients::<f64>().gradient();
        let plain = loss(truth.gradients::<f32>().gradient().view(), want.view());
        let got = bench.load(&problem).gradient(Members::Given(members.view()), Terms::ALL).unwrap().gradient;
        let bound = long_bound(bench, || plain);
        let comparison = compare("error growth: gradient", &recipe.label(), got.view(), want.view(), bound);
        let error = comparison.error();
        eprintln!("    {:5.1} {error:9.2e} {plain:9.2e} {:8.3}", 0.05 * (times - 1) as f64, error / plain);
        comparison.note(report);
    }
}

/// Two million members in one call: more workgroups than one dimension of a dispatch holds.
fn many_members(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 2200, sites: 4, times: 2, function: PointFunction::Square, ..Recipe::default() };
    let problem = recipe.build();
    let count = 4_300_000;
    let drawn = draw(&recipe, &problem, count, 0);
    let mut loaded = bench.load(&problem);
    let moments = loaded.moments(&drawn, Terms::ALL).unwrap().remove(0);
    report.expect(moments.count == count && moments.diverged == 0, || {
        format!("moments of {} members, {} of them diverged; expected {count} and 0", moments.count, moments.diverged)
    });
    let costs = loaded.cost(Members::Drawn(&drawn), Terms::ALL).unwrap();
    let members = members_of(&mut loaded, &drawn);
    let probes: Vec<usize> = (0..count).step_by(42_961).chain([count - 1, 65_535 * 64, 65_535 * 64 - 1]).collect();
    let probed = members.select(Axis(0), &probes);
    let scale = diagonal(&drawn);
    let want = Array2::from_shape_fn(probed.raw_dim(), |(k, i)| {
        let eps = oracle::normals(problem.seeds[0], drawn.stream as u32, 0, probes[k] as u32, 4);
        drawn.map.mean[[0, i]] + scale[[0, i]] * eps[i]
    });
    let bound = bench.bound(Quantity::Draws);
    compare("m + S eps", "of 4.3 million members", probed.view(), want.view(), bound).note(report);
    let want = Truth::new(&problem, &probed).costs::<f64>();
    let got = costs.total().select(Axis(0), &probes);
    let bound = bench.bound(Quantity::Short);
    compare("J of 4.3 million members", "probes", got.view(), (want.0 + want.1).view(), bound).note(report);
    let want = Array1::from(vec![costs.total().sum()]);
    let got = Array1::from(vec![moments.cost_background + moments.cost_observation]);
    let bound = bench.bound(Quantity::OwnSums);
    compare("sum of J of 4.3 million members", "", got.view(), want.view(), bound).note(report);

    // Two problems of more members than one run of blocks holds.
    let recipe = Recipe { seed: 2201, problems: 2, per_problem: PerProblem::ALL, ..recipe };
    check_moments(bench, report, &recipe, 70_000, Terms::ALL);
}

/// The exact work of each operation on a small case: 5 members of 8 sites, 4 times of 2 steps, 3 assimilated.
/// Operations share scratch: a reverse sweep of no steps must leave enough of it for a whole trajectory.
fn trajectory_after_a_gradient_of_nothing(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 2350, sites: 8, times: 5, observed: 0.0, ..Recipe::default() };
    let problem = recipe.build();
    let members = recipe.members(&problem, 5);
    let given = Members::Given(members.view());
    let mut loaded = bench.load(&problem);
    let want = loaded.forecast(given).unwrap();
    let tangent = loaded.tangent(given, members.view()).unwrap();
    loaded.gradient(given, Terms::ALL).unwrap();
    report.expect(loaded.forecast(given).unwrap() == want, || "a forecast differs after a gradient".into());
    loaded.gradient(given, Terms::ALL).unwrap();
    report.expect(loaded.tangent(given, members.view()).unwrap() == tangent, || {
        "a tangent trajectory differs after a gradient".into()
    });
}

fn counters_are_pinned(bench: &Bench, report: &mut Report) {
    let recipe = Recipe {
        seed: 2300,
        sites: 8,
        times: 4,
        steps_per_time: 2,
        dt: 0.025,
        assimilated_times: Some(3),
        ..Recipe::default()
    };
    let problem = recipe.build();
    let members = recipe.members(&problem, 5);
    let given = Members::Given(members.view());
    let mut loaded = bench.load(&problem);
    let start = loaded.counters();
    report.expect((start.model_steps, start.adjoint_steps, start.tangent_steps) == (0, 0, 0), || {
        format!("work before the first operation: {start:?}")
    });
    let (all, assimilated) = (5 * 6, 5 * 4);
    type Operation<'a> = Box<dyn Fn(&mut LoadedProblem) + 'a>;
    let drawn = draw(&recipe, &problem, 5, 0);
    let (triangular, ranked) = (lower(&drawn, 1), low_rank(&drawn, 2));
    let (v, w) = (recipe.directions(5), recipe.forcing(5));
    let background = Terms { background: true, observation: false };
    let rows: Vec<_> = (0..5).map(|member| Row { problem: 0, member }).collect();
    let listed = Listed { states: members.view(), rows: &rows, amplitude: 1.0 };
    let resident =
        RefCell::new(loaded.settle(listed, members.view(), recipe.directions(1).map(|d| d.abs()).view()).unwrap());
    let steps: Vec<_> = COSINE.steps(3).take(3).collect();
    let mut operations: Vec<(&str, Operation, [u64; 3])> = vec![
        ("forecast", Box::new(|l| drop(l.forecast(given).unwrap())), [all, 0, 0]),
        ("cost", Box::new(|l| drop(l.cost(given, Terms::ALL).unwrap())), [assimilated, 0, 0]),
        ("gradient", Box::new(|l| drop(l.gradient(given, Terms::ALL).unwrap())), [assimilated, assimilated, 0]),
        ("moments", Box::new(|l| drop(l.moments(&drawn, Terms::ALL).unwrap())), [assimilated, assimilated, 0]),
        (
            "moments of a lower scale",
            Box::new(|l| drop(l.moments(&triangular, Terms::ALL).unwrap())),
            [assimilated, assimilated, 0],
        ),
        (
            "moments of a low rank",
            Box::new(|l| drop(l.moments(&ranked, Terms::ALL).unwrap())),
            [assimilated, assimilated, 0],
        ),
        ("select", Box::new(|l| drop(l.select(&drawn, Terms::ALL, Keep::Best(2)).unwrap())), [assimilated, 0, 0]),
        ("tangent", Box::new(|l| drop(l.tangent(given, v.view()).unwrap())), [all, 0, all]),
        ("adjoint", Box::new(|l| drop(l.adjoint(given, w.view()).unwrap())), [all, all, 0]),
        // J_b needs no model.
        ("cost, J_b alone", Box::new(|l| drop(l.cost(given, background).unwrap())), [0, 0, 0]),
        ("gradient, J_b alone", Box::new(|l| drop(l.gradient(given, background).unwrap())), [0, 0, 0]),
        (
            "gradient, perturbed",
            Box::new(|l| drop(l.gradient(Members::Listed(listed), Terms::ALL).unwrap())),
            [assimilated, assimilated, 0],
        ),
        (
            "inspect",
            Box::new(|l| drop(l.inspect(&mut resident.borrow_mut(), Terms::ALL).unwrap())),
            [assimilated, assimilated, 0],
        ),
        (
            "three Adam steps",
            Box::new(|l| l.adam(&mut resident.borrow_mut(), &steps, Terms::ALL).unwrap()),
            [3 * assimilated, 3 * assimilated, 0],
        ),
    ];
    for (name, run, want) in &mut operations {
        let before = loaded.counters();
        run(&mut loaded);
        let after = loaded.counters();
        let got = [
            after.model_steps - before.model_steps,
            after.adjoint_steps - before.adjoint_steps,
            after.tangent_steps - before.tangent_steps,
        ];
        report.expect(got == *want, || format!("{name}: model, adjoint and tangent steps {got:?}, expected {want:?}"));
        check_traffic(bench, report, name, before, after);
    }
}

/// A CPU engine moves nothing. On a GPU, moments are one submission and one small readback; other operations may read
/// several buffers back.
fn check_traffic(bench: &Bench, report: &mut Report, name: &str, before: Counters, after: Counters) {
    let submissions = after.submissions - before.submissions;
    let dispatches = after.dispatches - before.dispatches;
    let (up, down) = (after.bytes_up - before.bytes_up, after.bytes_down - before.bytes_down);
    if !bench.is_gpu() {
        let still = submissions + dispatches + up + down == 0;
        report.expect(still, || format!("{name}: a CPU engine reports {after:?}"));
        return;
    }
    let sums = name.starts_with("moments");
    let most = if sums || name == "three Adam steps" { 1 } else { 3 };
    report.expect((1..=most).contains(&submissions), || format!("{name}: {submissions} submissions, at most {most}"));
    report.expect((1..=9).contains(&dispatches), || format!("{name}: {dispatches} dispatches, expected a few"));
    // Of 8 sites: 5 sums and 5 of each site, and those on the pattern of S.
    let number = bench.precision().bytes() as u64;
    let fits = match name {
        "moments" => up <= 1024 && down == 45 * number,
        "moments of a lower scale" => up <= 1024 && down == (45 + 8 * 9) * number,
        "moments of a low rank" => up <= 1024 && down == (45 + 3 * 8 * 2) * number,
        "three Adam steps" => up <= 1024 && down == 0,
        _ => up > 0 && down > 0,
    };
    report.expect(fits, || format!("{name}: {up} bytes up, {down} bytes down"));
}

/// Kernel time grows with every operation and stays below the clock on the wall; on a GPU only where it is asked for.
fn kernels_are_timed(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 2400, sites: 16, times: 6, ..Recipe::default() };
    let problem = recipe.build();
    let members = recipe.members(&problem, 100);
    let rows: Vec<_> = (0..100).map(|member| Row { problem: 0, member }).collect();
    let listed = Listed { states: members.view(), rows: &rows, amplitude: 1.0 };
    let mut loaded = bench.load(&problem);
    report.expect(loaded.kernel_time().is_none() == bench.is_gpu(), || "kernel time before it is asked for".into());
    loaded.time_kernels(true).unwrap();
    let Some(start) = loaded.kernel_time() else {
        println!("{}: no clock", bench.engine.hardware());
        return;
    };
    let mut resident = loaded.settle(listed, members.view(), recipe.directions(1).map(|d| d.abs()).view()).unwrap();
    // More passes than a device's clock keeps at a time.
    let steps: Vec<_> = COSINE.steps(500).take(500).collect();
    let drawn = draw(&recipe, &problem, 100, 0);
    let mut before = start;
    type Operation<'a> = Box<dyn FnMut(&mut LoadedProblem) + 'a>;
    let operations: [(&str, Operation); 4] = [
        ("cost", Box::new(|l| drop(l.cost(Members::Given(members.view()), Terms::ALL).unwrap()))),
        ("moments", Box::new(|l| drop(l.moments(&drawn, Terms::ALL).unwrap()))),
        ("selection", Box::new(|l| drop(l.select(&drawn, Terms::ALL, Keep::Best(2)).unwrap()))),
        ("500 Adam steps", Box::new(|l| l.adam(&mut resident, &steps, Terms::ALL).unwrap())),
    ];
    for (name, mut run) in operations {
        let clock = Instant::now();
        run(&mut loaded);
        let wall = clock.elapsed();
        let after = loaded.kernel_time().expect("it is on");
        let spent = after.checked_sub(before).unwrap_or_default();
        report.expect(!spent.is_zero() && spent <= wall, || format!("{name}: {spent:?} in kernels of {wall:?}"));
        before = after;
    }
    loaded.time_kernels(false).unwrap();
    report.expect(loaded.kernel_time().is_none() == bench.is_gpu(), || "kernel time is off and goes on".into());
}

/// The variant that a problem was loaded with, asked for by its name, gives the same bytes, and so it does once more; of
/// another variant the numbers agree.
fn kernels_by_name_give_the_same_bytes(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 2500, sites: 16, times: 6, ..Recipe::default() };
    let problem = recipe.build();
    let drawn = draw(&recipe, &problem, 300, 0);
    let mut loaded = bench.load(&problem);
    let (kernel, auto) = (loaded.kernel(), loaded.moments(&drawn, Terms::ALL).unwrap());
    report.expect(!kernel.is_empty(), || "a kernel without a name".into());
    let named = |kernel: &str| EngineSettings { kernel: kernel.into(), ..bench.settings.clone() };
    if !bench.is_gpu() {
        report.expect(Engine::new(&named("lanes=1")).is_err(), || "the CPU engine took a GPU's kernel".into());
        return;
    }
    for _ in 0..2 {
        let engine = Engine::new(&named(&kernel)).unwrap();
        let mut again = engine.load(&problem).unwrap();
        report.expect(again.kernel() == kernel && engine.kernel() == kernel, || {
            format!("{kernel} was asked for, {} loaded", again.kernel())
        });
        report.expect(again.moments(&drawn, Terms::ALL).unwrap() == auto, || format!("other bytes by {kernel}"));
    }
    let mut two = Engine::new(&named("lanes=2")).unwrap().load(&problem).unwrap();
    report.expect(two.kernel() != kernel, || format!("{} is no other kernel", two.kernel()));
    let (a, b) = (&auto[0], &two.moments(&drawn, Terms::ALL).unwrap()[0]);
    let gap = (a.cost_observation / b.cost_observation - 1.0).abs();
    report.expect(gap < 1e-3 && a.count == b.count, || format!("J_o of two kernels {gap:e} apart"));
    for wrong in ["fastest", "lanes=0", "lanes=one", "lanes=16", "lanes=2,group=63"] {
        let refused = Engine::new(&named(wrong)).and_then(|engine| engine.load(&problem));
        let message = refused.map_or_else(|e| e.to_string(), |_| String::new());
        report.expect(message.contains("kernel"), || format!("kernel {wrong:?}: {message:?}"));
    }
}

/// A call with fewer members than the one before keeps its buffers and gives what it gives alone; so does one that grows
/// back.
fn fewer_members_prepare_nothing(bench: &Bench, report: &mut Report) {
    let recipe = Recipe { seed: 2600, sites: 8, times: 5, ..Recipe::default() };
    let problem = recipe.build();
    let members = recipe.members(&problem, 600);
    let rows: Vec<_> = (0..600).map(|member| Row { problem: 0, member }).collect();
    let mut loaded = bench.load(&problem);
    let prepared = |loaded: &LoadedProblem| loaded.counters().preparations;
    for count in [600, 599, 513, 130, 64, 63, 2, 1, 600] {
        let states = members.slice(s![..count, ..]);
        let of = Listed { states, rows: &rows[..count], amplitude: 1.0 };
        let found = loaded.gradient(Members::Listed(of), Terms::ALL).unwrap();
        let alone = bench.load(&problem).gradient(Members::Listed(of), Terms::ALL).unwrap();
        report.expect(found.gradient == alone.gradient && found.costs.observation == alone.costs.observation, || {
            format!("{count} members in the buffers of more differ")
        });
    }
    let expected = u64::from(bench.is_gpu());
    report.expect(prepared(&loaded) == expected, || format!("{} preparations for one list", prepared(&loaded)));
    let drawn = draw(&recipe, &problem, 65, 0);
    for (k, drawn) in [lower(&drawn, 1), low_rank(&drawn, 2), drawn].into_iter().enumerate() {
        for iteration in 0..5 {
            loaded.moments(&Draw { iteration, ..drawn.clone() }, Terms::ALL).unwrap();
        }
        let (found, expected) = (prepared(&loaded), (2 + k as u64) * expected);
        report.expect(found == expected, || format!("{found} preparations after {} loops", k + 1));
    }
}

fn bad_input_is_refused(bench: &Bench, report: &mut Report) {
    fn refuse<T>(report: &mut Report, what: &str, result: Result<T>) {
        match result {
            Ok(_) => report.expect(false, || format!("{what} was accepted")),
            Err(e) => {
                report.expect(e.exit_code() == 2, || format!("{what}: exit code {}, expected 2: {e}", e.exit_code()));
            }
        }
    }
    let recipe =
        Recipe { seed: 2400, sites: 8, times: 3, problems: 2, per_problem: PerProblem::ALL, ..Recipe::default() };
    let problem = recipe.build();
    let mut loaded = bench.load(&problem);

    let good = recipe.members(&problem, 2);
    let with = |value: f64| {
        let mut members = good.clone();
        members[[3, 7]] = value;
        members
    };
    for (what, members) in [
        ("no members", Array2::zeros((0, 8))),
        ("three members for two problems", Array2::zeros((3, 8))),
        ("members of seven sites", Array2::zeros((4, 7))),
        ("members of no sites", Array2::zeros((4, 0))),
        ("a NaN among the members", with(f64::NAN)),
        ("an infinity among the members", with(f64::NEG_INFINITY)),
    ] {
        let given = Members::Given(members.view());
        refuse(report, &format!("forecast: {what}"), loaded.forecast(given));
        refuse(report, &format!("cost: {what}"), loaded.cost(given, Terms::ALL));
        refuse(report, &format!("gradient: {what}"), loaded.gradient(given, Terms::ALL));
        let (v, w) = (Array2::zeros(members.raw_dim()), Array3::zeros((members.nrows(), 3, 8)));
        refuse(report, &format!("tangent: {what}"), loaded.tangent(given, v.view()));
        refuse(report, &format!("adjoint: {what}"), loaded.adjoint(given, w.view()));
    }
    let given = Members::Given(good.view());
    for (what, directions) in [
        ("too few directions", Array2::zeros((3, 8))),
        ("short directions", Array2::zeros((4, 7))),
        ("a NaN among the directions", with(f64::NAN)),
    ] {
        refuse(report, what, loaded.tangent(given, directions.view()));
    }
    for (what, forcing) in [
        ("too little forcing", Array3::zeros((3, 3, 8))),
        ("forcing of the assimilated times alone", Array3::zeros((4, 2, 8))),
        ("NaN forcing", Array3::from_elem((4, 3, 8), f64::NAN)),
    ] {
        refuse(report, what, loaded.adjoint(given, forcing.view()));
    }
    let drawn = draw(&recipe, &problem, 2, 0);
    let map = |mean: Array2<f64>, scale: Array2<f64>| AffineMap { mean, scale: Scale::Diagonal(scale) };
    let lower_scale = |draw: &Draw, scale: Array3<f64>| {
        let mean = draw.map.mean.clone();
        Draw { map: AffineMap { mean, scale: Scale::Lower(scale) }, ..draw.clone() }
    };
    let low_rank_scale = |shapes: [(usize, usize, usize); 2], value: f64| {
        let [left, right] = shapes.map(|shape| Array3::from_elem(shape, value));
        let scale = Scale::LowRank { diagonal: Array2::ones((2, 8)), left, right };
        Draw { map: AffineMap { mean: Array2::ones((2, 8)), scale }, ..drawn.clone() }
    };
    let fine = Array2::ones((2, 8));
    for (what, drawn) in [
        ("a draw of no members", Draw { count: 0, ..drawn.clone() }),
        ("a mean for one of two problems", Draw { map: map(Array2::ones((1, 8)), fine.clone()), ..drawn.clone() }),
        ("a short scale", Draw { map: map(fine.clone(), Array2::ones((2, 7))), ..drawn.clone() }),
        ("a NaN mean", Draw { map: map(&fine * f64::NAN, fine.clone()), ..drawn.clone() }),
        ("an infinite scale", Draw { map: map(fine.clone(), &fine * f64::INFINITY), ..drawn.clone() }),
        ("a lower triangular scale of 7 sites", lower_scale(&drawn, Array3::zeros((1, 7, 7)))),
        ("three lower triangular scales", lower_scale(&drawn, Array3::zeros((3, 8, 8)))),
        ("a full scale", lower_scale(&drawn, Array3::ones((2, 8, 8)))),
        ("a NaN lower triangular scale", lower_scale(&drawn, Array3::from_elem((2, 8, 8), f64::NAN))),
        ("a rank of 0", low_rank_scale([(2, 8, 0), (2, 8, 0)], 1.0)),
        ("a rank above the sites", low_rank_scale([(2, 8, 9), (2, 8, 9)], 1.0)),
        ("factors of two ranks", low_rank_scale([(2, 8, 2), (2, 8, 3)], 1.0)),
        ("factors for one of two problems", low_rank_scale([(1, 8, 2), (1, 8, 2)], 1.0)),
        ("a NaN factor", low_rank_scale([(2, 8, 2), (2, 8, 2)], f64::NAN)),
    ] {
        refuse(report, &format!("moments: {what}"), loaded.moments(&drawn, Terms::ALL));
        refuse(report, &format!("forecast: {what}"), loaded.forecast(Members::Drawn(&drawn)));
        refuse(report, &format!("select: {what}"), loaded.select(&drawn, Terms::ALL, Keep::Best(1)));
    }
    for keep in [Keep::Best(0), Keep::Below(f64::NAN)] {
        refuse(report, &format!("select: {keep:?}"), loaded.select(&drawn, Terms::ALL, keep));
    }

    let rows = [0, 0, 1, 1].map(|problem| Row { problem, member: 0 });
    let fine = Listed { states: good.view(), rows: &rows, amplitude: 1.0 };
    let (swapped, foreign) = ([1, 0].map(|problem| Row { problem, member: 0 }), [Row { problem: 2, member: 0 }]);
    let (two, one, nan) = (good.slice(s![..2, ..]), good.slice(s![..1, ..]), with(f64::NAN));
    for (what, listed) in [
        ("no rows", Listed { states: good.slice(s![..0, ..]), rows: &[], ..fine }),
        ("more states than rows", Listed { rows: &rows[..3], ..fine }),
        ("problems out of order", Listed { states: two, rows: &swapped, ..fine }),
        ("a problem that is not there", Listed { states: one, rows: &foreign, ..fine }),
        ("a negative amplitude", Listed { amplitude: -1.0, ..fine }),
        ("a NaN amplitude", Listed { amplitude: f64::NAN, ..fine }),
        ("a NaN among listed states", Listed { states: nan.view(), ..fine }),
    ] {
        let members = Members::Listed(listed);
        refuse(report, &format!("gradient: {what}"), loaded.gradient(members, Terms::ALL));
        refuse(report, &format!("cost: {what}"), loaded.cost(members, Terms::ALL));
        let units = Array2::ones((2, 8));
        refuse(report, &format!("settle: {what}"), loaded.settle(listed, good.view(), units.view()));
    }
    for (what, backgrounds, units) in [
        ("too few backgrounds", Array2::ones((3, 8)), Array2::ones((2, 8))),
        ("a NaN background", with(f64::NAN), Array2::ones((2, 8))),
        ("units of one problem", good.clone(), Array2::ones((1, 8))),
        ("units of 0", good.clone(), Array2::zeros((2, 8))),
    ] {
        refuse(report, &format!("settle: {what}"), loaded.settle(fine, backgrounds.view(), units.view()));
    }

    type Spoil = fn(&mut Problem);
    let spoiled: [(&str, Spoil); 17] = [
        ("no problems", |p| p.seeds.clear()),
        ("three seeds for two problems' data", |p| p.seeds.push(3)),
        ("no times", |p| p.window.times = 0),
        ("more assimilated times than times", |p| p.window.assimilated_times = 4),
        ("no assimilated times", |p| p.window.assimilated_times = 0),
        ("no steps", |p| p.window.steps_per_time = 0),
        ("a negative step", |p| p.window.dt = -0.05),
        ("a NaN step", |p| p.window.dt = f64::NAN),
        ("a NaN background", |p| p.background.mean[[0, 0]] = f64::NAN),
        ("a background deviation of 0", |p| p.background.error = ErrorCovariance::Diagonal(Array2::zeros((1, 8)))),
        ("a negative background scale", |p| p.background.scale.fill(-1.0)),
        ("an infinite observation", |p| p.observations[[0, 1, 1]] = f64::INFINITY),
        ("an observation without a deviation", |p| {
            p.observations[[0, 1, 1]] = 1.0;
            p.observation_std[[0, 1, 1]] = f64::NAN;
        }),
        ("a negative weight", |p| p.weights.fill(-1.0)),
        ("a NaN forcing parameter", |p| p.parameters.fill(f64::NAN)),
        ("blocks that do not divide the sites", |p| p.operator.block_size = 3),
        ("blocks of no sites", |p| p.operator.block_size = 0),
    ];
    for (what, spoil) in spoiled {
        let mut bad = problem.clone();
        spoil(&mut bad);
        refuse(report, what, bench.engine.load(&bad));
    }
    let mut small = Recipe { sites: 4, ..recipe.clone() }.build();
    small.background.mean = Array2::zeros((1, 3));
    refuse(report, "three sites", bench.engine.load(&small));

    let mut settings = bench.settings.clone();
    settings.threads = Some(0);
    refuse(report, "no threads", Engine::new(&settings));
    settings = EngineSettings { memory_mib: 0, ..bench.settings.clone() };
    refuse(report, "no memory", Engine::new(&settings));
    if bench.is_gpu() {
        settings = EngineSettings { adapter: Some("an adapter that nobody made".into()), ..bench.settings.clone() };
        refuse(report, "an unknown adapter", Engine::new(&settings));
    }
    // The refusals left the loaded problem as it was.
    let after = loaded.gradient(given, Terms::ALL).unwrap();
    let fresh = bench.load(&problem).gradient(given, Terms::ALL).unwrap();
    same_bytes(report, "gradient after refusals", after.gradient.view(), fresh.gradient.view());
}

//! Checks of the oracle itself, and of the helpers that the other tests lean on.

#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use common::{Quantity, Recipe, Tolerance, Truth, compare, tolerance, ulps};
use ndarray::{Array1, array};
use vi4dvar::engine::Precision;
use vi4dvar::problem::PointFunction;
use vi4dvar::validation::oracle::{Oracle, normals, philox};

/// Every operator, B and averaging, at the smallest size where all neighbours differ and one where they do not.
fn recipes() -> Vec<Recipe> {
    let mut all = Vec::new();
    for function in PointFunction::ALL {
        for (sites, block_size, full_background) in [(4, 1, false), (6, 2, true), (13, 1, true)] {
            let base = Recipe { seed: 90, sites, times: 6, function, block_size, full_background, ..Recipe::default() };
            all.push(Recipe { steps_per_time: 3, dt: 0.02, weighted: true, observed: 0.7, ..base.clone() });
            all.push(Recipe { assimilated_times: Some(4), ..base });
        }
    }
    let base = Recipe { seed: 95, sites: 6, times: 5, steps_per_time: 2, ..Recipe::default() };
    all.push(Recipe { errors: Some((2, false)), ..base.clone() });
    all.push(Recipe { estimated: true, full_background: true, ..base.clone() });
    all.push(Recipe { errors: Some((1, true)), estimated: true, assimilated_times: Some(3), ..base });
    for function in PointFunction::ALL {
        let base = Recipe { seed: 96, times: 6, function, weighted: true, ..Recipe::default() }.lorenz63();
        all.push(Recipe { block_size: 3, steps_per_time: 2, ..base.clone() });
        all.push(Recipe { errors: Some((1, true)), estimated: true, full_background: true, ..base });
    }
    all
}

#[test]
fn oracle_gradient_matches_central_differences_of_each_term() {
    for recipe in recipes() {
        let problem = recipe.build();
        let oracle = Oracle::<f64>::new(&problem, 0);
        let x = recipe.members(&problem, 1).row(0).to_vec();
        let (_, gradient) = oracle.gradient(&x);
        let step = 1e-4;
        let difference = |term: fn(&Oracle<f64>, &[f64]) -> f64| -> Array1<f64> {
            (0..x.len())
                .map(|i| {
                    let moved =
                        |by: f64| (0..x.len()).map(|k| if k == i { x[k] + by } else { x[k] }).collect::<Vec<_>>();
                    (term(&oracle, &moved(step)) - term(&oracle, &moved(-step))) / (2.0 * step)
                })
                .collect()
        };
        let bound = tolerance(Quantity::Differences, Precision::F64);
        let want = difference(|o, x| o.cost(x).background);
        compare("J_b", &recipe.label(), Array1::from(gradient.background).view(), want.view(), bound).assert();
        let want = difference(|o, x| o.cost(x).observation);
        compare("J_o", &recipe.label(), Array1::from(gradient.observation).view(), want.view(), bound).assert();
    }
}

#[test]
fn oracle_tangent_matches_central_differences_and_its_adjoint() {
    for recipe in recipes() {
        let problem = recipe.build();
        let oracle = Oracle::<f64>::new(&problem, 0);
        let x = recipe.members(&problem, 1).row(0).to_vec();
        let v = recipe.directions(1).row(0).to_vec();
        let moved = |by: f64| oracle.trajectory(&x.iter().zip(&v).map(|(x, v)| x + by * v).collect::<Vec<_>>());
        let (plus, minus, tangent) = (moved(1e-4), moved(-1e-4), oracle.tangent(&x, &v));
        let want: Array1<f64> =
            plus.iter().flatten().zip(minus.iter().flatten()).map(|(p, m)| (p - m) / 2e-4).collect();
        let got: Array1<f64> = tangent.iter().flatten().copied().collect();
        compare("tangent", &recipe.label(), got.view(), want.view(), tolerance(Quantity::Differences, Precision::F64))
            .assert();

        let forcing: Vec<Vec<f64>> =
            recipe.forcing(1).outer_iter().next().unwrap().rows().into_iter().map(|w| w.to_vec()).collect();
        let back = oracle.adjoint(&x, &forcing);
        let forward: f64 = tangent.iter().flatten().zip(forcing.iter().flatten()).map(|(a, b)| a * b).sum();
        let backward: f64 = back.iter().zip(&v).map(|(a, b)| a * b).sum();
        assert!((forward - backward).abs() <= 1e-12 * forward.abs().max(1.0), "{forward} {backward}");
    }
}

#[test]
fn oracle_step_has_order_four() {
    let error = |base: &Recipe, steps: usize| {
        let recipe = Recipe { times: 2, steps_per_time: steps, dt: 0.2 / steps as f64, ..base.clone() };
        let fine = Recipe { steps_per_time: 2048, dt: 0.2 / 2048.0, ..recipe.clone() };
        let x: Vec<f64> = (0..base.sites).map(|i| 2.0 + (i as f64).sin()).collect();
        let end = |r: &Recipe| Oracle::<f64>::new(&r.build(), 0).trajectory(&x)[1].clone();
        end(&recipe).iter().zip(end(&fine)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    for base in [Recipe { sites: 8, ..Recipe::default() }, Recipe::default().lorenz63()] {
        let order = (error(&base, 8) / error(&base, 16)).log2();
        assert!((3.7..4.3).contains(&order), "{}: order {order}", base.label());
    }
}

#[test]
fn oracle_philox_known_answers() {
    assert_eq!(philox(0, [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox(!0, [!0; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    assert_eq!(
        philox(0x299f_31d0_a409_3822, [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

#[test]
fn oracle_normals_are_those_of_the_library() {
    let mut worst = 0;
    for (seed, iteration, member) in [(1, 0, 0), (0xDEAD_BEEF_0000_0001, 7, 65_537), (u64::MAX, u32::MAX, u32::MAX)] {
        let exact = normals(seed, vi4dvar::random::Stream::Posterior as u32, iteration, member, 4000);
        for (block, four) in exact.chunks(4).enumerate() {
            let got =
                vi4dvar::random::normals(seed, vi4dvar::random::Stream::Posterior, iteration, member, block as u32);
            worst = got.iter().zip(four).map(|(g, e)| ulps(f64::from(*g), *e)).fold(worst, u32::max);
        }
    }
    assert!(worst <= common::NORMAL_ULPS, "{worst} ulp");
}

#[test]
fn oracle_in_f32_stays_near_f64() {
    let recipe = Recipe { full_background: true, function: PointFunction::Square, ..Recipe::default() };
    let problem = recipe.build();
    let members = recipe.members(&problem, 3);
    let truth = Truth::new(&problem, &members);
    let bound = tolerance(Quantity::Short, Precision::F32);
    let (wide, plain) = (truth.gradients::<f64>().gradient(), truth.gradients::<f32>().gradient());
    let comparison = compare("plain f32", &recipe.label(), plain.view(), wide.view(), bound);
    assert!(comparison.error() > 1e-9, "an f32 evaluation cannot be that exact");
    comparison.assert();
}

#[test]
fn comparison_counts_what_is_not_finite() {
    let loose = Tolerance { bound: f64::INFINITY, reason: "anything finite passes" };
    for (got, want) in [
        (array![1.0, f64::NAN], array![1.0, 2.0]),
        (array![1.0, 2.0], array![1.0, f64::NAN]),
        (array![f64::INFINITY, 2.0], array![f64::INFINITY, 2.0]),
        (array![1.0], array![1.0, 2.0]),
        (array![], array![]),
    ] {
        let outcome = std::panic::catch_unwind(|| compare("values", "", got.view(), want.view(), loose).assert());
        assert!(outcome.is_err(), "{got} passed for {want}");
    }
    compare("values", "", array![1.0, 2.0].view(), array![1.0, 3.0].view(), loose).assert();
    assert_eq!((ulps(1.0, 1.0), ulps(1.0, 1.0 + f64::from(f32::EPSILON)), ulps(0.0, -0.0)), (0, 1, 0));
    assert_eq!(ulps(f64::NAN, 1.0), u32::MAX);
}

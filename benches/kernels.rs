//! The kernels under divan, to see whether a change made one slower: `cargo bench`, or `cargo bench -- gradient`. What they
//! reach of the machine's limits, and GPUs: `vi4dvar bench`.

use divan::{Bencher, counter::ItemsCount};
use ndarray::{Array2, Axis};
use vi4dvar::{
    AffineMap, Draw, Engine, Keep, LoadedProblem, Members, PointFunction, Precision, Problem, Scale, Stream, Terms,
    TwinSettings, normals, philox, simulate,
};

fn main() {
    divan::main();
}

/// Sites and times of the case study, and of the usual larger setting.
const SIZES: [(usize, usize); 2] = [(16, 12), (40, 40)];
const MEMBERS: usize = 4096;

fn problem(sites: usize, times: usize) -> Problem {
    let operator = if sites == 16 { PointFunction::Square } else { PointFunction::Identity };
    simulate(&TwinSettings { sites, times, assimilated_times: times, operator, dt: 0.05, ..TwinSettings::default() })
        .expect("the twin is a sound one")
}

fn loaded(sites: usize, times: usize) -> (LoadedProblem, Draw) {
    let problem = problem(sites, times);
    let background = &problem.background;
    let map =
        AffineMap { mean: background.mean.clone(), scale: Scale::Diagonal(background.std_of(0).insert_axis(Axis(0))) };
    let engine = Engine::cpu(Precision::F32).expect("threads for the CPU engine");
    let draw = Draw { map, stream: Stream::MonteCarlo, iteration: 0, count: MEMBERS };
    (engine.load(&problem).expect("the engine takes the problem"), draw)
}

/// Members as a host would hand them over.
fn given(draw: &Draw) -> Array2<f64> {
    let n = draw.map.mean.ncols();
    let Scale::Diagonal(scale) = &draw.map.scale else { unreachable!("made above") };
    Array2::from_shape_fn((draw.count, n), |(k, i)| {
        let z = normals(1, Stream::Starts, 0, k as u32, (i / 4) as u32)[i % 4];
        draw.map.mean[[0, i]] + scale[[0, i]] * f64::from(z)
    })
}

#[divan::bench(args = SIZES)]
fn forecast(bencher: Bencher, (sites, times): (usize, usize)) {
    let (mut loaded, draw) = loaded(sites, times);
    let states = given(&draw);
    bencher.counter(ItemsCount::new(MEMBERS)).bench_local(|| loaded.forecast(Members::Given(states.view())));
}

#[divan::bench(args = SIZES)]
fn gradient(bencher: Bencher, (sites, times): (usize, usize)) {
    let (mut loaded, draw) = loaded(sites, times);
    let states = given(&draw);
    bencher
        .counter(ItemsCount::new(MEMBERS))
        .bench_local(|| loaded.gradient(Members::Given(states.view()), Terms::ALL));
}

#[divan::bench(args = SIZES)]
fn elbo(bencher: Bencher, (sites, times): (usize, usize)) {
    let (mut loaded, draw) = loaded(sites, times);
    bencher.counter(ItemsCount::new(MEMBERS)).bench_local(|| loaded.moments(&draw, Terms::ALL));
}

#[divan::bench(args = SIZES)]
fn abc(bencher: Bencher, (sites, times): (usize, usize)) {
    let (mut loaded, draw) = loaded(sites, times);
    let terms = Terms { background: false, observation: true };
    bencher.counter(ItemsCount::new(MEMBERS)).bench_local(|| loaded.select(&draw, terms, Keep::Best(4)));
}

/// Draws and sums with next to no model: a window of one time.
#[divan::bench(args = [16, 40])]
fn draws_and_sums(bencher: Bencher, sites: usize) {
    let (mut loaded, draw) = loaded(sites, 1);
    bencher.counter(ItemsCount::new(MEMBERS)).bench_local(|| loaded.moments(&draw, Terms::ALL));
}

#[divan::bench]
fn philox_words(bencher: Bencher) {
    bencher.counter(ItemsCount::new(4 * MEMBERS)).bench_local(|| {
        (0..MEMBERS as u32).fold([0u32; 4], |sum, k| {
            let words = philox([7, 0], [0, k, 0, 0]);
            [0, 1, 2, 3].map(|i| sum[i] ^ words[i])
        })
    });
}

#[divan::bench]
fn normal_draws(bencher: Bencher) {
    bencher.counter(ItemsCount::new(4 * MEMBERS)).bench_local(|| {
        (0..MEMBERS as u32).fold(0.0, |sum, k| sum + normals(7, Stream::MonteCarlo, 0, k, 0).iter().sum::<f32>())
    });
}

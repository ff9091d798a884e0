//! Twenty twins of the case study in lockstep: the mean field's spread, and how often 4DVAR is caught in a
//! local minimum. `cargo run --release --example twenty_twins`

use vi4dvar::engine::{AffineMap, Draw, Engine, Precision, Scale, Terms};
use vi4dvar::experiment::{Preset, scores, simulate_set};
use vi4dvar::method::{Analysis, FourDVarSettings, MethodSettings, Silent, ViSettings};
use vi4dvar::optimizer::Schedule;
use vi4dvar::random::Stream;

fn record<'a>(analysis: &'a Analysis, name: &str) -> &'a ndarray::ArrayD<f64> {
    &analysis.records.iter().find(|r| r.name == name).expect("a record that the method documents").values
}

fn main() -> vi4dvar::error::Result<()> {
    let engine = Engine::cpu(Precision::F64)?;
    let preset = Preset::from_name("isda-16")?;
    let seeds: Vec<u64> = (1..=20).collect();
    let preset = Preset {
        methods: MethodSettings { vi: ViSettings { batch: Some(64), ..preset.methods.vi }, ..preset.methods },
        ..preset
    };
    let problem = &simulate_set(&preset.twin, &seeds)?;

    let many = FourDVarSettings { starts: 64, ..preset.methods.four_d_var }.run(problem, &engine, &mut Silent)?;
    let four_d_var = &preset.methods.four_d_var.run(problem, &engine, &mut Silent)?;
    // The slides' 1500 iterations at a constant rate end before the deviations have settled; these do not.
    let settled =
        ViSettings { iterations: 10_000, learning_rate: 0.02, schedule: Some(Schedule::Cosine), ..preset.methods.vi };
    let vi = &settled.run(problem, &engine, &mut Silent)?;
    println!("Below: VI with 10,000 iterations, learning rate 0.02 falling to zero; 4DVAR with 8 starts.");
    println!("seed   RMSE at t = 0       sd   sd sqrt(H_ii)       J from   lowest J of  starts of 64");
    println!("     4DVAR      VI       VI   median (min-max)         xb      64 starts    that reach it");
    let (mut caught, mut all_ratios) = (0, Vec::new());
    for (p, seed) in seeds.iter().enumerate() {
        let score = |a: &Analysis| {
            let scores = scores(problem, p, a, None);
            scores.rmse.zip(scores.std).expect("twins have a truth")
        };
        let hessian = record(&many[p], "hessian");
        let mut ratios: Vec<f64> =
            record(&vi[p], "variational_std").iter().enumerate().map(|(i, s)| s * hessian[[i, i]].sqrt()).collect();
        ratios.sort_by(f64::total_cmp);
        all_ratios.extend(&ratios);
        let minima = record(&many[p], "minimum_cost");
        let lowest = minima.iter().copied().fold(f64::INFINITY, f64::min);
        let alone = record(&four_d_var[p], "minimum_cost")[0];
        let reach = minima.iter().filter(|j| **j < 1.01 * lowest).count();
        caught += usize::from(alone > 1.01 * lowest);
        let ((a, _), (b, sd)) = (score(&four_d_var[p]), score(&vi[p]));
        let [low, median, high] = [0, ratios.len() / 2, ratios.len() - 1].map(|k| ratios[k]);
        println!(
            "{seed:4} {:5.2} {:7.2} {:8.2} {median:8.2} ({low:.2}-{high:.2}) {alone:10.1} {lowest:14.1} {reach:16}",
            a.initial, b.initial, sd.initial
        );
    }
    all_ratios.sort_by(f64::total_cmp);
    let at = |q: f64| all_ratios[(q * (all_ratios.len() - 1) as f64) as usize];
    println!(
        "VI's sd times sqrt(H_ii), 5 % - median - 95 % of all sites: {:.2} {:.2} {:.2}",
        at(0.05),
        at(0.5),
        at(0.95)
    );
    println!("4DVAR from xb alone ended above the lowest minimum in {caught} of {} twins\n", seeds.len());

    // The Monte Carlo variance of the gradient with respect to mu, summed over sites, at the first fit.
    let single = simulate_set(&preset.twin, &[1])?;
    let mut loaded = engine.load(&single)?;
    let row = |a: &Analysis, name| record(a, name).clone().into_shape_with_order((1, 16)).expect("16 sites");
    let map =
        AffineMap { mean: row(&vi[0], "variational_mean"), scale: Scale::Diagonal(row(&vi[0], "variational_std")) };
    println!("batch   variance of the ELBO gradient   times batch");
    for batch in [1, 4, 16, 64, 256, 1024, 4096] {
        let repeats = 400u32;
        let (mut sum, mut squares) = (vec![0.0; 16], vec![0.0; 16]);
        for iteration in 0..repeats {
            let draw = Draw { map: map.clone(), stream: Stream::MonteCarlo, iteration, count: batch };
            let moments = loaded.moments(&draw, Terms::ALL)?.remove(0);
            for (i, g) in moments.gradient.iter().map(|g| g / batch as f64).enumerate() {
                sum[i] += g;
                squares[i] += g * g;
            }
        }
        let n = f64::from(repeats);
        let variance: f64 = sum.iter().zip(&squares).map(|(s, q)| (q - s * s / n) / (n - 1.0)).sum();
        println!("{batch:5} {variance:20.5} {:20.1}", variance * batch as f64);
    }
    Ok(())
}

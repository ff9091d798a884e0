//! Ensembles of 4DVAR on twins of the case study: what each way to minimise costs and where it ends.
//! `cargo run --release --example ensemble_minimisers [members] [twins] [assimilated times]`

use ndarray::s;
use vi4dvar::method::ensemble::Start;
use vi4dvar::{Engine, EnsembleSettings, Minimiser, Precision, Result, Silent, TwinSettings, simulate_set};

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let [members, twins, times] = [1000, 10, 12].map(|default| numbers.next().unwrap_or(default));
    let engine = Engine::cpu(Precision::F32)?;
    let seeds: Vec<u64> = (1..=twins as u64).collect();
    let problem =
        &simulate_set(&TwinSettings { assimilated_times: times, times: times + 4, ..TwinSettings::default() }, &seeds)?;
    println!("{members} members of each of {twins} twins, {times} times assimilated, on {}", engine.hardware());
    println!(
        "minimiser start      stages   kept  stuck spurious iterations evaluations   steps RMSE t=0 window     sd  mean J - J* - p/2  seconds"
    );
    for (minimiser, start, stages) in [
        (Minimiser::Lbfgs, Start::Minimum, 1),
        (Minimiser::Lbfgs, Start::Minimum, 4),
        (Minimiser::Lbfgs, Start::Background, 1),
        (Minimiser::Lbfgs, Start::Background, 4),
        (Minimiser::Lbfgs, Start::Background, times),
        (Minimiser::Adam, Start::Minimum, 1),
        (Minimiser::Adam, Start::Background, 1),
    ] {
        let settings = EnsembleSettings {
            members,
            minimiser,
            start,
            stages,
            max_diverged_share: 1.0,
            ..EnsembleSettings::default()
        };
        let analyses = settings.run(problem, &engine, &mut Silent)?;
        let mean = |value: &dyn Fn(usize) -> f64| (0..twins).map(value).sum::<f64>() / twins as f64;
        let number = |name: &str| mean(&|p| analyses[p].number(name).expect("a number that the method documents"));
        let record = |name: &str| {
            mean(&|p| {
                analyses[p].record(name).and_then(|r| r.values.mean()).expect("a record that the method documents")
            })
        };
        let share = |name: &str| number(name) / members as f64;
        let rmse = |p: usize, times: usize| {
            let truth = problem.truth_of(p).expect("twins have a truth");
            let errors = &analyses[p].mean.slice(s![..times, ..]) - &truth.slice(s![..times, ..]);
            errors.mapv(|e| e * e).mean().expect("at least one time").sqrt()
        };
        println!(
            "{:9} {:10} {stages:6} {:6.4} {:6.4} {:8.4} {:10.0} {:11.0} {:7.0} {:8.3} {:6.3} {:6.3} {:18.2} {:8.1}",
            format!("{minimiser:?}"),
            format!("{start:?}"),
            share("kept_members"),
            share("stuck_members"),
            share("spurious_members"),
            record("iterations"),
            record("evaluations"),
            number("model_steps_per_member") + number("adjoint_steps_per_member"),
            mean(&|p| rmse(p, 1)),
            mean(&|p| rmse(p, times)),
            mean(&|p| analyses[p].std.row(0).mean().expect("sites")),
            number("mean_minimum_cost") - number("four_d_var_cost") - 0.5 * number("observation_count"),
            analyses[0].seconds,
        );
    }
    Ok(())
}

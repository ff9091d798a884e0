//! A first gradient: the cost of a few initial states, dJ/dx0 by the adjoint, and a finite difference beside it.
//! `cargo run --release --example first_gradient`

use ndarray::Array2;
use vi4dvar::{Engine, Members, Precision, Result, Terms, TwinSettings, simulate};

fn main() -> Result<()> {
    // Lorenz-96, 16 sites, 12 assimilated times, half of the squared observations dropped.
    let problem = simulate(&TwinSettings::default())?;
    let engine = Engine::cpu(Precision::F64)?;
    let mut loaded = engine.load(&problem)?;

    // Three members: the background, and the background moved by a tenth along site 0, either way.
    let step = 0.1;
    let mut members = Array2::from_shape_fn((3, problem.sites()), |(_, i)| problem.background.mean_of(0)[i]);
    members[[1, 0]] += step;
    members[[2, 0]] -= step;
    let batch = loaded.gradient(Members::Given(members.view()), Terms::ALL)?;

    let cost = batch.costs.total();
    println!("on {}", engine.hardware());
    println!("J at the background: J_b = {}, J_o = {:.3}", batch.costs.background[0], batch.costs.observation[0]);
    println!("dJ/dx0 at site 0: adjoint {:.4}", batch.gradient[[0, 0]]);

    // The central difference converges to it with the square of the step.
    for exponent in [2, 3, 4] {
        let step = 10f64.powi(-exponent);
        (members[[1, 0]], members[[2, 0]]) = (members[[0, 0]] + step, members[[0, 0]] - step);
        let cost = loaded.cost(Members::Given(members.view()), Terms::ALL)?.total();
        println!("                  difference {:.4} with a step of {step}", (cost[1] - cost[2]) / (2.0 * step));
    }
    assert!(cost.iter().all(|j| j.is_finite()));
    println!("{:?}", loaded.counters());
    Ok(())
}

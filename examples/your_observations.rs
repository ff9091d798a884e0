//! Your own observations: a problem built field by field, assimilated, and written to a file that xarray opens.
//! `cargo run --release --example your_observations [FILE.nc]`

use ndarray::{Array1, Array2, Array3, Axis};
use vi4dvar::{
    Attributes, Background, Engine, EngineSettings, ErrorCovariance, FourDVarSettings, Model, ObservationOperator,
    PointFunction, Problem, Result, Silent, ViSettings, Window, write_analysis,
};

fn main() -> Result<()> {
    // 40 sites, 9 stored times 0.1 apart, the first 7 assimilated: two RK4 steps of 0.05 between stored times.
    let (sites, times) = (40, 9);
    let window = Window { times, assimilated_times: 7, steps_per_time: 2, dt: 0.05 };

    // What was measured: NaN where there is nothing. A run of the model stands in for it here, seen at every second
    // site and every second time with an error of at most 0.5.
    let model = Model::Lorenz96;
    let mut state: Vec<f64> = (0..sites).map(|i| if i == 0 { 8.5 } else { 8.0 }).collect();
    model.integrate(&[8.0], &mut state, window.dt, 400);
    let background: Array1<f64> = state.iter().zip(0..).map(|(x, i)| x + (1.7 * f64::from(i)).sin()).collect();
    let mut observations = Array3::from_elem((1, times, sites), f64::NAN);
    for t in 1..times {
        model.integrate(&[8.0], &mut state, window.dt, window.steps_per_time);
        for i in (0..sites).step_by(2).filter(|_| t % 2 == 0) {
            observations[[0, t, i]] = state[i] + 0.5 * (2.9 * (t * sites + i) as f64).sin();
        }
    }

    let problem = Problem {
        model,
        parameters: Array2::from_elem((1, 1), 8.0), // the forcing F
        parameter_std: None,
        true_parameters: None,
        model_error: None,
        window,
        background: Background {
            mean: background.insert_axis(Axis(0)),
            error: ErrorCovariance::Diagonal(Array2::from_elem((1, sites), 0.7)),
            scale: Array1::ones(1),
        },
        operator: ObservationOperator { function: PointFunction::Identity, block_size: 1 },
        observation_std: Array3::from_elem((1, times, sites), 0.4),
        observations,
        weights: Array2::ones((1, times)),
        seeds: vec![7],
        truth: None,
    };

    // A real GPU where there is one, else the CPU.
    let engine = Engine::new(&EngineSettings::default())?;
    let map = FourDVarSettings::default().run(&problem, &engine, &mut Silent)?.remove(0);
    let vi = ViSettings { batch: Some(256), ..ViSettings::default() }.run(&problem, &engine, &mut Silent)?.remove(0);

    println!("on {}", engine.hardware());
    for analysis in [&map, &vi] {
        println!("{}: {}", analysis.method, analysis.summary);
    }
    println!("site   background   4DVAR    +-    VI-4DVAR    +-");
    for i in (0..sites).step_by(8) {
        let background = problem.background.mean_of(0)[i];
        let (m, v) = (map.mean[[0, i]], vi.mean[[0, i]]);
        println!("{i:4} {background:12.2} {m:7.2} {:5.2} {v:11.2} {:5.2}", map.std[[0, i]], vi.std[[0, i]]);
    }
    if let Some(path) = std::env::args().nth(1) {
        write_analysis(&path, &problem, &vi, &Attributes::new(), false)?;
        println!("xarray.open_dataset({path:?}, engine=\"scipy\") opens it");
    }
    Ok(())
}

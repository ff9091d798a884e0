use ndarray::*;
use std::time::Instant;
use vi4dvar::{engine::*, model::Model, problem::*, random::*};
fn problem(n: usize, times: usize, f: PointFunction) -> Problem {
    let mut x = Array2::from_elem((1, n), 8.0);
    x[[0, 0]] += 0.01;
    let mut v = x.row(0).to_vec();
    Model::Lorenz96.integrate(&[8.0], &mut v, 0.05, 1000);
    Problem {
        model: Model::Lorenz96,
        parameters: array![[8.0]],
        window: Window { times, assimilated_times: times, steps_per_time: 1, dt: 0.05 },
        background: Background {
            mean: Array2::from_shape_vec((1, n), v).unwrap(),
            error: BackgroundError::Diagonal(Array2::from_elem((1, n), 1.0)),
            scale: array![1.0],
        },
        operator: ObservationOperator { function: f, block_size: 1 },
        observations: Array3::from_elem((1, times, n), 3.0),
        observation_std: Array3::from_elem((1, times, n), 1.0),
        weights: Array2::ones((1, times)),
        seeds: vec![1],
        truth: None,
    }
}
fn main() {
    let prec = if std::env::args().nth(1).as_deref() == Some("f64") { Precision::F64 } else { Precision::F32 };
    let backend = if std::env::args().nth(2).as_deref() == Some("gpu") { Backend::Gpu } else { Backend::Cpu };
    let e = Engine::new(&EngineSettings { backend, precision: prec, ..Default::default() }).unwrap();
    println!("{}", e.hardware());
    for (n, t, f) in [(16, 12, PointFunction::Square), (40, 40, PointFunction::Identity)] {
        let p = problem(n, t, f);
        let mut l = e.load(&p).unwrap();
        for m in [1usize, 1024, 65536] {
            let draw = |it| Draw {
                map: AffineMap {
                    mean: p.background.mean.clone(),
                    scale: Scale::Diagonal(Array2::from_elem((1, n), 0.3)),
                },
                stream: Stream::MonteCarlo,
                iteration: it,
                count: m,
            };
            let mut best = f64::MAX;
            let mut s = 0.0;
            for it in 0..(if m == 1 { 2000 } else { 20 }) {
                let d = draw(it);
                let t0 = Instant::now();
                let r = l.moments(&d, Terms::ALL).unwrap();
                s = r[0].cost_observation / m as f64;
                best = best.min(t0.elapsed().as_secs_f64());
            }
            println!("n={n} T={t} M={m}: {:.1} us, {:.3} M/s  J={s}", best * 1e6, m as f64 / best * 1e-6);
        }
    }
}

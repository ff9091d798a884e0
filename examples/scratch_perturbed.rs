//! Scratch: member-gradients per second, perturbed and not; resident Adam steps.
use ndarray::Array2;
use std::time::Instant;
use vi4dvar::engine::{Engine, Listed, Members, Precision, Row, Terms};
use vi4dvar::experiment::{TwinSettings, simulate};
use vi4dvar::optimizer::AdamSettings;

fn main() -> vi4dvar::error::Result<()> {
    for precision in [Precision::F32, Precision::F64] {
        let twin = TwinSettings { sites: 16, times: 12, assimilated_times: 12, dt: 0.05, ..Default::default() };
        let problem = simulate(&twin)?;
        let engine = Engine::cpu(precision)?;
        println!("{}", engine.hardware());
        let count = 65_536;
        let mean = problem.background.mean_of(0).to_owned();
        let states = Array2::from_shape_fn((count, 16), |(k, i)| mean[i] + 0.01 * ((k * 7 + i * 3) % 41) as f64 - 0.2);
        let rows: Vec<_> = (0..count as u32).map(|member| Row { problem: 0, member }).collect();
        let mut loaded = engine.load(&problem)?;
        let terms = Terms { background: false, observation: true };
        for amplitude in [0.0, 1.0, 0.0, 1.0] {
            let mut seconds = Vec::new();
            for _ in 0..7 {
                let clock = Instant::now();
                loaded.gradient(Members::Listed(Listed { states: states.view(), rows: &rows, amplitude }), terms)?;
                seconds.push(clock.elapsed().as_secs_f64());
            }
            seconds.sort_by(f64::total_cmp);
            println!(
                "  amplitude {amplitude}: {:.2} (best {:.2}) million gradients/s",
                count as f64 / seconds[3] * 1e-6,
                count as f64 / seconds[0] * 1e-6
            );
        }
        let count = 10_000;
        let some = states.slice(ndarray::s![..count, ..]);
        let units = Array2::from_elem((1, 16), 0.3);
        for amplitude in [0.0, 1.0] {
            let members = Listed { states: some, rows: &rows[..count], amplitude };
            let mut resident = loaded.settle(members, some, units.view())?;
            let steps: Vec<_> = AdamSettings::default().steps(100).take(100).collect();
            let clock = Instant::now();
            loaded.adam(&mut resident, &steps, Terms::ALL)?;
            let s = clock.elapsed().as_secs_f64();
            println!("  resident, amplitude {amplitude}: {:.0} steps/s of 10,000 members", 100.0 / s);
        }
    }
    Ok(())
}

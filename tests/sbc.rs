//! Simulation-based calibration as a command and from the library: who is calibrated by theorem, and who is found out.

use assert_cmd::Command;
use std::fs;
use tempfile::{TempDir, tempdir};
use vi4dvar::diagnostics::Shape;
use vi4dvar::experiment::Preset;
use vi4dvar::method::Method;
use vi4dvar::{Engine, Precision, Silent};

/// Eight sites, a short window, and few samples.
fn small() -> Preset {
    let mut preset = Preset::from_name("isda-16-mild").unwrap();
    (preset.twin.sites, preset.twin.times, preset.twin.assimilated_times) = (8, 6, 5);
    preset.methods.prior.samples = 99;
    preset.methods.four_d_var.samples = 99;
    (preset.methods.vi.samples, preset.methods.vi.iterations, preset.methods.vi.initial_std) = (99, 1, 0.03);
    preset
}

/// The truth of a prior twin is a draw from the prior, so the prior is calibrated exactly; Laplace nearly is where the
/// problem is nearly linear; a q that had no time to leave its narrow start is not.
#[test]
fn sbc_tells_the_calibrated_from_the_narrow() {
    let engine = Engine::cpu(Precision::F32).unwrap();
    let seeds: Vec<u64> = (1..=120).collect();
    let sbc = small()
        .sbc(&seeds, &[Method::Prior, Method::FourDVar, Method::Vi(vi4dvar::Family::MeanField)], &engine, &mut Silent)
        .unwrap();
    println!("{sbc}");
    let [prior, laplace, narrow] = [0, 1, 2].map(|k| &sbc.methods[k].initial);
    assert_eq!((sbc.problems, sbc.sites, prior.samples.clone()), (120, 8, vec![99; 120]));
    assert!(
        prior.ecdf.p_value > 0.01 && laplace.ecdf.p_value > 0.01,
        "{} {}",
        prior.ecdf.p_value,
        laplace.ecdf.p_value
    );
    assert!(prior.site_p_values.iter().all(|p| *p > 0.001), "{:?}", prior.site_p_values);
    assert_eq!(narrow.ecdf.shape(), Shape::TooNarrow, "{}", narrow.summary);
    assert!(sbc.to_string().contains("VI-4DVAR: at t = 0 too narrow: "), "{sbc}");
    // The rank of one site by hand: samples below the truth.
    assert!(prior.ranks.iter().flatten().all(|rank| *rank <= 99) && prior.ranks[0].len() == 8);
    let again = small().sbc(&seeds, &[Method::Prior], &engine, &mut Silent).unwrap();
    assert_eq!((&again.methods[0].initial.ranks, &again.methods[0].initial.ecdf), (&prior.ranks, &prior.ecdf));
}

#[test]
fn sbc_refuses_what_cannot_be_calibrated() {
    let engine = Engine::cpu(Precision::F32).unwrap();
    let run = |preset: &Preset, seeds: &[u64]| {
        let error = preset.sbc(seeds, &[Method::Prior], &engine, &mut Silent).expect_err("no SBC");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let classic = run(&Preset::from_name("isda-16").unwrap(), &[1, 2]);
    assert!(classic.contains("prior twins") && classic.contains("isda-16-prior"), "{classic}");
    assert!(run(&small(), &[1]).starts_with("problems"));
}

fn program(directory: &TempDir, arguments: &str) -> Command {
    let mut command = Command::cargo_bin("vi4dvar").unwrap();
    command.current_dir(directory).args(arguments.split_whitespace());
    command
}

const SMALL: &str = "--backend cpu --quiet --sites 8 --times 6 --assimilated-times 5 --samples 20 --iterations 20";

#[test]
fn sbc_command_writes_ranks_settings_and_figure_and_repeats_itself() {
    let d = tempdir().unwrap();
    let first = program(&d, &format!("sbc {SMALL} --problems 12 --methods 4dvar,vi --out a")).assert().success();
    let text = String::from_utf8(first.get_output().stdout.clone()).unwrap();
    assert!(
        text.starts_with(
            "lorenz96, 8 sites, 5 of 6 times assimilated, operator square, prior twins of seeds 1 to 12\n"
        )
    );
    assert!(text.contains("VI-4DVAR: at t = 0 "), "{text}");
    program(&d, "sbc --config a/sbc.toml --quiet --out b").assert().success();
    for name in ["sbc.json", "sbc.toml", "sbc.svg", "sbc.png"] {
        let read = |folder: &str| fs::read(d.path().join(folder).join(name)).unwrap();
        assert!(!read("a").is_empty() && read("a") == read("b"), "{name}");
    }
    let json: serde_json::Value = serde_json::from_slice(&fs::read(d.path().join("a/sbc.json")).unwrap()).unwrap();
    assert_eq!((json["problems"].as_u64(), json["sites"].as_u64()), (Some(12), Some(8)));
    let ranks = &json["methods"][1]["window_end"];
    assert_eq!(ranks["ranks"].as_array().unwrap().len(), 12);
    assert_eq!(ranks["ecdf"]["points"].as_array().unwrap().len(), ranks["ecdf"]["band_low"].as_array().unwrap().len());
    // Nothing is written over, nothing computed for nothing.
    program(&d, &format!("sbc {SMALL} --problems 12 --out a")).assert().code(2);
    let classic = program(&d, "sbc --preset isda-16 --out c").assert().code(2);
    assert!(String::from_utf8_lossy(&classic.get_output().stderr).contains("isda-16-prior"));
    assert!(!d.path().join("c").exists());
}

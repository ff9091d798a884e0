//! `--kernel` and the cache from outside: what was measured is kept, stamped and taken by its name, and a cache that is
//! broken or cannot be written is none.

use assert_cmd::Command;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use vi4dvar::engine::adapters;
use vi4dvar::output::{SavedAnalysis, read_analysis};

const PROBLEM: &str = "simulate --sites 8 --times 4 --assimilated-times 4 --out p.nc";
const FIT: &str = "assimilate p.nc --method vi --iterations 5 --samples 5 --importance-draws 100 --quiet --force";

/// The command in a directory, with a cache of its own.
fn vi4dvar(directory: &TempDir, cache: &Path, arguments: &str) -> Command {
    let mut command = Command::cargo_bin("vi4dvar").unwrap();
    command.current_dir(directory).env("VI4DVAR_CACHE", cache).args(arguments.split_whitespace());
    command
}

fn succeed(directory: &TempDir, cache: &Path, arguments: &str) -> String {
    let output = vi4dvar(directory, cache, arguments).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn kernel(saved: &SavedAnalysis) -> String {
    saved.attributes.get("kernel").expect("every result has its kernel").to_string().trim_matches('"').to_string()
}

fn fit(directory: &TempDir, cache: &Path, kernel: &str) -> SavedAnalysis {
    succeed(directory, cache, &format!("{FIT} --backend gpu --kernel {kernel} --out a.nc"));
    read_analysis(directory.path().join("a.nc")).unwrap()
}

#[test]
fn kernels_are_measured_kept_stamped_and_named() {
    if adapters().is_empty() {
        let demanded = std::env::var("VI4DVAR_REQUIRE_GPU").is_ok_and(|v| v == "1");
        assert!(!demanded, "VI4DVAR_REQUIRE_GPU=1, and no adapter was found");
        eprintln!("==== SKIPPED: no adapter. Nothing on the GPU was tested. ====");
        return;
    }
    let d = TempDir::new().unwrap();
    let cache = d.path().join("deep/cache");
    succeed(&d, &cache, PROBLEM);
    assert!(!succeed(&d, &cache, "devices --backend gpu").contains("calibrated"));

    let measured = fit(&d, &cache, "calibrate");
    let name = kernel(&measured);
    let listed = succeed(&d, &cache, "devices --backend gpu");
    let line = listed.lines().find(|line| line.contains("calibrated") && line.contains("8 sites")).unwrap_or_default();
    assert!(line.contains(&name), "{name} is not in {listed}");

    // By its name it gives the same numbers, twice.
    for _ in 0..2 {
        let named = fit(&d, &cache, &name);
        assert_eq!(kernel(&named), name);
        assert_eq!(named.analysis.mean, measured.analysis.mean);
        assert_eq!(named.analysis.samples, measured.analysis.samples);
    }

    // A file cut short, one overwritten, and something else altogether.
    let files: Vec<_> = fs::read_dir(&cache).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for broken in [&b"short"[..], &[0; 4096], b"{\"version\": 1, \"kernels\": []}"] {
        files.iter().for_each(|file| fs::write(file, broken).unwrap());
        assert!(!succeed(&d, &cache, "devices --backend gpu").contains("calibrated"));
        fit(&d, &cache, "auto");
    }
    // A directory that cannot be.
    let nowhere = d.path().join("p.nc/cache");
    fit(&d, &nowhere, "auto");
    fit(&d, Path::new(""), "auto");

    for (wrong, hint) in [("fastest", "lanes="), ("lanes=8", "lanes"), ("lanes=1,group=100000", "group")] {
        let arguments = format!("{FIT} --backend gpu --kernel {wrong} --out b.nc");
        let output = vi4dvar(&d, &cache, &arguments).assert().code(2).get_output().clone();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("kernel") && message.contains(hint), "{wrong}: {message}");
    }
}

#[test]
fn the_cpu_engine_has_no_kernel_to_choose() {
    let d = TempDir::new().unwrap();
    let cache = d.path().join("cache");
    succeed(&d, &cache, PROBLEM);
    succeed(&d, &cache, &format!("{FIT} --backend cpu --kernel auto --out a.nc"));
    assert!(!kernel(&read_analysis(d.path().join("a.nc")).unwrap()).is_empty());
    let arguments = format!("{FIT} --backend cpu --kernel lanes=1 --out b.nc");
    let output = vi4dvar(&d, &cache, &arguments).assert().code(2).get_output().clone();
    assert!(String::from_utf8(output.stderr).unwrap().contains("kernel"));
    assert!(!cache.exists());
}

//! Host memory: what cannot fit is refused in words, before it is asked for.

use crate::error::{Error, Result};
use std::sync::OnceLock;

/// What is taken for the machine's memory where the system does not say.
const UNKNOWN: u128 = 64 << 30;

/// Bytes of this machine's memory.
fn budget() -> u128 {
    static BUDGET: OnceLock<u128> = OnceLock::new();
    let linux = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"))?;
        kib.trim().parse::<u128>().ok().map(|kib| kib << 10)
    };
    *BUDGET.get_or_init(|| linux().unwrap_or(UNKNOWN))
}

/// Refuses `what`, an array or arrays of as many f64 as the product of `numbers`, where the machine has no memory for it.
///
/// # Errors
/// Both sizes.
pub(crate) fn check(what: &str, numbers: &[usize], help: &str) -> Result<()> {
    let bytes = numbers.iter().fold(8u128, |product, n| product.saturating_mul(*n as u128));
    if bytes <= budget() {
        return Ok(());
    }
    let gib = |bytes: u128| bytes as f64 / f64::from(1 << 30);
    let expected = format!("at most the {:.1} GiB of this machine", gib(budget()));
    let found = format!("{:.1} GiB ({bytes} bytes)", gib(bytes));
    Err(Error::invalid(format!("memory of {what}"), expected, found, help))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_product_that_no_memory_holds_is_refused_even_where_it_overflows() {
        check("a few numbers", &[1000, 1000], "").unwrap();
        for numbers in [&[1 << 20, 1 << 20][..], &[usize::MAX; 8]] {
            let error = check("the trajectories", numbers, "keep fewer").unwrap_err().to_string();
            assert!(error.contains("memory of the trajectories") && error.contains("keep fewer"), "{error}");
        }
    }
}

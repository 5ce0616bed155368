//! The table that the bench prints.

use clap::ValueEnum;

use super::run::Outcome;

/// Names of the columns; in the order of `row`.
pub fn head() -> String {
    format!(
        "{:<22} {:>5} {:>5} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "method",
        "conns",
        "depth",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "server s",
        "µs/req",
        "client s",
        "checked",
        "mismatches"
    )
}

/// A line of the table.
pub fn row(outcome: &Outcome) -> String {
    let name = outcome.load.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let count = outcome.latencies.len() as f64;
    let rate = count / outcome.elapsed.as_secs_f64().max(1e-6);
    let at = |percent| percentile(&outcome.latencies, percent);
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    format!(
        "{name:<22} {:>5} {:>5} {rate:>10.0} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9.2} {:>9} {:>10}",
        outcome.connections,
        outcome.depth,
        milliseconds(at(50)),
        milliseconds(at(99)),
        milliseconds(at(100)),
        known(outcome.server_cpu.map(|cpu| format!("{cpu:.2}"))),
        known(outcome.server_cpu.map(|cpu| format!("{:.1}", cpu * 1e6 / count.max(1.0)))),
        outcome.client_cpu,
        outcome.tally.checked,
        outcome.tally.mismatches,
    )
}

fn milliseconds(micros: u32) -> String {
    format!("{:.3}", f64::from(micros) / 1e3)
}

/// The smallest value that so many percent are not above. Zero when there is none.
fn percentile(sorted: &[u32], percent: usize) -> u32 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&hundred, percent)), [50, 99, 100]);
        assert_eq!([50, 99, 100].map(|percent| percentile(&[7, 9], percent)), [7, 9, 9]);
        assert_eq!(percentile(&[], 99), 0);
    }
}

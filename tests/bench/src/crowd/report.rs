//! What to print of all that.

use std::time::Duration;

use super::abuser::Got;
use super::active::Synced;
use super::idle::{Plan, Seated};
use super::notify::Told;
use crate::tip::measure::quantile;

/// What is wanted for 10,000 idle sessions and 1,000,000 subscriptions.
const MEMORY_BYTES: u64 = 1_500_000_000;
/// What is wanted until all have heard of a block that touches 5,000 subscribed scripts.
const NOTIFIED: Duration = Duration::from_millis(200);
/// What is wanted of 1,000 active wallets.
const REQUESTS_A_SECOND: f64 = 50_000.0;
const NINETY_NINTH: Duration = Duration::from_millis(100);

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn wanted(what: &str, met: bool) -> bool {
    println!("wanted: {what}: {}", if met { "met" } else { "MISSED" });
    met
}

pub fn seated(plan: &Plan, seated: &Seated) -> bool {
    let Seated { before, connected, subscribed, after, connecting, subscribing } = *seated;
    let (sessions, subscriptions) = (plan.sessions as f64, plan.subscriptions as f64);
    println!(
        "{} sessions connected in {:.1} s; {} subscriptions made in {:.1} s, {:.0} a second, {:.1} s of the server's \
         processor",
        plan.sessions,
        connecting.as_secs_f64(),
        plan.subscriptions,
        subscribing.as_secs_f64(),
        subscriptions / subscribing.as_secs_f64(),
        subscribed.cpu - connected.cpu,
    );
    println!("the server's memory, MB    resident      heap      peak");
    let moments =
        [("before", before), ("connected", connected), ("subscribed", subscribed), ("having idled", after)];
    for (name, taken) in moments {
        let [resident, heap, peak] = [taken.memory, taken.heap, taken.peak].map(megabytes);
        println!("{name:<25} {resident:>9.1} {heap:>9.1} {peak:>9.1}");
    }
    println!(
        "a session: {:.0} bytes; a subscription: {:.0} bytes; idle for {:.0} s: {:.2} s of the server's processor",
        connected.heap.saturating_sub(before.heap) as f64 / sessions,
        after.heap.saturating_sub(connected.heap) as f64 / subscriptions.max(1.0),
        plan.idle.as_secs_f64(),
        after.cpu - subscribed.cpu,
    );
    wanted(&format!("at most {:.0} MB", megabytes(MEMORY_BYTES)), after.peak <= MEMORY_BYTES)
}

pub fn told(name: &str, told: &[Told]) -> bool {
    let (Some(least), Some(most)) =
        (told.iter().map(|told| told.notifications).min(), told.iter().map(|told| told.notifications).max())
    else {
        return true;
    };
    let concerned = told.iter().map(|told| told.concerned).max().unwrap_or_default();
    let transactions = told.iter().map(|told| told.transactions).sum::<usize>() / told.len();
    let each = |of: fn(&Told) -> f64| told.iter().map(of).sum::<f64>() / told.len() as f64 * 1e3;
    println!(
        "{name}: {} blocks of {transactions} transactions, {least} to {most} notifications to at most {concerned} \
         sessions, the header to all; {:.0} ms of the server's processor each, {:.0} ms of the client's",
        told.len(),
        each(|told| told.cpu),
        each(|told| told.client_cpu),
    );
    println!("ms after the block's last byte     median      90th       max");
    let row = |name: &str, of: fn(&Told) -> Duration| {
        let mut times: Vec<Duration> = told.iter().map(of).collect();
        let found = [500, 900, 1_000].map(|share| quantile(&mut times, share));
        let [median, ninetieth, max] = found.map(ms);
        println!("{name:<31} {median:>9.1} {ninetieth:>9.1} {max:>9.1}");
        found[0]
    };
    row("first header told", |told| told.first_header);
    row("first script told", |told| told.first_script);
    row("last script told", |told| told.last_script);
    row("last header told", |told| told.last_header);
    let all = row("all told", |told| told.last_header.max(told.last_script));
    row("all told, after first header", |told| told.last_header.max(told.last_script) - told.first_header);
    wanted(&format!("all told in {:.0} ms (median)", ms(NOTIFIED)), all <= NOTIFIED)
}

pub fn synced(name: &str, synced: &Synced, addresses: usize) -> bool {
    let count = synced.requests();
    let rate = count as f64 / synced.elapsed.as_secs_f64();
    let wallets = synced.wallets.len().max(1);
    println!(
        "{name}: {wallets} wallets of {addresses} addresses, {} requests each, done after {:.2} s; {rate:.0} requests a \
         second",
        count / wallets,
        synced.elapsed.as_secs_f64(),
    );
    println!(
        "processor: server {:.2} s, client {:.2} s; the server's peak memory {:.1} MB",
        synced.server_cpu,
        synced.client_cpu,
        megabytes(synced.peak_memory)
    );
    println!("{:<36} {:>9} {:>9} {:>9} {:>9} {:>9}", "ms", "count", "median", "90th", "99th", "max");
    let row = |name: &str, sorted: &[u32]| {
        let at = |thousandths: usize| {
            let rank = (sorted.len() * thousandths).div_ceil(1_000).max(1);
            Duration::from_micros(sorted.get(rank - 1).copied().unwrap_or(0).into())
        };
        let [median, ninetieth, ninety_ninth, max] = [500, 900, 990, 1_000].map(|share| ms(at(share)));
        println!(
            "{name:<36} {:>9} {median:>9.2} {ninetieth:>9.2} {ninety_ninth:>9.2} {max:>9.2}",
            sorted.len()
        );
        at(990)
    };
    let mut all = Vec::with_capacity(count);
    for (kind, latencies) in &synced.latencies {
        row(kind.method(), latencies);
        all.extend(latencies);
    }
    all.sort_unstable();
    let ninety_ninth = row("all", &all);
    let wallet = |share| {
        let mut times = synced.wallets.clone();
        quantile(&mut times, share).as_secs_f64()
    };
    println!(
        "a wallet: synced in {:.2} s (median), {:.2} s (slowest); {:.0} bytes sent, {:.0} received; costs {:.0}",
        wallet(500),
        wallet(1_000),
        synced.sent_bytes as f64 / wallets as f64,
        synced.received_bytes as f64 / wallets as f64,
        synced.cost_of_a_wallet()
    );
    println!("{} answers checked, {} wrong; {} wallets lost", synced.checked, synced.mistakes, synced.lost);
    for mistake in &synced.told {
        println!("  {mistake}");
    }
    let right = synced.mistakes == 0 && synced.lost == 0;
    let rate = wanted(&format!("{REQUESTS_A_SECOND:.0} requests a second"), rate >= REQUESTS_A_SECOND);
    let name = format!("99th percentile at most {:.0} ms", ms(NINETY_NINTH));
    wanted(&name, ninety_ninth <= NINETY_NINTH) && rate && right
}

pub fn got(got: &[Got]) {
    println!(
        "{:<36} {:>7} {:>9} {:>8} {:>7} {:>8} {:>9} {:>9} {:>9}",
        "the abuser", "asked", "answered", "refused", "excess", "hung up", "MB", "mean ms", "max ms"
    );
    for got in got {
        println!(
            "{:<36} {:>7} {:>9} {:>8} {:>7} {:>8} {:>9.1} {:>9.1} {:>9.1}",
            got.name,
            got.asked,
            got.answered,
            got.refused,
            got.excess,
            got.hung_up,
            got.bytes as f64 / 1e6,
            ms(got.waited) / (got.answered + got.refused).max(1) as f64,
            ms(got.longest),
        );
        if let Some(refusal) = &got.first_refusal {
            println!("  {refusal}");
        }
    }
}

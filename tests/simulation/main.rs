//! A seeded simulation of the whole node among honest peers and liars, without sockets, threads or a clock.
//!
//! One step is one thing that happens: a message is delivered, a block is mined, a peer stalls, lies, leaves or
//! comes back, time passes, a byte of a stored block rots. After each step the node's chain is compared with a naive model of the blocks that
//! it was given; now and then every script's history and coins are, too. A failure names its seed.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod sim;
mod world;

use sim::Simulation;

fn run(seed: u64, steps: usize) -> Simulation {
    let mut simulation = Simulation::new(seed);
    for step in 0..steps {
        simulation.step();
        simulation.check_chain(step);
        if step % 500 == 499 {
            simulation.check_accounts(step);
        }
    }
    simulation
}

#[test]
fn the_chain_is_that_of_a_naive_model_after_each_step() {
    let seeds = std::env::var("PEERDEX_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seeds.map_or(0..8, |seed: u64| seed..seed + 1);
    let started = std::time::Instant::now();
    let (mut steps, mut reorgs, mut lies) = (0, 0, 0);
    let (mut rotten, mut repaired, mut blocked) = (0, 0, 0);
    for seed in seeds {
        let mut simulation = run(seed, 4000);
        simulation.settle();
        steps += simulation.steps;
        reorgs += simulation.reorgs;
        lies += simulation.lies_told;
        rotten += simulation.rotten;
        repaired += simulation.repaired;
        blocked += simulation.switches_blocked;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{steps} steps, {:.0} a second, {reorgs} reorgs, {lies} lies", steps as f64 / seconds);
    println!("{rotten} bytes rotten, {repaired} blocks fetched again, {blocked} switches put off");
    assert!(repaired > 0, "no damage was met");
    // The run must have been through what it is for.
    assert!(reorgs > 0 && lies > 0, "nothing happened: {reorgs} reorgs, {lies} lies");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (first, second) = (run(77, 1500), run(77, 1500));
    assert_eq!(first.log, second.log);
    assert!(first.log.len() > 20, "the log is what is compared, so it must not be empty");
}

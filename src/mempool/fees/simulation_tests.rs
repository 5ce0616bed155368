//! What the estimates are worth, over two weeks of a simulated market. `--nocapture` shows the figures.

use super::Mode;
use super::simulation::{BULK, Market, Spam, Trial};

const BLOCKS: usize = 2_000;

fn run(seed: u64, spam: Spam) -> Market {
    let mut market = Market::new(seed, spam);
    (0..BLOCKS).for_each(|_| market.step());
    market
}

/// The share of trials that were mined at most `late` blocks after their target.
fn in_time(trials: &[&Trial], late: u32) -> f64 {
    let good = trials.iter().filter(|t| t.mined_in.is_some_and(|block| block <= u32::from(t.target) + late));
    good.count() as f64 / trials.len() as f64
}

/// What half of those who were mined paid at most, over what their block took to be enough.
fn median_overpaid(trials: &[&Trial]) -> f64 {
    let mined = trials.iter().filter(|trial| trial.mined_in.is_some());
    quantile(mined.map(|trial| trial.rate.0 as f64 / trial.enough.0.max(1) as f64).collect(), 0.5)
}

fn quantile(mut of: Vec<f64>, share: f64) -> f64 {
    of.sort_by(f64::total_cmp);
    of[((of.len() - 1) as f64 * share) as usize]
}

/// Prints what became of the estimates; gives for two blocks, economically, the share mined within three, and by how
/// much the median overpaid.
fn judge(seed: u64) -> (f64, f64) {
    let market = run(seed, Spam::None);
    let covered = market.estimator.coverage().unwrap_or_default();
    println!(
        "seed {seed}: {} full blocks, {} with room, {covered:.3} covered",
        market.full, market.with_room
    );
    let kinds = [2, 6, 24, 144].map(|target| (target, Mode::Economical));
    for (target, mode) in kinds.into_iter().chain([(2, Mode::Conservative)]) {
        let trials: Vec<&Trial> = market.of(target, mode).collect();
        let rates = trials.iter().map(|trial| trial.rate.0 as f64).collect::<Vec<_>>();
        let [low, middle, high] = [0.05, 0.5, 0.95].map(|share| quantile(rates.clone(), share));
        println!(
            "  {mode:?} for {target}: in time {:.3}, one block later {:.3}, overpaid {:.2}; {low} {middle} {high} sat/kvB",
            in_time(&trials, 0),
            in_time(&trials, 1),
            median_overpaid(&trials)
        );
        let overpays = if mode == Mode::Economical { 1.5 } else { 2.0 };
        assert!(median_overpaid(&trials) <= overpays, "seed {seed}: {mode:?} for {target}");
    }
    let trials: Vec<&Trial> = market.of(2, Mode::Economical).collect();
    assert!(trials.len() > BLOCKS * 9 / 10);
    (in_time(&trials, 1), median_overpaid(&trials))
}

#[test]
fn nine_of_ten_estimates_for_two_blocks_are_mined_within_three_and_pay_little_more_than_enough() {
    for seed in 1..=3 {
        let (in_time, overpaid) = judge(seed);
        assert!(in_time >= 0.93, "seed {seed}: {in_time}");
        assert!(overpaid <= 1.25, "seed {seed}: {overpaid}");
    }
}

/// How far each estimate for six blocks is moved by it, as a share; where it would be over `above` without.
fn moved(clean: &Market, spam: Spam, above: u64) -> f64 {
    let spoiled = run(clean.seed, spam);
    // The blocks are the same, so it is only the estimates that can differ.
    assert_eq!((clean.full, clean.with_room), (spoiled.full, spoiled.with_room));
    let pairs = clean.sixes.iter().zip(&spoiled.sixes).filter(|(clean, _)| clean.0 > above);
    let moved: Vec<f64> =
        pairs.map(|(clean, spoiled)| (spoiled.0 as f64 / clean.0 as f64 - 1.0).abs()).collect();
    let mean = moved.iter().sum::<f64>() / moved.len() as f64;
    let [median, high] = [0.5, 0.9].map(|share| quantile(moved.clone(), share));
    println!(
        "seed {}, {spam:?}: {} estimates, moved by {mean:.3} (median {median:.3}, 90th {high:.3})",
        clean.seed,
        moved.len()
    );
    assert!(moved.len() > 400);
    mean.max(median)
}

#[test]
fn what_nobody_mines_hardly_moves_the_estimate_for_six_blocks() {
    for seed in 1..=2 {
        let clean = run(seed, Spam::None);
        assert!(moved(&clean, Spam::Conflicting, BULK) < 0.10);
        assert!(moved(&clean, Spam::Replacing, BULK) < 0.10);
        assert!(moved(&clean, Spam::Bulk, 0) < 0.10);
    }
}

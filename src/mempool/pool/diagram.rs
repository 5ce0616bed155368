//! Which of two sets of chunks a miner likes better, at whatever size it stops.
//!
//! Source: Bitcoin Core `util/feefrac.cpp` (`CompareChunks`).

use super::feefrac::FeeFrac;

/// Whether `new` collects at least as much as `old` at every size, and more at one.
///
/// Each is sorted here; what comes after the last chunk pays nothing.
pub fn improves(old: &[FeeFrac], new: &[FeeFrac]) -> bool {
    let (old, new) = (corners(old), corners(new));
    let mut better = false;
    // Both lines are bent only at corners, so where one crosses the other shows at a corner.
    let sizes = old.iter().chain(&new).map(|corner| corner.size);
    for size in sizes {
        let (is, was) = (at(&new, size), at(&old, size));
        // fee + num / den on either side.
        let left = (i128::from(is.0) - i128::from(was.0)) * i128::from(is.2) * i128::from(was.2);
        let right = was.1 * i128::from(is.2) - is.1 * i128::from(was.2);
        if left < right {
            return false;
        }
        better |= left > right;
    }
    better
}

/// Sums of fee and size after each chunk, from nothing on.
fn corners(chunks: &[FeeFrac]) -> Vec<FeeFrac> {
    let mut sorted = chunks.to_vec();
    sorted.sort_unstable_by(|a, b| a.cmp_better_first(*b));
    let mut sum = FeeFrac::default();
    std::iter::once(sum)
        .chain(sorted.into_iter().map(|chunk| {
            sum += chunk;
            sum
        }))
        .collect()
}

/// Fees collected at a size: a whole number and a fraction (numerator, denominator).
fn at(corners: &[FeeFrac], size: u64) -> (u64, i128, u64) {
    let after = corners.partition_point(|corner| corner.size <= size);
    let before = corners[after - 1];
    match corners.get(after) {
        Some(next) => {
            let fee = i128::from(next.fee - before.fee) * i128::from(size - before.size);
            (before.fee, fee, next.size - before.size)
        }
        None => (before.fee, 0, 1),
    }
}

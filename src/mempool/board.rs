//! What is said of fees, worked out once for all who ask.

use super::fees::{Bin, FeeEstimator, MAX_TARGET, Mode};
use super::policy::FeeRate;

/// See the module. Answers to be looked up, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeeBoard {
    /// For a block, for two, and so on: economical and conservative. Empty before there is any data.
    estimates: Vec<[FeeRate; 2]>,
    /// Descending feerates.
    pub histogram: Vec<Bin>,
    /// What the mempool asks for now (`mempoolminfee`).
    pub min: FeeRate,
    /// What is relayed at all (`minrelaytxfee`).
    pub relay: FeeRate,
    /// What a replacement adds (`incrementalrelayfee`).
    pub incremental: FeeRate,
}

impl FeeBoard {
    /// A board without estimates and histogram.
    pub fn new(min: FeeRate, relay: FeeRate, incremental: FeeRate) -> Self {
        Self { estimates: Vec::new(), histogram: Vec::new(), min, relay, incremental }
    }

    /// Writes down what the estimator says, never below what is relayed.
    pub fn note(&mut self, estimator: &FeeEstimator) {
        let floor = self.min.max(self.relay);
        let of = |target, mode| estimator.estimate(target, mode, floor);
        let both = |target| Some([of(target, Mode::Economical)?, of(target, Mode::Conservative)?]);
        self.estimates = (1..=MAX_TARGET).map_while(both).collect();
    }

    /// The feerate for being mined within so many blocks; `None` without data. 0 counts as 1, and what is beyond a week
    /// as that.
    pub fn estimate(&self, target: u64, mode: Mode) -> Option<FeeRate> {
        let at = usize::try_from(target).unwrap_or(usize::MAX).clamp(1, self.estimates.len().max(1));
        let [economical, conservative] = self.estimates.get(at - 1)?;
        Some(match mode {
            Mode::Economical => *economical,
            Mode::Conservative => *conservative,
        })
    }
}

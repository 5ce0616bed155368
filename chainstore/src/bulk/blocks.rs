//! Which block has a transaction, asked once for each coin that is spent.

/// Transaction numbers to a step of the coarse table.
const STEP: u32 = 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Of each block, the number of transactions up to and including it.
    ends: Vec<u32>,
    /// Of each multiple of [`STEP`] that is not beyond the last end, how many blocks end there or before.
    steps: Vec<u32>,
}

impl Blocks {
    /// `ends` ascend.
    pub(crate) fn new(ends: Vec<u32>) -> Self {
        let mut blocks = Self { ends: Vec::with_capacity(ends.len()), steps: vec![0] };
        ends.into_iter().for_each(|end| blocks.push(end));
        blocks
    }

    /// The next block ends here.
    pub(crate) fn push(&mut self, end: u32) {
        // Steps beyond this end are told by blocks to come; the one that is met may hold this one too.
        while (self.steps.len() as u64) * u64::from(STEP) < u64::from(end) {
            self.steps.push(self.ends.len() as u32);
        }
        self.ends.push(end);
        if u64::from(end) == self.steps.len() as u64 * u64::from(STEP) {
            self.steps.push(self.ends.len() as u32);
        }
    }

    /// The height of the block that has the transaction; beyond the last, how many blocks there are.
    pub(crate) fn of(&self, number: u32) -> usize {
        let step = (number / STEP) as usize;
        let from = self.steps.get(step).map_or(self.ends.len(), |from| *from as usize);
        let to = self.steps.get(step + 1).map_or(self.ends.len(), |to| *to as usize);
        from + self.ends[from..to].partition_point(|end| *end <= number)
    }

    pub(crate) fn ends(&self) -> &[u32] {
        &self.ends
    }

    pub(crate) fn into_ends(self) -> Vec<u32> {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_the_one_that_a_search_among_all_finds() {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let most = [1, 2, 700, 1024, 5_000][seed as usize % 5];
            let mut ends = vec![1];
            for _ in 0..rng.usize(0..2_000) {
                let block = if seed % 5 == 3 { most } else { rng.u32(1..=most) };
                ends.push(ends[ends.len() - 1] + block);
            }
            let blocks = Blocks::new(ends.clone());
            let last = ends[ends.len() - 1];
            let near = ends.iter().flat_map(|end| [end - 1, *end]);
            let edges = (0..last / STEP + 3).flat_map(|step| [step * STEP, step * STEP + 1]);
            for number in near.chain(edges).chain([0, last, last + 1, u32::MAX]) {
                assert_eq!(blocks.of(number), ends.partition_point(|end| *end <= number), "{seed} {number}");
            }
            assert_eq!(blocks.into_ends(), ends);
        }
        assert_eq!(Blocks::new(Vec::new()).of(7), 0);
    }
}

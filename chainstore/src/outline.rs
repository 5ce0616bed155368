//! The outline of a block: what the index and the rules of coins need of it, without its scripts.
//!
//! Made where blocks are checked, by many threads, for the one that connects them; so what can be told from the block
//! alone is told here: which inputs spend outputs of the same block, and whether an outpoint is spent twice. Coins of
//! earlier blocks are not known here.

use bitcoin::consensus::encode::VarInt;
use bitcoin::{Amount, Block, OutPoint, Script, Transaction, Txid};

use crate::types::{ScriptClass, ScriptHash, ScriptKey, has_history, is_unspendable};

/// The maker of an output of an earlier block.
const EARLIER: u32 = u32::MAX;
/// Marks by which it is seen that no two inputs spend alike: sixteen and more for each input.
const MARKS_AN_INPUT: usize = 16;

/// A transaction of an [`Outline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlineTx {
    pub txid: Txid,
    /// Where it starts within the block's bytes.
    pub offset: u32,
    /// How many inputs it and all before it have. Those of the coinbase are none.
    inputs_end: u32,
    outputs_end: u32,
}

/// An input of an [`Outline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlineInput {
    pub outpoint: OutPoint,
    maker: u32,
}

impl OutlineInput {
    /// The position of the earlier transaction of this block that made what it spends; `None` where an earlier block
    /// did. Whether that has such an output is not said.
    pub fn maker(&self) -> Option<usize> {
        (self.maker != EARLIER).then_some(self.maker as usize)
    }
}

/// What becomes of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// It begins with OP_RETURN: neither history nor coin.
    Unindexed,
    /// It can never be spent.
    Unspendable,
    Coin(ScriptClass),
}

/// An output of an [`Outline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlineOutput {
    pub value: Amount,
    pub key: ScriptKey,
    pub kind: OutputKind,
}

impl OutlineOutput {
    /// Hashes the script.
    pub fn new(value: Amount, script: &Script) -> Self {
        let kind = if !has_history(script) {
            OutputKind::Unindexed
        } else if is_unspendable(script) {
            OutputKind::Unspendable
        } else {
            OutputKind::Coin(ScriptClass::of(script))
        };
        Self { value, key: ScriptHash::of(script).key(), kind }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    txs: Vec<OutlineTx>,
    inputs: Vec<OutlineInput>,
    outputs: Vec<OutlineOutput>,
    spent_twice: Option<usize>,
    length: u32,
}

impl Outline {
    /// That of a block of `txs` transactions, to be told by [`Outline::begin`] and what follows it.
    pub fn with_capacity(txs: usize) -> Self {
        Self {
            txs: Vec::with_capacity(txs),
            inputs: Vec::with_capacity(2 * txs),
            outputs: Vec::with_capacity(2 * txs),
            ..Self::default()
        }
    }

    /// That of a decoded block.
    pub fn of(block: &Block) -> Self {
        let mut outline = Self::with_capacity(block.txdata.len());
        let mut at = 80 + VarInt::from(block.txdata.len()).size() as u32;
        for (position, tx) in block.txdata.iter().enumerate() {
            outline.begin(tx.compute_txid(), at);
            at += tx.total_size() as u32;
            // The coinbase spends nothing.
            tx.input.iter().filter(|_| position > 0).for_each(|input| outline.spend(input.previous_output));
            tx.output
                .iter()
                .for_each(|output| outline.make(OutlineOutput::new(output.value, &output.script_pubkey)));
        }
        outline.finish(at);
        outline
    }

    /// The next transaction, which starts at `offset`. The first is the coinbase.
    pub fn begin(&mut self, txid: Txid, offset: u32) {
        let (inputs_end, outputs_end) = (self.inputs.len() as u32, self.outputs.len() as u32);
        self.txs.push(OutlineTx { txid, offset, inputs_end, outputs_end });
    }

    /// The next input of the last transaction, which is not the coinbase.
    pub fn spend(&mut self, outpoint: OutPoint) {
        self.inputs.push(OutlineInput { outpoint, maker: EARLIER });
        self.txs.last_mut().into_iter().for_each(|tx| tx.inputs_end += 1);
    }

    /// The next output of the last transaction.
    pub fn make(&mut self, output: OutlineOutput) {
        self.outputs.push(output);
        self.txs.last_mut().into_iter().for_each(|tx| tx.outputs_end += 1);
    }

    /// No more transactions come; the block has so many bytes.
    pub fn finish(&mut self, length: u32) {
        self.length = length;
        self.find_makers();
        self.spent_twice = self.find_spent_twice();
    }

    fn find_makers(&mut self) {
        let by_txid = Starts::of(&self.txs);
        let mut inputs_from = 0;
        for position in 0..self.txs.len() as u32 {
            let inputs_end = self.txs[position as usize].inputs_end as usize;
            for input in &mut self.inputs[inputs_from..inputs_end] {
                let txid = &input.outpoint.txid;
                // Only what was made before can be spent.
                let mut same = by_txid.of_start(start(txid));
                let made = same.find(|at| *at < position && self.txs[*at as usize].txid == *txid);
                input.maker = made.unwrap_or(EARLIER);
            }
            inputs_from = inputs_end;
        }
    }

    /// Two passes over a table of bits leave few inputs to be compared, however the outpoints were chosen.
    fn find_spent_twice(&self) -> Option<usize> {
        let marks = (self.inputs.len() * MARKS_AN_INPUT).next_power_of_two().max(64);
        let place = |input: &OutlineInput| {
            let word = start(&input.outpoint.txid) ^ u64::from(input.outpoint.vout).rotate_left(40);
            (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize & (marks - 1)
        };
        let (mut once, mut twice) = (vec![0u64; marks / 64], vec![0u64; marks / 64]);
        let mut any = false;
        for input in &self.inputs {
            let (word, bit) = (place(input) / 64, 1 << (place(input) % 64));
            any |= once[word] & bit != 0;
            twice[word] |= once[word] & bit;
            once[word] |= bit;
        }
        if !any {
            return None;
        }
        let suspects = self.inputs.iter().enumerate().filter(|(_, input)| {
            let place = place(input);
            twice[place / 64] & 1 << (place % 64) != 0
        });
        let mut suspects: Vec<(OutPoint, usize)> =
            suspects.map(|(number, input)| (input.outpoint, number)).collect();
        suspects.sort_unstable();
        let pairs = suspects.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        pairs.map(|pair| pair[1].1).min()
    }

    /// In block order.
    pub fn txs(&self) -> &[OutlineTx] {
        &self.txs
    }

    pub fn txids(&self) -> impl ExactSizeIterator<Item = &Txid> {
        self.txs.iter().map(|tx| &tx.txid)
    }

    /// Of all transactions but the coinbase, in block order.
    pub fn inputs(&self) -> &[OutlineInput] {
        &self.inputs
    }

    /// Of all transactions, in block order.
    pub fn outputs(&self) -> &[OutlineOutput] {
        &self.outputs
    }

    /// The inputs of the transaction at a position, as numbers among all.
    pub fn inputs_of(&self, position: usize) -> std::ops::Range<usize> {
        let from = position.checked_sub(1).map_or(0, |before| self.txs[before].inputs_end as usize);
        from..self.txs[position].inputs_end as usize
    }

    /// The outputs of the transaction at a position, as numbers among all.
    pub fn outputs_of(&self, position: usize) -> std::ops::Range<usize> {
        let from = position.checked_sub(1).map_or(0, |before| self.txs[before].outputs_end as usize);
        from..self.txs[position].outputs_end as usize
    }

    /// The number among all of an output of the transaction at a position, if that has so many.
    pub fn output_of(&self, position: usize, vout: u32) -> Option<usize> {
        let outputs = self.outputs_of(position);
        let number = outputs.start.checked_add(vout as usize)?;
        outputs.contains(&number).then_some(number)
    }

    /// The first input that spends what one before it has spent, as a number among all.
    pub fn spent_twice(&self) -> Option<usize> {
        self.spent_twice
    }

    /// Bytes of the block.
    pub fn length(&self) -> u32 {
        self.length
    }
}

/// Transactions by the starts of their ids, found by a table over the uppermost bits.
///
/// However the ids were chosen, a search is one among sorted ones.
struct Starts {
    /// Sorted.
    starts: Vec<(u64, u32)>,
    /// Of each value of the uppermost bits the first place, and the end of all.
    places: Vec<u32>,
    shift: u32,
}

impl Starts {
    fn of(txs: &[OutlineTx]) -> Self {
        // Bits for two places a transaction.
        let bits = (txs.len().max(1).ilog2() + 2).min(24);
        let shift = 64 - bits;
        let mut places = vec![0u32; (1 << bits) + 1];
        for tx in txs {
            places[(start(&tx.txid) >> shift) as usize + 1] += 1;
        }
        let mut sum = 0;
        for place in &mut places {
            sum += *place;
            *place = sum;
        }
        let mut next = places.clone();
        let mut starts = vec![(0, 0); txs.len()];
        for (tx, position) in txs.iter().zip(0..) {
            let start = start(&tx.txid);
            let place = &mut next[(start >> shift) as usize];
            starts[*place as usize] = (start, position);
            *place += 1;
        }
        for pair in places.windows(2) {
            let alike = &mut starts[pair[0] as usize..pair[1] as usize];
            if alike.len() > 1 {
                alike.sort_unstable();
            }
        }
        Self { starts, places, shift }
    }

    /// Positions of the transactions whose ids begin so.
    fn of_start(&self, start: u64) -> impl Iterator<Item = u32> {
        let place = (start >> self.shift) as usize;
        let alike = &self.starts[self.places[place] as usize..self.places[place + 1] as usize];
        let from = alike.partition_point(|(other, _)| *other < start);
        alike[from..].iter().take_while(move |(other, _)| *other == start).map(|(_, position)| *position)
    }
}

/// The first bytes of a txid as a number.
fn start(txid: &Txid) -> u64 {
    let bytes: &[u8; 32] = txid.as_ref();
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// What the inputs of all transactions but the coinbase spend.
pub(crate) fn spending_inputs(block: &Block) -> impl Iterator<Item = OutPoint> {
    block
        .txdata
        .iter()
        .skip(1)
        .flat_map(|tx: &Transaction| tx.input.iter().map(|input| input.previous_output))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use bitcoin::hashes::Hash;

    use super::*;

    /// An outline of transactions by id with what they spend.
    fn outline(txs: &[(Txid, Vec<OutPoint>)]) -> Outline {
        let mut outline = Outline::with_capacity(0);
        for (txid, spends) in txs {
            outline.begin(*txid, 0);
            spends.iter().for_each(|outpoint| outline.spend(*outpoint));
            outline.make(OutlineOutput::new(Amount::ONE_SAT, Script::from_bytes(&[0x51])));
        }
        outline.finish(0);
        outline
    }

    /// Ids that differ in their last bytes, or also in the first.
    fn txid(number: u32, alike: bool) -> Txid {
        let mut bytes = [0; 32];
        bytes[28..].copy_from_slice(&number.to_be_bytes());
        if !alike {
            bytes[..8].copy_from_slice(&u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        }
        Txid::from_byte_array(bytes)
    }

    #[test]
    fn makers_and_double_spends_are_those_of_plain_maps() {
        let (mut within, mut twice) = (0, 0);
        for seed in 0..400 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let alike = seed % 3 == 0;
            let count = rng.u32(1..60);
            let range = if seed % 2 == 0 { 1 << 20 } else { count + 5 };
            let spends = |rng: &mut fastrand::Rng, position: u32| -> Vec<OutPoint> {
                let count = if position == 0 { 0 } else { rng.usize(0..4) };
                (0..count).map(|_| OutPoint::new(txid(rng.u32(..range), alike), rng.u32(..40))).collect()
            };
            let txs: Vec<(Txid, Vec<OutPoint>)> =
                (0..count).map(|position| (txid(position, alike), spends(&mut rng, position))).collect();
            let outline = outline(&txs);
            let mut made = HashMap::new();
            let mut seen = HashSet::new();
            let mut number = 0;
            let mut first_twice = None;
            for (position, (txid, spends)) in txs.iter().enumerate() {
                assert_eq!(outline.inputs_of(position), number..number + spends.len(), "seed {seed}");
                assert_eq!(outline.output_of(position, 0), Some(position));
                assert_eq!(outline.output_of(position, 1), None);
                assert_eq!(outline.output_of(position, u32::MAX), None);
                for outpoint in spends {
                    assert_eq!(outline.inputs()[number].maker(), made.get(&outpoint.txid).copied());
                    within += usize::from(outline.inputs()[number].maker().is_some());
                    if !seen.insert(*outpoint) {
                        first_twice.get_or_insert(number);
                    }
                    number += 1;
                }
                made.insert(*txid, position);
            }
            assert_eq!(outline.spent_twice(), first_twice, "seed {seed}");
            twice += usize::from(first_twice.is_some());
        }
        assert!(within > 500 && twice > 50 && twice < 350, "{within} {twice}");
    }

    #[test]
    fn what_became_of_an_output_is_told_by_its_script() {
        let kind = |script: &[u8]| OutlineOutput::new(Amount::ZERO, Script::from_bytes(script)).kind;
        assert_eq!(kind(&[0x6a, 1, 2]), OutputKind::Unindexed);
        assert_eq!(kind(&vec![0x51; 10_001]), OutputKind::Unspendable);
        assert_eq!(kind(&[]), OutputKind::Coin(ScriptClass::Other));
        let program = [&[0, 20][..], &[7; 20]].concat();
        assert_eq!(kind(&program), OutputKind::Coin(ScriptClass::P2wpkh));
    }
}

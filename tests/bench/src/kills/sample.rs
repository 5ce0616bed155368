//! What of a world a server is asked for: scripts and transactions that reorgs touched, and any others.

use std::collections::BTreeSet;

use bitcoin::Block;

use super::check::Sample;
use super::model::script_hash;
use super::world::World;
use crate::sync::peer::Served;

/// Scripts and transactions of each kind.
const SAMPLE: usize = 50;

/// Of everything that ever was, of what the last reorg took away, and of what it brought.
pub fn sample(world: &World, rng: &mut fastrand::Rng) -> anyhow::Result<Sample> {
    let mut scripts: Vec<_> = world.universe.scripts.iter().copied().collect();
    let mut txids: Vec<_> = world.universe.txids.iter().copied().collect();
    rng.shuffle(&mut scripts);
    rng.shuffle(&mut txids);
    let mut sample = Sample {
        scripts: scripts.into_iter().take(SAMPLE).collect(),
        txids: txids.into_iter().take(SAMPLE).collect(),
    };
    let brought = &world.chain[world.last_fork + 1..];
    for blocks in [&world.removed, brought] {
        let (scripts, txids) = some(blocks, rng)?;
        sample.scripts.extend(scripts);
        sample.txids.extend(txids);
    }
    let genesis: Block = bitcoin::consensus::deserialize(&world.chain[0].read()?)?;
    sample.txids.retain(|txid| *txid != genesis.txdata[0].compute_txid());
    Ok(sample)
}

/// Scripts and transactions of some of these blocks.
fn some(
    blocks: &[Served],
    rng: &mut fastrand::Rng,
) -> anyhow::Result<(BTreeSet<[u8; 32]>, BTreeSet<bitcoin::Txid>)> {
    let (mut scripts, mut txids) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..SAMPLE {
        let Some(served) = rng.choice(blocks) else { break };
        let block: Block = bitcoin::consensus::deserialize(&served.read()?)?;
        let Some(tx) = rng.choice(&block.txdata) else { continue };
        txids.insert(tx.compute_txid());
        let script = rng.choice(&tx.output).map(|output| script_hash(&output.script_pubkey));
        scripts.extend(script);
    }
    Ok((scripts, txids))
}

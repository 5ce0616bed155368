//! What the forge and the benches share.
//!
//! Nothing of peerdex's own code: it is measured from outside, and its answers are compared with what the forge
//! knows by itself. Only `kills` opens the folder of a server that was killed, and so needs the store.

pub mod crowd;
pub mod forge;
pub mod kills;
pub mod load;
pub mod size;
pub mod sync;
pub mod tip;
pub mod truth;

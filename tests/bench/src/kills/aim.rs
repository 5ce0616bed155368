//! What kills aim at, and in which order a round goes through it.

/// At what a kill aims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    Opening,
    Bulk,
    BulkEnd,
    CatchingUp,
    Tip,
    Merge,
    Reorg,
}

/// One round: the first sync in this order, then what happens at the tip in any.
pub const FIRST: [Aim; 8] = [
    Aim::Bulk,
    Aim::Bulk,
    Aim::BulkEnd,
    Aim::Bulk,
    Aim::BulkEnd,
    Aim::BulkEnd,
    Aim::BulkEnd,
    Aim::CatchingUp,
];
pub const LATER: [Aim; 12] = [
    Aim::Opening,
    Aim::Opening,
    Aim::Tip,
    Aim::Tip,
    Aim::Tip,
    Aim::Merge,
    Aim::Merge,
    Aim::Merge,
    Aim::Reorg,
    Aim::Reorg,
    Aim::Reorg,
    Aim::Reorg,
];

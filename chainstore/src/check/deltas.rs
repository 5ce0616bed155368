//! The newest blocks' rows, made again from their blocks.

use super::Report;
use crate::deltas::Deltas;
use crate::tip;
use crate::undo::rebuild;
use crate::view::View;

/// Compares each delta with its block on top of the chain below it.
pub(super) fn check(view: &View, report: &mut Report) {
    let mut below = View { deltas: Deltas::default(), ..view.clone() };
    for delta in view.deltas.iter() {
        below.deltas.push(delta.clone());
        let height = delta.head.height;
        match rebuild(&below, height) {
            Ok(wanted) => {
                let same = wanted.head == delta.head && wanted.scripts().eq(delta.scripts());
                if !same {
                    report
                        .add(tip::FILE, format!("rows of the block at height {height} are not those of it"));
                }
            }
            Err(error) => report.add_error(&format!("rows of the block at height {height}"), &error),
        }
    }
}

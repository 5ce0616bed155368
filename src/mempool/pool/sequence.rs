//! In which order the transactions of one chunk follow each other.
//!
//! All of a chunk is mined or none, so this makes no fee better. But where a reorganisation ties too much together
//! (`oversized`), only the front of a cluster may stay, and then it decides who does.
//! Source: Bitcoin Core `txgraph.cpp` (`GenericClusterImpl::Relinearize` ends with it) and `cluster_linearize.h`
//! (`PostLinearize`, which goes over the whole cluster: with the best chunks it moves nothing from one to another).

use super::feefrac::FeeFrac;
use super::linearize::{Member, bits};

/// Neighbours that stay together from here on.
struct Group {
    set: u64,
    /// All that any of it hangs on, in the direction of the pass, itself included.
    needs: u64,
    frac: FeeFrac,
    order: Vec<usize>,
}

/// Puts the members `order` of one chunk, which has parents before children, in the order in which Core has them:
/// once over it from the back, where what pays least with its descendants goes behind, then once from the front, where
/// what pays most with its ancestors goes ahead.
pub fn improve(members: &[Member], order: &mut [usize]) {
    if order.len() < 3 {
        // Two that are one chunk are parent and child.
        return;
    }
    let (mut ancestors, mut descendants) = (vec![0; members.len()], vec![0; members.len()]);
    let all = order.iter().fold(0, |all, &i| all | 1 << i);
    for &i in order.iter() {
        ancestors[i] = bits(members[i].parents & all).fold(1 << i, |set, parent| set | ancestors[parent]);
    }
    for &i in order.iter().rev() {
        descendants[i] |= 1 << i;
        for parent in bits(members[i].parents & all) {
            descendants[parent] |= descendants[i];
        }
    }
    order.reverse();
    pass(members, order, &descendants, |a, b| a.cmp_rate(b).is_lt());
    order.reverse();
    pass(members, order, &ancestors, |a, b| a.cmp_rate(b).is_gt());
}

/// Lets each go ahead of what `outranks` says it outranks: it passes those that it does not need, and takes along those
/// that it needs.
fn pass(members: &[Member], order: &mut [usize], needs: &[u64], outranks: impl Fn(FeeFrac, FeeFrac) -> bool) {
    let mut groups: Vec<Group> = Vec::with_capacity(order.len());
    for &i in order.iter() {
        let mut group = Group { set: 1 << i, needs: needs[i], frac: members[i].frac, order: vec![i] };
        let mut at = groups.len();
        while let Some(before) = at.checked_sub(1) {
            if !outranks(group.frac, groups[before].frac) {
                break;
            }
            at = before;
            if group.needs & groups[before].set != 0 {
                let mut whole = groups.remove(before);
                whole.set |= group.set;
                whole.needs |= group.needs;
                whole.frac += group.frac;
                whole.order.append(&mut group.order);
                group = whole;
            }
        }
        groups.insert(at, group);
    }
    for (place, i) in order.iter_mut().zip(groups.into_iter().flat_map(|group| group.order)) {
        *place = i;
    }
}

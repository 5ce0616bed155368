//! Which scripts changed from one view to the next.

use std::collections::BTreeSet;

use chainstore::ScriptKey;

/// Scripts whose history may differ between two views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Nobody kept count: all may have changed.
    Everything,
    Scripts(BTreeSet<ScriptKey>),
}

impl Default for Touched {
    /// Nothing changed.
    fn default() -> Self {
        Self::Scripts(BTreeSet::new())
    }
}

impl FromIterator<ScriptKey> for Touched {
    fn from_iter<I: IntoIterator<Item = ScriptKey>>(scripts: I) -> Self {
        Self::Scripts(scripts.into_iter().collect())
    }
}

impl Touched {
    /// Adds what a later view changed, for a reader that skips the view between.
    pub fn merge(&mut self, later: &Self) {
        match (&mut *self, later) {
            (Self::Scripts(all), Self::Scripts(more)) => all.extend(more),
            (Self::Everything | Self::Scripts(_), _) => *self = Self::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_views_changed_is_what_either_changed() {
        let key = |byte| ScriptKey([byte; ScriptKey::LEN]);
        let mut touched: Touched = [key(1), key(2)].into_iter().collect();
        touched.merge(&[key(2), key(3)].into_iter().collect());
        assert_eq!(touched, [key(1), key(2), key(3)].into_iter().collect());
        touched.merge(&Touched::Everything);
        touched.merge(&Touched::default());
        assert_eq!(touched, Touched::Everything);
    }
}

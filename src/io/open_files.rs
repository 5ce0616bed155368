//! The limit on open files: raised as far as the system lets us, and sessions are made to fit.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// What the store, peers and listeners may have open beside sessions; ElectrumX keeps as much.
const KEPT_BACK: u64 = 350;

/// Raises the soft limit to the hard one; what holds then, `None` where there is no limit.
pub fn raise() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let before = limit.current;
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(limit = before, %error, "cannot raise the limit on open files");
            limit.current = before;
        }
    }
    limit.current
}

/// As many of the sessions that the operator wants as the open files allow.
pub fn sessions_that_fit(wanted: usize, open_files: Option<u64>) -> usize {
    let Some(open_files) = open_files else { return wanted };
    let fit = usize::try_from(open_files.saturating_sub(KEPT_BACK)).unwrap_or(usize::MAX).max(1);
    if fit < wanted {
        warn!(
            sessions = fit,
            open_files,
            "--max-sessions {wanted} is more than the limit on open files allows: raise that (ulimit -n, or \
             LimitNOFILE of systemd) to {} for so many",
            wanted as u64 + KEPT_BACK
        );
    }
    fit.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_fit_the_open_files() {
        assert_eq!(sessions_that_fit(1000, Some(4096)), 1000);
        assert_eq!(sessions_that_fit(1000, Some(1024)), 674);
        assert_eq!(sessions_that_fit(1000, Some(300)), 1);
        assert_eq!(sessions_that_fit(1000, None), 1000);
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        assert_eq!(raise(), getrlimit(Resource::Nofile).maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
    }
}

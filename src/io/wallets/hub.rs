//! Gives every session the next view of the chain, and wakes those whom it concerns.
//!
//! The node publishes; each session has a mailbox. What a session is interested in is known here, so a change costs
//! what it touches and not what is subscribed to: only sessions with a new tip or a touched script are woken. A
//! session that is slow finds all that happened meanwhile as one piece of news, which never grows past its own
//! subscriptions. What is published is put into mailboxes by the threads that serve their sessions, each those of its own.
//!
//! Locks are held for moments and never across an `await`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;

use super::lock;
use super::sessions::SessionId;
use super::turns::{Turns, place_of};
use crate::electrum::{Interest, InterestChange};
use crate::node::Publication;
use crate::query::{Touched, View};

/// Parts of the table of interests, each under a lock of its own.
const SHARDS: usize = 64;

/// Who is interested in what.
#[derive(Debug)]
pub struct Hub {
    /// The newest view and its number.
    current: RwLock<(u64, Arc<View>)>,
    /// The number alone, for those who only ask whether there is a newer view.
    number: AtomicU64,
    shards: Vec<Mutex<HashMap<Interest, Vec<SessionId>>>>,
    /// Of the sessions of each thread.
    mailboxes: Vec<RwLock<HashMap<SessionId, Arc<Mailbox>>>>,
    /// Interests of all sessions.
    interests: AtomicUsize,
    /// `None` where whoever publishes delivers too.
    turns: Option<Turns>,
}

/// What waits for one session.
#[derive(Debug, Default)]
pub struct Mailbox {
    news: Mutex<Option<News>>,
    wake: Notify,
}

/// What a session is told.
#[derive(Clone, Debug)]
pub struct News {
    pub number: u64,
    pub view: Arc<View>,
    /// Of what it is interested in; or everything.
    pub touched: Touched,
}

impl Hub {
    /// Whoever publishes delivers.
    #[cfg(test)]
    pub fn new(view: Arc<View>) -> Self {
        Self::of(view, None)
    }

    /// The threads that serve the sessions deliver.
    pub fn with_turns(view: Arc<View>, turns: Turns) -> Self {
        Self::of(view, Some(turns))
    }

    fn of(view: Arc<View>, turns: Option<Turns>) -> Self {
        let places = turns.as_ref().map_or(1, Turns::count);
        Self {
            current: RwLock::new((0, view)),
            number: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            mailboxes: (0..places).map(|_| RwLock::default()).collect(),
            interests: AtomicUsize::new(0),
            turns,
        }
    }

    /// The newest view and its number.
    pub fn current(&self) -> (u64, Arc<View>) {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Interests of all sessions.
    pub fn interests(&self) -> usize {
        self.interests.load(Ordering::Relaxed)
    }

    /// A session begins: its mailbox, and the view that it begins with. Whatever is published later comes by mail.
    pub fn join(&self, session: SessionId) -> (Arc<Mailbox>, News) {
        let mailbox = Arc::new(Mailbox::default());
        let mailboxes = &self.mailboxes[place_of(session, self.mailboxes.len())];
        mailboxes.write().unwrap_or_else(PoisonError::into_inner).insert(session, mailbox.clone());
        let (number, view) = self.current();
        (mailbox, News { number, view, touched: Touched::default() })
    }

    /// A session ends, with all that it was still interested in.
    pub fn leave(&self, session: SessionId, interests: impl Iterator<Item = Interest>) {
        let mailboxes = &self.mailboxes[place_of(session, self.mailboxes.len())];
        mailboxes.write().unwrap_or_else(PoisonError::into_inner).remove(&session);
        interests.for_each(|interest| self.ends(session, &interest));
    }

    /// Keeps what a session became interested in. `seen` is the number of the view it answers from: what a newer one
    /// changed may have been published before the interest was known, so it is sent again.
    pub fn change(&self, session: SessionId, mailbox: &Mailbox, seen: u64, change: InterestChange) {
        match change {
            InterestChange::Begins(interest) => {
                self.shard(&interest).entry(interest).or_default().push(session);
                self.interests.fetch_add(1, Ordering::Relaxed);
                if self.number.load(Ordering::SeqCst) != seen {
                    let (number, view) = self.current();
                    mailbox.put(News { number, view, touched: of(&interest) });
                    mailbox.wake.notify_one();
                }
            }
            InterestChange::Ends(interest) => self.ends(session, &interest),
        }
    }

    fn ends(&self, session: SessionId, interest: &Interest) {
        let mut shard = self.shard(interest);
        let Some(sessions) = shard.get_mut(interest) else { return };
        let Some(at) = sessions.iter().position(|known| *known == session) else { return };
        sessions.swap_remove(at);
        if sessions.is_empty() {
            shard.remove(interest);
        }
        self.interests.fetch_sub(1, Ordering::Relaxed);
    }

    fn shard(&self, interest: &Interest) -> MutexGuard<'_, HashMap<Interest, Vec<SessionId>>> {
        // Hashes all: any byte but those that proof of work could make alike.
        let byte = match interest {
            Interest::Script(key) => key.0[0],
            Interest::Transaction(txid) => AsRef::<[u8; 32]>::as_ref(txid)[0],
        };
        lock(&self.shards[usize::from(byte) % SHARDS])
    }

    /// The chain moved.
    pub fn publish(self: &Arc<Self>, Publication { view, touched }: Publication) {
        let is_new_tip = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            let tip = |view: &View| view.tip().map(|tip| tip.hash);
            let is_new_tip = tip(&current.1) != tip(&view);
            let number = current.0 + 1;
            *current = (number, view);
            self.number.store(number, Ordering::SeqCst);
            is_new_tip
        };
        for (place, concerned) in self.concerned(&touched).into_iter().enumerate() {
            match &self.turns {
                None => self.deliver(place, concerned, is_new_tip),
                Some(turns) => {
                    let hub = Arc::clone(self);
                    turns.run(place, async move { hub.deliver(place, concerned, is_new_tip) });
                }
            }
        }
    }

    /// Tells the sessions of a thread what was published, with the view of now: that may be a newer one, and what it
    /// changed comes with its own delivery. So nobody is given an older view than he had.
    fn deliver(&self, place: usize, concerned: Concerned, is_new_tip: bool) {
        let (number, view) = self.current();
        let mailboxes = self.mailboxes[place].read().unwrap_or_else(PoisonError::into_inner);
        let send = |mailbox: &Mailbox, touched: Touched, wakes: bool| {
            mailbox.put(News { number, view: view.clone(), touched });
            if wakes {
                mailbox.wake.notify_one();
            }
        };
        let Some(mut concerned) = concerned else {
            mailboxes.values().for_each(|mailbox| send(mailbox, Touched::Everything, true));
            return;
        };
        // Whose coins moved is told first, as those who only hear of the block are many.
        for (session, touched) in &mut concerned {
            if let Some(mailbox) = mailboxes.get(session) {
                send(mailbox, std::mem::take(touched), true);
            }
        }
        for (_, mailbox) in mailboxes.iter().filter(|(session, _)| !concerned.contains_key(session)) {
            send(mailbox, Touched::default(), is_new_tip);
        }
    }

    /// What concerns each session, of each thread's.
    fn concerned(&self, touched: &Touched) -> Vec<Concerned> {
        let places = self.mailboxes.len();
        let Touched::Only { scripts, transactions } = touched else { return vec![None; places] };
        let interests = scripts
            .iter()
            .map(|key| Interest::Script(*key))
            .chain(transactions.iter().map(|txid| Interest::Transaction(*txid)));
        let mut concerned = vec![HashMap::new(); places];
        for interest in interests {
            for session in self.shard(&interest).get(&interest).into_iter().flatten() {
                let of_thread: &mut HashMap<SessionId, Touched> = &mut concerned[place_of(*session, places)];
                add(of_thread.entry(*session).or_default(), &interest);
            }
        }
        concerned.into_iter().map(Some).collect()
    }
}

/// What concerns each session of a thread; `None` where everything may.
type Concerned = Option<HashMap<SessionId, Touched>>;

fn of(interest: &Interest) -> Touched {
    let mut touched = Touched::default();
    add(&mut touched, interest);
    touched
}

fn add(touched: &mut Touched, interest: &Interest) {
    if let Touched::Only { scripts, transactions } = touched {
        match interest {
            Interest::Script(key) => drop(scripts.insert(*key)),
            Interest::Transaction(txid) => drop(transactions.insert(*txid)),
        }
    }
}

impl Mailbox {
    fn put(&self, later: News) {
        let mut news = lock(&self.news);
        match &mut *news {
            Some(news) => {
                news.touched.merge(&later.touched);
                if news.number <= later.number {
                    (news.number, news.view) = (later.number, later.view);
                }
            }
            None => *news = Some(later),
        }
    }

    /// What has come and was not taken.
    pub fn take(&self) -> Option<News> {
        lock(&self.news).take()
    }

    /// Until something comes that concerns the session.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Txid;
    use bitcoin::hashes::Hash as _;
    use chainstore::ScriptKey;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::query::testing::Chain;

    fn script(byte: u8) -> Interest {
        Interest::Script(ScriptKey([byte; ScriptKey::LEN]))
    }

    fn transaction(byte: u8) -> Interest {
        Interest::Transaction(Txid::from_byte_array([byte; 32]))
    }

    fn touched(interests: &[Interest]) -> Touched {
        interests.iter().fold(Touched::default(), |mut all, interest| {
            all.merge(&of(interest));
            all
        })
    }

    fn begins(interest: Interest) -> InterestChange {
        InterestChange::Begins(interest)
    }

    #[test]
    fn each_session_hears_of_what_concerns_it() {
        let (view, _) = Chain::mainnet(1).commit();
        let hub = Arc::new(Hub::new(view.clone()));
        let (first, news) = hub.join(SessionId(1));
        assert_eq!((news.number, news.touched), (0, Touched::default()));
        let (second, _) = hub.join(SessionId(2));
        hub.change(SessionId(1), &first, 0, begins(script(1)));
        hub.change(SessionId(2), &second, 0, begins(script(1)));
        hub.change(SessionId(2), &second, 0, begins(transaction(7)));
        assert!(first.take().is_none(), "nothing was published");
        let publish = |interests: &[Interest]| {
            hub.publish(Publication { view: view.clone(), touched: Arc::new(touched(interests)) });
        };
        publish(&[script(1), script(2)]);
        publish(&[transaction(7)]);
        let heard = |mailbox: &Mailbox| mailbox.take().map(|news| (news.number, news.touched));
        assert_eq!(heard(&first), Some((2, touched(&[script(1)]))));
        assert_eq!(heard(&second), Some((2, touched(&[script(1), transaction(7)]))));
        assert_eq!(heard(&second), None);
        hub.change(SessionId(2), &second, 2, InterestChange::Ends(script(1)));
        publish(&[script(1)]);
        assert_eq!(heard(&second), Some((3, Touched::default())));
        hub.publish(Publication { view: view.clone(), touched: Arc::new(Touched::Everything) });
        assert_eq!(heard(&second), Some((4, Touched::Everything)));
        assert_eq!(hub.interests(), 2);
        hub.leave(SessionId(1), [script(1)].into_iter());
        hub.leave(SessionId(2), [transaction(7)].into_iter());
        assert_eq!(hub.interests(), 0);
        assert!(hub.shards.iter().all(|shard| lock(shard).is_empty()), "nothing is left behind");
    }

    #[test]
    fn an_interest_that_came_too_late_is_made_up_for() {
        let (view, _) = Chain::mainnet(1).commit();
        let hub = Arc::new(Hub::new(view.clone()));
        let (mailbox, news) = hub.join(SessionId(1));
        // The session answers from view 0 while view 1 is published, and is heard of only then.
        hub.publish(Publication { view, touched: Arc::new(touched(&[script(1)])) });
        hub.change(SessionId(1), &mailbox, news.number, begins(script(1)));
        let news = mailbox.take().unwrap();
        assert_eq!((news.number, news.touched), (1, touched(&[script(1)])));
    }

    #[test]
    fn an_interest_counts() {
        let (view, _) = Chain::mainnet(1).commit();
        let hub = Arc::new(Hub::new(view.clone()));
        let (mailbox, _) = hub.join(SessionId(1));
        hub.change(SessionId(1), &mailbox, 0, begins(script(1)));
        hub.change(SessionId(1), &mailbox, 0, begins(script(1)));
        hub.change(SessionId(1), &mailbox, 0, InterestChange::Ends(script(1)));
        hub.publish(Publication { view, touched: Arc::new(touched(&[script(1)])) });
        assert_eq!(mailbox.take().unwrap().touched, touched(&[script(1)]));
    }

    #[tokio::test]
    async fn only_those_whom_it_concerns_are_woken() {
        let mut chain = Chain::mainnet(1);
        let hub = Arc::new(Hub::new(chain.commit().0));
        let (first, _) = hub.join(SessionId(1));
        let (second, _) = hub.join(SessionId(2));
        hub.change(SessionId(1), &first, 0, begins(script(1)));
        let wakes = async |mailbox: &Mailbox| {
            tokio::time::timeout(std::time::Duration::from_millis(1), mailbox.woken()).await.is_ok()
        };
        let (view, _) = chain.commit();
        hub.publish(Publication { view, touched: Arc::new(touched(&[script(1)])) });
        assert!(wakes(&first).await && !wakes(&second).await);
        chain.mine();
        let (view, _) = chain.commit();
        hub.publish(Publication { view, touched: Arc::new(touched(&[])) });
        assert!(wakes(&first).await && wakes(&second).await);
    }

    #[tokio::test]
    async fn the_threads_of_sessions_deliver_what_is_newest() {
        let (view, _) = Chain::mainnet(1).commit();
        let stop = CancellationToken::new();
        let hub = Arc::new(Hub::with_turns(view.clone(), Turns::start(&stop).unwrap()));
        let joined: Vec<_> =
            (1..=8).map(|session| (SessionId(session), hub.join(SessionId(session)).0)).collect();
        for (session, mailbox) in &joined {
            hub.change(*session, mailbox, 0, begins(script(session.0 as u8)));
        }
        for byte in 1..=8 {
            hub.publish(Publication { view: view.clone(), touched: Arc::new(touched(&[script(byte)])) });
        }
        for (session, mailbox) in joined {
            let (mut number, mut heard) = (0, Touched::default());
            while heard != touched(&[script(session.0 as u8)]) || number < 8 {
                if let Some(news) = mailbox.take() {
                    assert!(news.number >= number, "{} after {number}", news.number);
                    number = news.number;
                    heard.merge(&news.touched);
                }
                tokio::task::yield_now().await;
            }
        }
        stop.cancel();
    }
}

use bitcoin::hashes::Hash;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Harness {
    private: Private,
    rng: fastrand::Rng,
    now: Instant,
}

impl Harness {
    fn new() -> Self {
        let mut private = Private::default();
        private.set_state(Instant::default(), PrivateState::Ready);
        Self { private, rng: fastrand::Rng::with_seed(3), now: Instant::default() }
    }

    fn add(&mut self, number: u8) -> Wtxid {
        let wtxid = Wtxid::hash(&[number]);
        self.private.add(self.now, wtxid, &mut self.rng);
        wtxid
    }

    fn happens(&mut self, id: PrivateId, event: PrivateEvent) -> Option<(Wtxid, Step)> {
        self.private.handle(self.now, id, event, &mut self.rng)
    }

    /// What is to be dialled.
    fn dials(&mut self) -> Vec<PrivateId> {
        let dial = |action| match action {
            Action::Dial(id) => id,
            Action::Give(..) => panic!("{action:?}"),
        };
        std::iter::from_fn(|| self.private.poll()).map(dial).collect()
    }

    /// The handshake is done: what is handed over.
    fn gets_ready(&mut self, id: PrivateId) -> Option<Wtxid> {
        self.happens(id, PrivateEvent::Opened);
        self.happens(id, PrivateEvent::Ready);
        let Some(Action::Give(to, wtxid)) = self.private.poll() else { panic!("nothing is given") };
        assert_eq!(to, id);
        wtxid
    }

    fn delivers(&mut self, id: PrivateId) -> Wtxid {
        let wtxid = self.gets_ready(id).unwrap();
        assert_eq!(self.happens(id, PrivateEvent::Asked), Some((wtxid, Step::Asked)));
        assert_eq!(self.happens(id, PrivateEvent::Delivered), Some((wtxid, Step::Delivered)));
        self.happens(id, PrivateEvent::Closed);
        wtxid
    }

    /// Lets time pass, with each timer at its moment.
    fn advance(&mut self, wait: Duration) {
        let end = self.now + wait;
        while let Some(due) = self.private.next_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now, "a timer in the past would keep the loop busy");
            self.now = due;
            self.private.handle_timeout(due, &mut self.rng);
            assert!(self.private.next_timeout().is_none_or(|next| next > due), "a timer is due once");
        }
        self.now = end;
    }
}

impl Harness {
    fn advance_to_check(&mut self) {
        let due = self.private.next_check.unwrap();
        assert!(due - self.now <= CHECK_AFTER + CHECK_SPREAD);
        self.advance(due - self.now);
    }
}

#[test]
fn a_transaction_goes_to_three_and_to_no_more_once_the_network_has_it() {
    let mut net = Harness::new();
    let wtxid = net.add(1);
    assert_eq!(net.add(1), wtxid);
    let dials = net.dials();
    assert_eq!(dials.len(), PER_TRANSACTION);
    assert_eq!(net.delivers(dials[0]), wtxid);
    assert_eq!(net.delivers(dials[1]), wtxid);
    net.private.remove(wtxid);
    assert_eq!(net.gets_ready(dials[2]), None, "it connected in vain");
    net.happens(dials[2], PrivateEvent::Closed);
    assert_eq!((net.dials(), net.private.next_timeout()), (vec![], None));
}

#[test]
fn a_connection_that_ends_without_a_receipt_is_made_up_for() {
    let mut net = Harness::new();
    let wtxid = net.add(1);
    let dials = net.dials();
    net.delivers(dials[0]);
    assert_eq!(net.dials(), []);
    assert_eq!(net.gets_ready(dials[1]), Some(wtxid));
    net.happens(dials[1], PrivateEvent::Asked);
    net.happens(dials[1], PrivateEvent::Closed);
    assert_eq!(net.dials().len(), 1, "asked for is not received");

    // One that ends before it was given anything, or could not be dialled, is followed by a pause.
    net.happens(dials[2], PrivateEvent::Opened);
    net.happens(dials[2], PrivateEvent::Closed);
    assert_eq!(net.dials(), []);
    net.advance(FIRST_PAUSE);
    let [again] = net.dials()[..] else { panic!("one") };
    net.happens(again, PrivateEvent::Failed { by_proxy: true });
    net.advance(FIRST_PAUSE);
    assert_eq!(net.dials(), []);
    net.advance(FIRST_PAUSE);
    assert_eq!(net.dials().len(), 1);
}

#[test]
fn a_proxy_that_is_down_is_tried_ever_less() {
    let mut net = Harness::new();
    net.add(1);
    let mut dials = 0;
    for _ in 0..600 {
        for id in net.dials() {
            dials += 1;
            net.happens(id, PrivateEvent::Failed { by_proxy: true });
        }
        net.advance(SECOND);
    }
    assert!((20..80).contains(&dials), "{dials} dials in ten minutes");
    // And works at once when it is there again.
    net.advance(MAX_PAUSE);
    let id = net.dials()[0];
    net.delivers(id);
    assert_eq!(net.private.failures, 0);
}

#[test]
fn what_brings_no_echo_goes_to_one_more_from_time_to_time() {
    let mut net = Harness::new();
    let wtxid = net.add(1);
    for id in net.dials() {
        net.delivers(id);
    }
    net.advance(STALE_SENT);
    assert_eq!(net.dials(), []);
    for _ in 0..5 {
        net.advance_to_check();
        let dials = net.dials();
        assert_eq!(dials.len(), 1);
        assert_eq!(net.delivers(dials[0]), wtxid);
    }

    // Without any receipt it has five minutes first.
    let mut net = Harness::new();
    net.add(1);
    let dials = net.dials();
    assert!(dials.iter().all(|id| net.gets_ready(*id) == Some(wtxid)));
    net.advance(STALE_UNSENT);
    assert_eq!(net.dials(), []);
    net.advance_to_check();
    assert_eq!(net.dials().len(), 1);
}

#[test]
fn the_transaction_that_was_sent_least_goes_first_and_never_two_over_one_connection() {
    let mut net = Harness::new();
    let (one, two) = (net.add(1), net.add(2));
    let dials = net.dials();
    assert_eq!(dials.len(), 2 * PER_TRANSACTION);
    let given: Vec<Wtxid> = dials.iter().map(|id| net.gets_ready(*id).unwrap()).collect();
    for pair in given.chunks(2) {
        assert!(pair.contains(&one) && pair.contains(&two), "in turns");
    }
    assert_eq!(net.happens(dials[0], PrivateEvent::Ready), None);
    assert_eq!(net.private.poll(), None, "a second time there is nothing to give");
}

#[test]
fn what_one_does_not_need_any_more_is_not_taken_from_the_other() {
    let mut net = Harness::new();
    let one = net.add(1);
    let dials = net.dials();
    for id in &dials {
        net.gets_ready(*id);
    }
    let two = net.add(2);
    net.private.remove(one);
    for id in dials {
        net.happens(id, PrivateEvent::Closed);
    }
    let dials = net.dials();
    assert_eq!(dials.len(), PER_TRANSACTION);
    assert!(dials.iter().all(|id| net.gets_ready(*id) == Some(two)));
}

#[test]
fn so_many_are_dialled_and_open_at_once_and_no_more() {
    let mut net = Harness::new();
    for number in 0..40 {
        net.add(number);
    }
    let mut open = Vec::new();
    for _ in 0..20 {
        let dials = net.dials();
        assert!(dials.len() <= MAX_DIALS);
        for id in dials {
            net.happens(id, PrivateEvent::Opened);
            open.push(id);
        }
    }
    assert_eq!(open.len(), MAX_CONNECTIONS);
    net.happens(open[0], PrivateEvent::Closed);
    net.advance(FIRST_PAUSE);
    assert_eq!(net.dials().len(), 1);
}

#[test]
fn without_addresses_nothing_is_dialled_until_there_are_some() {
    let mut net = Harness::new();
    net.private.set_state(net.now, PrivateState::NoAddresses);
    net.add(1);
    net.advance(STALE_UNSENT);
    assert_eq!(net.dials(), []);
    net.private.set_state(net.now, PrivateState::Ready);
    assert!(net.dials().len() >= PER_TRANSACTION);
}

//! A block that concerns many sessions at once, timed until the last of them has heard all of it.
//!
//! While the time runs, lines are only counted and kept. Then each session must have heard of the tip first, and
//! once of each script that the block touches and that it is subscribed to, with a status that is true.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bitcoin::Block;
use bitcoin::hex::FromHex;
use serde::Deserialize;
use serde_json::Value;

use super::gathering::{Gathering, Heard};
use super::idle::Sitter;
use super::request::{self, Entry, Said, said};
use super::scripts::Hash;
use crate::sync::watch;
use crate::tip::stand::Stand;
use crate::tip::touched;

/// Longest wait for a block's notifications.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long afterwards nothing more may come.
const SILENCE: Duration = Duration::from_millis(500);
/// Scripts of each block whose new status is compared with what the server gives as their history.
const ASKED: usize = 64;

/// Who is subscribed to what the block touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// So many scripts, each for one session.
    Each(usize),
    /// One script for all sessions.
    One,
}

/// What one block took, from the moment its last byte was handed to the socket.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub height: usize,
    pub transactions: usize,
    /// Notifications of scripts.
    pub notifications: usize,
    /// Sessions that had some.
    pub concerned: usize,
    pub first_header: Duration,
    pub last_header: Duration,
    /// Zero if there was none.
    pub first_script: Duration,
    pub last_script: Duration,
    /// Processor seconds of the server, from the announcement to the last line.
    pub cpu: f64,
    /// The same of this process: of the crowd, and of the peer that has the block.
    pub client_cpu: f64,
}

/// A line that a session was told.
struct Line {
    session: usize,
    at: Instant,
    text: Vec<u8>,
}

/// Subscribes, lets the peer tell of the next block, and waits until all have heard.
pub fn play(
    stand: &mut Stand,
    crowd: &mut Gathering<Sitter>,
    spread: Spread,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<Told> {
    let block = stand.coming.first().context("no more blocks are prepared")?.read()?;
    let block: Block = bitcoin::consensus::deserialize(&block)?;
    let (funded, spent) = touched::scripts(&block);
    // Of the others nobody knows from the block alone whether it spends them.
    let shown = funded.iter().chain(&spent).filter(|script| touched::is_shown(script));
    let touched: HashSet<Hash> = shown.map(|script| touched::hash(script.as_bytes())).collect();
    let chosen = choose(&touched, crowd, spread, rng)?;
    let unknown = subscribe(crowd, &chosen)?;

    let mut expected: Vec<HashSet<Hash>> = crowd
        .members()
        .map(|sitter| sitter.scripts.iter().copied().filter(|script| touched.contains(script)).collect())
        .collect();
    let notifications = expected.iter().map(HashSet::len).sum::<usize>();
    let concerned = expected.iter().filter(|scripts| !scripts.is_empty()).count();

    let process = stand.server.process();
    let cpu_of_both = || Ok::<_, anyhow::Error>((watch::cpu(process)?.0, watch::cpu(std::process::id())?.0));
    let before = cpu_of_both()?;
    let (height, served) = stand.announce()?;
    let lines = gather(crowd, expected.len() + notifications)?;
    let after = cpu_of_both()?;
    let surplus = gather_for(crowd, SILENCE)?;
    if let Some(line) = surplus.first() {
        bail!("session {} is told more than it should be: {}", line.session, request::start(&line.text));
    }

    let sent = stand.peer.sent(&served.hash).context("a block that nobody asked for")?;
    let mut headers = Vec::with_capacity(expected.len());
    let mut scripts = Vec::with_capacity(notifications);
    let mut statuses = HashMap::new();
    for line in &lines {
        let since = line.at.saturating_duration_since(sent);
        let mistake = || format!("session {}: {}", line.session, request::start(&line.text));
        match notification(&line.text).with_context(mistake)? {
            News::Tip(told) => {
                ensure!(told == height as u64, mistake());
                headers.push((line.session, since));
            }
            News::Script(script, status) => {
                ensure!(expected[line.session].remove(&script), "twice, or unasked: {}", mistake());
                let same = *statuses.entry(script).or_insert(status) == status;
                ensure!(same, "others heard of another status: {}", mistake());
                scripts.push((line.session, since));
            }
        }
    }
    check_order(&lines, expected.len())?;
    if let Some((session, missing)) = expected.iter().enumerate().find(|(_, missing)| !missing.is_empty()) {
        bail!("session {session} has not heard of {} scripts", missing.len());
    }
    check_new(&block, height, &unknown, &statuses)?;
    check_histories(crowd, &statuses, rng)?;
    unsubscribe(crowd, &chosen)?;

    let ends = |news: &[(usize, Duration)]| {
        let times = news.iter().map(|(_, at)| *at);
        (times.clone().min().unwrap_or_default(), times.max().unwrap_or_default())
    };
    let ((first_header, last_header), (first_script, last_script)) = (ends(&headers), ends(&scripts));
    let transactions = block.txdata.len();
    Ok(Told {
        height,
        transactions,
        notifications,
        concerned,
        first_header,
        last_header,
        first_script,
        last_script,
        cpu: after.0 - before.0,
        client_cpu: after.1 - before.1,
    })
}

/// Sessions and the scripts that each is to subscribe to.
fn choose(
    touched: &HashSet<Hash>,
    crowd: &mut Gathering<Sitter>,
    spread: Spread,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<Vec<(usize, Hash)>> {
    let sessions = crowd.members().len();
    let mut scripts: Vec<Hash> = touched.iter().copied().collect();
    // The same seed chooses the same ones, whatever the order of the set.
    scripts.sort_unstable();
    rng.shuffle(&mut scripts);
    let mut chosen: Vec<(usize, Hash)> = match spread {
        Spread::Each(count) => {
            ensure!(count <= scripts.len(), "the block touches {} scripts", scripts.len());
            let mut everybody: Vec<usize> = (0..sessions).collect();
            rng.shuffle(&mut everybody);
            everybody.into_iter().cycle().zip(scripts).take(count).collect()
        }
        Spread::One => {
            let one = scripts.first().context("the block touches nothing")?;
            (0..sessions).map(|session| (session, *one)).collect()
        }
    };
    // What it has subscribed to before stays, and is not subscribed to again.
    chosen.retain(|(session, script)| !crowd.member(*session).scripts.contains(script));
    Ok(chosen)
}

/// Subscribes; those of the scripts that had no history.
fn subscribe(crowd: &mut Gathering<Sitter>, chosen: &[(usize, Hash)]) -> anyhow::Result<HashSet<Hash>> {
    let mut asked = HashMap::with_capacity(chosen.len());
    for (session, script) in chosen {
        crowd.say(*session, |sitter, out| {
            asked.insert((*session, sitter.next), *script);
            request::write(out, sitter.next, "blockchain.scripthash.subscribe", &request::one(script));
            sitter.next += 1;
            sitter.scripts.push(*script);
        });
    }
    let mut unknown = HashSet::new();
    for line in gather(crowd, chosen.len())? {
        let Said::Result(id) = said(&line.text) else { bail!("refused: {}", request::start(&line.text)) };
        let script = asked.remove(&(line.session, id)).context("an answer to nothing")?;
        if request::status(&line.text)?.is_none() {
            unknown.insert(script);
        }
    }
    Ok(unknown)
}

fn unsubscribe(crowd: &mut Gathering<Sitter>, chosen: &[(usize, Hash)]) -> anyhow::Result<()> {
    for (session, script) in chosen {
        crowd.say(*session, |sitter, out| {
            request::write(out, sitter.next, "blockchain.scripthash.unsubscribe", &request::one(script));
            sitter.next += 1;
            sitter.scripts.pop();
        });
    }
    for line in gather(crowd, chosen.len())? {
        ensure!(request::result::<bool>(&line.text)?, "no subscription: {}", request::start(&line.text));
    }
    Ok(())
}

/// Waits for so many lines.
fn gather(crowd: &mut Gathering<Sitter>, count: usize) -> anyhow::Result<Vec<Line>> {
    let end = Instant::now() + PATIENCE;
    let mut lines = Vec::with_capacity(count);
    while lines.len() < count {
        let left = end.checked_duration_since(Instant::now());
        let left = left.with_context(|| format!("{} of {count} lines came", lines.len()))?;
        listen(crowd, left, &mut lines)?;
    }
    Ok(lines)
}

/// All that comes in this time.
fn gather_for(crowd: &mut Gathering<Sitter>, time: Duration) -> anyhow::Result<Vec<Line>> {
    let end = Instant::now() + time;
    let mut lines = Vec::new();
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        listen(crowd, left, &mut lines)?;
    }
    Ok(lines)
}

fn listen(crowd: &mut Gathering<Sitter>, patience: Duration, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    let mut lost = None;
    crowd.turn(patience, |session, _, heard, at, _| match heard {
        Heard::Line(text) => lines.push(Line { session, at, text: text.to_vec() }),
        Heard::HungUp => lost = Some(session),
    })?;
    match lost {
        Some(session) => bail!("the server hung up on session {session}"),
        None => Ok(()),
    }
}

enum News {
    /// Height of a new tip.
    Tip(u64),
    Script(Hash, Option<Hash>),
}

fn notification(text: &[u8]) -> anyhow::Result<News> {
    #[derive(Deserialize)]
    struct Notification<'a> {
        method: &'a str,
        params: Vec<Value>,
    }
    let Notification { method, params } = serde_json::from_slice(text)?;
    Ok(match (method, &*params) {
        ("blockchain.headers.subscribe", [tip]) => News::Tip(tip["height"].as_u64().context("no height")?),
        ("blockchain.scripthash.subscribe", [Value::String(script), status]) => {
            let status = status.as_str().map(Hash::from_hex).transpose()?;
            News::Script(Hash::from_hex(script)?, status)
        }
        _ => bail!("no such notification is known"),
    })
}

/// Each session's first line, and none but that, is the tip's.
fn check_order(lines: &[Line], sessions: usize) -> anyhow::Result<()> {
    let mut told = vec![false; sessions];
    for line in lines {
        let is_tip = matches!(notification(&line.text)?, News::Tip(_));
        let before = std::mem::replace(&mut told[line.session], true);
        ensure!(is_tip != before, "session {}, out of order: {}", line.session, request::start(&line.text));
    }
    ensure!(told.iter().all(|told| *told), "a session has not heard of the tip");
    Ok(())
}

/// A script that had no history has what is in the block, and no more.
fn check_new(
    block: &Block,
    height: usize,
    unknown: &HashSet<Hash>,
    statuses: &HashMap<Hash, Option<Hash>>,
) -> anyhow::Result<()> {
    let mut histories: HashMap<Hash, Vec<String>> = HashMap::new();
    for transaction in &block.txdata {
        let mut touched = HashSet::new();
        for script in touched::funded(transaction).chain(touched::spent(transaction)) {
            let hash = touched::hash(script.as_bytes());
            if unknown.contains(&hash) && touched.insert(hash) {
                histories.entry(hash).or_default().push(transaction.compute_txid().to_string());
            }
        }
    }
    for (script, history) in histories {
        let entries = history.iter().map(|txid| Entry { height: height as i64, tx_hash: txid });
        let told = statuses.get(&script).context("a script of which nobody heard")?;
        ensure!(*told == request::status_of(entries), "a status that is not that of {history:?}");
    }
    Ok(())
}

/// What was told is the status of what is answered.
fn check_histories(
    crowd: &mut Gathering<Sitter>,
    statuses: &HashMap<Hash, Option<Hash>>,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<()> {
    let mut asked = HashMap::new();
    let sessions = crowd.members().len();
    for script in rng.choose_multiple(statuses.keys(), ASKED) {
        let session = rng.usize(..sessions);
        crowd.say(session, |sitter, out| {
            asked.insert((session, sitter.next), *script);
            request::write(out, sitter.next, "blockchain.scripthash.get_history", &request::one(script));
            sitter.next += 1;
        });
    }
    for line in gather(crowd, asked.len())? {
        let Said::Result(id) = said(&line.text) else { bail!("refused: {}", request::start(&line.text)) };
        let script = asked.remove(&(line.session, id)).context("an answer to nothing")?;
        let history: Vec<Entry<'_>> = request::result(&line.text)?;
        ensure!(
            request::status_of(history) == statuses[&script],
            "another status than that of {}",
            request::start(&line.text)
        );
    }
    Ok(())
}

//! What the operator may ask, and what is answered: pure, from facts that are given.
//!
//! Names and fields are those of ElectrumX's `electrumx_rpc` where there is such a thing. Wallets' methods are
//! another table: nothing of this can be asked by a wallet.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::blocks::CompactFigures;
use crate::electrum::transport::Transport;
use crate::mempool::{FeeBoard, FeeRate, MempoolView};
use crate::relay::{BroadcastReport, Way};

/// JSON-RPC's own codes.
const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;

/// Why a transaction did not go over private connections.
const NO_ADDRESSES: &str = "no addresses known for private connections";

/// What the server is doing, at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    pub version: &'static str,
    pub network: &'static str,
    pub pid: u32,
    pub uptime: Duration,
    /// Height and hash of the newest connected block.
    pub tip: Option<(u32, String)>,
    /// Percent of the first sync; `None` once it is done.
    pub syncing: Option<u8>,
    /// Whether this program can verify scripts.
    pub verifies_scripts: bool,
    pub session_limit: usize,
    /// Since the start, those that are open among them.
    pub sessions_ever: u64,
    /// Of sessions that have ended.
    pub past_requests: u64,
    /// How often each method was asked for.
    pub requests: BTreeMap<&'static str, u64>,
    /// Oldest first.
    pub sessions: Vec<SessionFacts>,
    pub groups: Vec<GroupFacts>,
    /// Whether what new sessions ask is logged.
    pub log_new: bool,
    pub mempool: MempoolView,
    pub fees: FeeBoard,
    pub relayed: Relayed,
}

/// What is known of the way of transactions over the network, as the node said last.
#[derive(Clone, Debug, Default)]
pub struct Relayed {
    /// Share of the last blocks, by weight, that was in the mempool before they came; `None` before any came.
    pub coverage: Option<f64>,
    /// What came of compact blocks.
    pub compact: CompactFigures,
    /// Of wallets' transactions that no block has yet.
    pub broadcasts: Vec<BroadcastReport>,
}

/// Sessions of one subnet, which pay together.
#[derive(Clone, Debug)]
pub struct GroupFacts {
    pub subnet: String,
    /// Their numbers.
    pub sessions: Vec<u64>,
    pub cost: f64,
    /// What those owe that are gone.
    pub retained_cost: f64,
}

/// One session with a wallet.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    pub id: u64,
    pub transport: Transport,
    pub peer: String,
    pub client: String,
    pub protocol: String,
    pub cost: f64,
    pub requests: u64,
    pub subscriptions: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub open_for: Duration,
    /// Whether what it asks is logged.
    pub logged: bool,
}

/// What the shell has to do, beside sending the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// End the sessions of these numbers.
    Disconnect(Vec<u64>),
    /// Log what sessions ask, or no longer: those of these numbers, and those to come.
    Log {
        sessions: Vec<(u64, bool)>,
        new: Option<bool>,
    },
    /// End the server.
    Stop,
    /// End this connection: what came is no request, and whoever sent it perhaps not the operator. A web page can
    /// make a browser send lines to this machine, but not lines that begin with JSON.
    HangUp,
}

/// An answer's error.
type Refusal = (i64, String);

/// A result and what is to be done, or why neither.
type Outcome = Result<(Value, Action), Refusal>;

/// A method: its name, what it is for, and its answer.
pub struct Method {
    pub name: &'static str,
    pub help: &'static str,
    answer: fn(&Facts, &[Value]) -> Outcome,
}

/// All of them.
pub const METHODS: [Method; 9] = [
    Method { name: "getinfo", help: "what the server is doing", answer: getinfo },
    Method { name: "sessions", help: "who is connected", answer: sessions },
    Method { name: "groups", help: "what subnets owe", answer: groups },
    Method { name: "disconnect", help: "ID..., GROUP... or all: end sessions", answer: disconnect },
    Method { name: "log", help: "ID..., GROUP..., all, none or new: log what sessions ask", answer: log },
    Method { name: "broadcasts", help: "what peers did with wallets' transactions", answer: broadcasts },
    Method { name: "getmempoolinfo", help: "the mempool in figures", answer: mempool_info },
    Method { name: "getrawmempool", help: "ids of all unconfirmed transactions", answer: raw_mempool },
    Method { name: "stop", help: "end the server", answer: stop },
];

/// Answers one line; no answer to a notification.
pub fn answer(line: &[u8], facts: impl FnOnce() -> Facts) -> (Option<Value>, Action) {
    let request: Map<String, Value> = match serde_json::from_slice(line) {
        Ok(Value::Object(request)) => request,
        Ok(_) => return (Some(refused(Value::Null, (INVALID_REQUEST, "no request".into()))), Action::HangUp),
        Err(_) => return (Some(refused(Value::Null, (PARSE_ERROR, "no JSON".into()))), Action::HangUp),
    };
    let id = request.get("id").cloned();
    let outcome = method_of(&request).and_then(|(method, params)| (method.answer)(&facts(), &params));
    let (answer, action) = match outcome {
        Ok((result, action)) => (id.map(|id| json!({"jsonrpc": "2.0", "result": result, "id": id})), action),
        Err(refusal) => (id.map(|id| refused(id, refusal)), Action::Nothing),
    };
    (answer, action)
}

fn refused(id: Value, (code, message): Refusal) -> Value {
    json!({"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": id})
}

fn method_of(request: &Map<String, Value>) -> Result<(&'static Method, Vec<Value>), Refusal> {
    let name = request.get("method").and_then(Value::as_str);
    let name = name.ok_or_else(|| (INVALID_REQUEST, "no method".to_string()))?;
    let method = METHODS.iter().find(|method| method.name == name).ok_or_else(|| {
        let known: Vec<String> =
            METHODS.iter().map(|method| format!("{} ({})", method.name, method.help)).collect();
        (METHOD_NOT_FOUND, format!("unknown method '{name}'; known are {}", known.join(", ")))
    })?;
    match request.get("params") {
        None | Some(Value::Null) => Ok((method, Vec::new())),
        Some(Value::Array(params)) => Ok((method, params.clone())),
        Some(_) => Err((INVALID_PARAMS, "params are no list".into())),
    }
}

fn nothing_more(params: &[Value]) -> Result<(), Refusal> {
    match params {
        [] => Ok(()),
        _ => Err((INVALID_PARAMS, "takes no arguments".into())),
    }
}

fn getinfo(facts: &Facts, params: &[Value]) -> Outcome {
    nothing_more(params)?;
    let mut sessions = Map::new();
    sessions.insert("count".into(), json!(facts.sessions.len()));
    sessions.insert("limit".into(), json!(facts.session_limit));
    sessions.insert("ever".into(), json!(facts.sessions_ever));
    let count = |count: &dyn Fn(&SessionFacts) -> bool| {
        facts.sessions.iter().filter(|session| count(session)).count()
    };
    for transport in Transport::ALL.into_iter().filter(|transport| *transport != Transport::Rpc) {
        sessions.insert(transport.name().into(), json!(count(&|session| session.transport == transport)));
    }
    sessions.insert("count with subs".into(), json!(count(&|session| session.subscriptions > 0)));
    sessions.insert(
        "subs".into(),
        json!(facts.sessions.iter().map(|session| session.subscriptions).sum::<u64>()),
    );
    let mut clients: BTreeMap<&str, u64> = BTreeMap::new();
    for session in &facts.sessions {
        *clients.entry(&session.client).or_default() += 1;
    }
    let info = json!({
        "version": facts.version,
        "network": facts.network,
        "db height": facts.tip.as_ref().map(|(height, _)| height),
        "tip": facts.tip.as_ref().map(|(_, hash)| hash),
        "syncing percent": facts.syncing,
        "scripts verified": facts.verifies_scripts,
        "pid": facts.pid,
        "uptime": time(facts.uptime),
        "request total": facts.past_requests + facts.sessions.iter().map(|session| session.requests).sum::<u64>(),
        "request counts": facts.requests,
        "groups": facts.groups.len(),
        "sessions": sessions,
        "clients": clients,
    });
    Ok((info, Action::Nothing))
}

/// With Bitcoin Core's names.
fn mempool_info(facts: &Facts, params: &[Value]) -> Outcome {
    nothing_more(params)?;
    let figures = facts.mempool.figures();
    let btc = |sat: u64| json!(sat as f64 / 1e8);
    let rate = |rate: FeeRate| btc(rate.0);
    let info = json!({
        "size": facts.mempool.len(),
        "bytes": figures.vsize,
        "usage": figures.bytes,
        "total_fee": btc(figures.fees),
        "mempoolminfee": rate(facts.fees.min),
        "minrelaytxfee": rate(facts.fees.relay),
        "incrementalrelayfee": rate(facts.fees.incremental),
        "coverage": facts.relayed.coverage,
        "compact_blocks": compact_blocks(&facts.relayed.compact),
    });
    Ok((info, Action::Nothing))
}

/// Numbers in the newest one are of transactions.
fn compact_blocks(figures: &CompactFigures) -> Value {
    let last = figures.last.map(|last| {
        json!({
            "hash": last.hash.to_string(),
            "prefilled": last.prefilled,
            "had": last.had,
            "asked": last.asked,
            "bytes": last.bytes,
            "received_bytes": last.received_bytes,
        })
    });
    json!({
        "asked": figures.asked,
        "rebuilt": figures.rebuilt,
        "unfit": figures.unfit,
        "received_bytes": figures.received_bytes,
        "saved_bytes": figures.saved_bytes,
        "last": last,
    })
}

/// Numbers are of peers.
fn broadcasts(facts: &Facts, params: &[Value]) -> Outcome {
    nothing_more(params)?;
    let row = |report: &BroadcastReport| {
        json!({
            "txid": report.txid.to_string(),
            "way": report.way.map(way),
            "why": matches!(report.way, Some(Way::Relay { no_addresses: true })).then_some(NO_ADDRESSES),
            "sent": report.sent,
            "delivered": report.delivered,
            "asked": report.asked,
            "announced": report.announced,
            "accepted": report.accepted,
            "echo": report.is_echoed,
            "unseen": report.is_unseen,
        })
    };
    Ok((facts.relayed.broadcasts.iter().map(row).collect(), Action::Nothing))
}

fn way(way: Way) -> &'static str {
    match way {
        Way::Trusted => "own node",
        Way::Private => "private",
        Way::Relay { .. } => "relay",
    }
}

fn raw_mempool(facts: &Facts, params: &[Value]) -> Outcome {
    nothing_more(params)?;
    let txids = facts.mempool.entries().map(|entry| json!(entry.txid.to_string()));
    Ok((txids.collect(), Action::Nothing))
}

fn sessions(facts: &Facts, params: &[Value]) -> Outcome {
    nothing_more(params)?;
    let row = |session: &SessionFacts| {
        json!({
            "id": session.id,
            "transport": session.transport.name(),
            "client": session.client,
            "proto": session.protocol,
            "cost": session.cost.round(),
            "reqs": session.requests,
            "subs": session.subscriptions,
            "recv": session.received_bytes,
            "sent": session.sent_bytes,
            "time": time(session.open_for),
            "peer": session.peer,
            "logged": session.logged,
        })
    };
    Ok((facts.sessions.iter().map(row).collect(), Action::Nothing))
}

fn groups(facts: &Facts, params: &[Value]) -> Outcome {
    nothing_more(params)?;
    let row = |group: &GroupFacts| {
        json!({
            "name": group.subnet,
            "sessions": group.sessions.len(),
            "cost": group.cost.round(),
            "retained cost": group.retained_cost.round(),
        })
    };
    Ok((facts.groups.iter().map(row).collect(), Action::Nothing))
}

/// One line of answer for each number or group, as in ElectrumX.
fn disconnect(facts: &Facts, params: &[Value]) -> Outcome {
    if params.is_empty() {
        return Err((INVALID_PARAMS, "give numbers of sessions, names of groups, or all".into()));
    }
    let (mut lines, mut ended) = (Vec::new(), Vec::new());
    for param in params {
        if param == "all" {
            lines.push("disconnected all".to_string());
            ended.extend(facts.sessions.iter().map(|session| session.id));
        } else if let Some(session) = session(facts, param) {
            lines.push(format!("disconnected {}", session.id));
            ended.push(session.id);
        } else if let Some(group) = group(facts, param) {
            lines.push(format!("disconnected group {}", group.subnet));
            ended.extend(&group.sessions);
        } else {
            lines.push(unknown(param));
        }
    }
    Ok((json!(lines), Action::Disconnect(ended)))
}

/// The same; what is logged already is logged no longer.
fn log(facts: &Facts, params: &[Value]) -> Outcome {
    if params.is_empty() {
        return Err((INVALID_PARAMS, "give numbers of sessions, names of groups, all, none or new".into()));
    }
    let (mut lines, mut sessions, mut new) = (Vec::new(), Vec::new(), None);
    let not = |logged: bool| if logged { "" } else { "not " };
    for param in params {
        if param == "all" || param == "none" {
            lines.push(if param == "all" { "logging all".into() } else { "logging none".into() });
            sessions.extend(facts.sessions.iter().map(|session| (session.id, param == "all")));
        } else if param == "new" {
            new = Some(!facts.log_new);
            lines.push(format!("{}logging new sessions", not(!facts.log_new)));
        } else if let Some(session) = session(facts, param) {
            lines.push(format!("{}logging {}", not(!session.logged), session.id));
            sessions.push((session.id, !session.logged));
        } else if let Some(group) = group(facts, param) {
            let members = facts.sessions.iter().filter(|session| group.sessions.contains(&session.id));
            let logged = !members.clone().all(|session| session.logged);
            lines.push(format!("{}logging group {}", not(logged), group.subnet));
            sessions.extend(members.map(|session| (session.id, logged)));
        } else {
            lines.push(unknown(param));
        }
    }
    Ok((json!(lines), Action::Log { sessions, new }))
}

/// The session of this number, which may be written as a text.
fn session<'a>(facts: &'a Facts, param: &Value) -> Option<&'a SessionFacts> {
    let number = param.as_u64().or_else(|| param.as_str()?.parse().ok())?;
    facts.sessions.iter().find(|session| session.id == number)
}

/// The group of this name, as `groups` shows it.
fn group<'a>(facts: &'a Facts, param: &Value) -> Option<&'a GroupFacts> {
    facts.groups.iter().find(|group| param == &group.subnet)
}

fn unknown(param: &Value) -> String {
    format!("unknown: {}", param.as_str().map_or_else(|| param.to_string(), str::to_string))
}

fn stop(_: &Facts, params: &[Value]) -> Outcome {
    nothing_more(params)?;
    Ok((json!("stopping"), Action::Stop))
}

/// `2d 03h 04m`, `03h 04m 05s`, `04m 05s`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes:02}m {:02}s", seconds % 60),
        (0, _) => format!("{hours:02}h {minutes:02}m {:02}s", seconds % 60),
        _ => format!("{days}d {hours:02}h {minutes:02}m"),
    }
}

#[cfg(test)]
#[path = "methods_tests.rs"]
mod tests;

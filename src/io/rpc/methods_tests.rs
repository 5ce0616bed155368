use super::*;
use crate::blocks::Rebuilt;

fn open(id: u64, transport: Transport) -> SessionFacts {
    SessionFacts {
        id,
        transport,
        peer: "203.0.113.7:4711".into(),
        client: "electrum/4.5.8".into(),
        protocol: "1.4".into(),
        cost: 12.4,
        requests: 3,
        subscriptions: 2,
        received_bytes: 100,
        sent_bytes: 2000,
        open_for: Duration::from_secs(61),
        logged: id == 5,
    }
}

fn facts() -> Facts {
    Facts {
        version: "0.1.0",
        network: "regtest",
        pid: 42,
        uptime: Duration::from_secs(90_061),
        tip: Some((7, "ab".repeat(32))),
        syncing: None,
        verifies_scripts: true,
        session_limit: 1000,
        sessions_ever: 9,
        past_requests: 100,
        requests: BTreeMap::from([("server.ping", 100), ("server.version", 6)]),
        sessions: vec![open(1, Transport::Ssl), open(5, Transport::Tcp)],
        groups: vec![GroupFacts {
            subnet: "203.0.113.0/24".into(),
            sessions: vec![1, 5],
            cost: 24.6,
            retained_cost: 1.2,
        }],
        log_new: false,
        mempool: MempoolView::default(),
        fees: FeeBoard::new(FeeRate(100), FeeRate(100), FeeRate(100)),
        relayed: Relayed {
            coverage: Some(0.75),
            compact: CompactFigures {
                asked: 3,
                rebuilt: 2,
                unfit: 1,
                received_bytes: 5_000,
                saved_bytes: 95_000,
                last: Some(Rebuilt {
                    hash: "ef".repeat(32).parse().unwrap(),
                    prefilled: 1,
                    had: 40,
                    asked: 2,
                    bytes: 60_000,
                    received_bytes: 3_000,
                }),
            },
            broadcasts: vec![BroadcastReport {
                txid: "ab".repeat(32).parse().unwrap(),
                wtxid: "cd".repeat(32).parse().unwrap(),
                way: Some(Way::Relay { no_addresses: true }),
                sent: 2,
                delivered: 2,
                asked: 0,
                announced: 3,
                accepted: 1,
                is_echoed: true,
                is_unseen: false,
            }],
        },
    }
}

fn ask(line: &str) -> (Value, Action) {
    let (answer, action) = answer(line.as_bytes(), facts);
    (answer.unwrap_or_default(), action)
}

fn call(method: &str, params: Value) -> (Value, Action) {
    ask(&json!({"id": 1, "method": method, "params": params}).to_string())
}

#[test]
fn getinfo_counts_by_transport() {
    let (info, action) = call("getinfo", json!([]));
    assert_eq!(action, Action::Nothing);
    assert_eq!(
        info["result"],
        json!({
            "version": "0.1.0", "network": "regtest", "db height": 7, "tip": "ab".repeat(32),
            "syncing percent": null, "scripts verified": true, "pid": 42, "uptime": "1d 01h 01m", "request total": 106,
            "request counts": {"server.ping": 100, "server.version": 6}, "groups": 1,
            "sessions": {"count": 2, "limit": 1000, "ever": 9, "tcp": 1, "ssl": 1, "ws": 0, "wss": 0,
                "count with subs": 2, "subs": 4},
            "clients": {"electrum/4.5.8": 2},
        })
    );
}

#[test]
fn sessions_are_listed_oldest_first() {
    let list = call("sessions", json!([])).0["result"].clone();
    assert_eq!(
        list[0],
        json!({
            "id": 1, "transport": "ssl", "client": "electrum/4.5.8", "proto": "1.4", "cost": 12.0, "reqs": 3,
            "subs": 2, "recv": 100, "sent": 2000, "time": "01m 01s", "peer": "203.0.113.7:4711",
            "logged": false,
        })
    );
    assert_eq!(list[1]["id"], 5);
}

#[test]
fn groups_are_listed_with_what_they_owe() {
    let row = json!({"name": "203.0.113.0/24", "sessions": 2, "cost": 25.0, "retained cost": 1.0});
    assert_eq!(call("groups", json!([])).0["result"], json!([row]));
}

#[test]
fn sessions_are_ended_by_number_or_all() {
    let (said, action) = call("disconnect", json!(["203.0.113.0/24", "203.0.113.0"]));
    assert_eq!(said["result"], json!(["disconnected group 203.0.113.0/24", "unknown: 203.0.113.0"]));
    assert_eq!(action, Action::Disconnect(vec![1, 5]));
    let (said, action) = call("disconnect", json!([5, "1", 7, "x"]));
    assert_eq!(said["result"], json!(["disconnected 5", "disconnected 1", "unknown: 7", "unknown: x"]));
    assert_eq!(action, Action::Disconnect(vec![5, 1]));
    assert_eq!(call("disconnect", json!(["all"])).1, Action::Disconnect(vec![1, 5]));
    assert_eq!(call("disconnect", json!([])).0["error"]["code"], INVALID_PARAMS);
}

#[test]
fn what_sessions_ask_is_logged_and_no_longer() {
    let (said, action) = call("log", json!(["203.0.113.0/24"]));
    assert_eq!(said["result"], json!(["logging group 203.0.113.0/24"]));
    assert_eq!(action, Action::Log { sessions: vec![(1, true), (5, true)], new: None });
    let (said, action) = call("log", json!([1, 5, "new", 7]));
    assert_eq!(said["result"], json!(["logging 1", "not logging 5", "logging new sessions", "unknown: 7"]));
    assert_eq!(action, Action::Log { sessions: vec![(1, true), (5, false)], new: Some(true) });
    let all = Action::Log { sessions: vec![(1, true), (5, true)], new: None };
    assert_eq!(
        call("log", json!(["all"])),
        (json!({"jsonrpc": "2.0", "result": ["logging all"], "id": 1}), all)
    );
    assert_eq!(call("log", json!(["none"])).0["result"], json!(["logging none"]));
}

#[test]
fn what_is_no_request_ends_the_connection() {
    for line in ["POST / HTTP/1.1", "", "[]", "7", "\u{0}"] {
        let (said, action) = ask(line);
        assert_eq!(action, Action::HangUp, "{line}");
        assert!(said["error"]["code"].is_i64(), "{line}");
    }
}

#[test]
fn a_wrong_request_is_answered_in_words() {
    let unknown = call("dance", json!([])).0;
    assert_eq!(unknown["error"]["code"], METHOD_NOT_FOUND);
    assert!(unknown["error"]["message"].as_str().unwrap().contains("getinfo (what the server is doing)"));
    assert_eq!(call("stop", json!([1])).0["error"]["code"], INVALID_PARAMS);
    assert_eq!(call("stop", json!({})).0["error"]["code"], INVALID_PARAMS);
    assert_eq!(ask("{\"id\":1}").0["error"]["code"], INVALID_REQUEST);
    assert_eq!(
        call("stop", json!([])),
        (json!({"jsonrpc": "2.0", "result": "stopping", "id": 1}), Action::Stop)
    );
    // A notification does what it says, silently.
    assert_eq!(ask("{\"method\":\"stop\"}"), (Value::Null, Action::Stop));
}

#[test]
fn the_mempool_and_what_became_of_broadcasts_are_shown() {
    let (answer, _) = call("getmempoolinfo", json!([]));
    let info = &answer["result"];
    assert_eq!(
        (&info["size"], &info["minrelaytxfee"], &info["coverage"]),
        (&json!(0), &json!(0.000_001), &json!(0.75))
    );
    assert_eq!(
        info["compact_blocks"],
        json!({
            "asked": 3, "rebuilt": 2, "unfit": 1, "received_bytes": 5_000, "saved_bytes": 95_000,
            "last": {
                "hash": "ef".repeat(32), "prefilled": 1, "had": 40, "asked": 2, "bytes": 60_000,
                "received_bytes": 3_000,
            },
        })
    );
    let (answer, _) = call("broadcasts", json!([]));
    assert_eq!(
        answer["result"],
        json!([{
            "txid": "ab".repeat(32), "way": "relay", "why": "no addresses known for private connections",
            "sent": 2, "delivered": 2, "asked": 0, "announced": 3, "accepted": 1, "echo": true, "unseen": false,
        }])
    );
    assert_eq!(call("getrawmempool", json!([])).0["result"], json!([]));
}

//! A wallet's payment over private connections: from the wallet through a proxy to nodes that we are not connected to,
//! and back over one that we are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hashes::Hash;
use serde_json::{Value, json};

use super::support::node::{Node, text};
use super::support::server::{Options, Server};
use super::support::socks::{Dial, SocksProxy};
use super::support::{free_address, payments, wait_for, wire};
use super::{PATIENCE, PEERDEX, is_knots, node_options, pool_of, rpc, script_of, signed, txid_of};

/// The name under which the node is reached that we are connected to.
const ORDINARY: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";
/// Addresses that the node knows; it tells a quarter.
const KNOWN: u8 = 80;
/// A wallet waits ten seconds, and is promised eight.
const ANSWERED: Duration = Duration::from_secs(9);

/// A node of the same chain that is connected to another.
fn neighbour(of: &Node) -> Node {
    let mut node = payments::node().unwrap();
    node.stop();
    let connect = format!("-connect={}", of.address());
    let options = node_options();
    // A stranger's node grants nothing.
    let options = options.into_iter().filter(|option| !option.starts_with("-whitelist"));
    node.start_again(&options.chain([connect.as_str(), "-v2transport=0"]).collect::<Vec<_>>());
    node
}

/// Addresses of onion services that lead nowhere but where the proxy takes them.
fn teach_addresses(node: &Node) {
    for number in 0..KNOWN {
        let name: String = onion(number);
        node.rpc("addpeeraddress", json!([name, 18444]));
    }
}

/// Names with good checksums, made by nobody.
fn onion(number: u8) -> String {
    let mut key = [number; 32];
    key[0] = number.wrapping_mul(37);
    let key = peerdex::peer::Host::Onion(key);
    key.to_string()
}

struct World {
    node: Node,
    others: Vec<Node>,
    proxy: SocksProxy,
    options: Options,
    rpc: String,
}

impl World {
    /// `leads`: whether the proxy reaches strangers.
    fn new(leads: bool) -> Option<Self> {
        let node = super::node()?;
        teach_addresses(&node);
        let others = vec![neighbour(&node), neighbour(&node)];
        let ordinary = node.address();
        let strangers: Vec<SocketAddr> = others.iter().map(Node::address).collect();
        let proxy = SocksProxy::start(move |host| {
            if host == ORDINARY {
                return Some(ordinary);
            }
            let sum: usize = host.bytes().map(usize::from).sum();
            leads.then(|| strangers[sum % strangers.len()])
        });
        let rpc = free_address().to_string();
        let mut options = Options::new(PEERDEX, "regtest");
        let port = format!("{ORDINARY}:18444");
        let settings = ["--connect", &port, "--proxy", &proxy.address().to_string(), "--service"];
        options.extra = settings.map(str::to_owned).to_vec();
        options.extra.push(format!("rpc://{rpc}"));
        if is_knots() {
            options.extra.push("--relay-as-knots".into());
        }
        Some(Self { node, others, proxy, options, rpc })
    }

    /// A server in step with the node, which has told it addresses.
    fn start(&self, folder: Option<tempfile::TempDir>) -> Server {
        let mut server = match folder {
            Some(folder) => self.options.start_in(folder),
            None => self.options.start(),
        };
        server.wait_synced(&self.node.tip(), PATIENCE);
        // Addresses are told twice a minute on average.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        self.node.rpc("setmocktime", json!([now + 300]));
        server.wait_for_log(&["private connections can be made for"], PATIENCE);
        self.node.rpc("setmocktime", json!([0]));
        server
    }

    fn payment(&self) -> String {
        let address = text(&self.node.rpc("getnewaddress", json!([])));
        signed(&self.node, json!([]), json!({address: 0.5}), json!({"fee_rate": 5}))
    }

    fn report(&self) -> Value {
        let list = rpc(&self.rpc, &["broadcasts"]);
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
        list[0].clone()
    }

    fn private_dials(&self) -> Vec<Dial> {
        self.proxy.dials().into_iter().filter(|dial| dial.host != ORDINARY).collect()
    }
}

/// Whether a message tells of a transaction.
fn tells(message: &(String, Vec<u8>), ids: &[[u8; 32]], raw: &[u8]) -> bool {
    let (command, payload) = message;
    match command.as_str() {
        "inv" => payload.windows(32).any(|window| ids.iter().any(|id| id == window)),
        "tx" => payload == raw,
        _ => false,
    }
}

/// Tests 59 and 76.
#[test]
fn a_payment_comes_to_the_network_over_connections_of_its_own() {
    let Some(world) = World::new(true) else { return };
    let magic = wire::magic(Network::Regtest);
    let mut server = world.start(None);
    assert!(world.private_dials().is_empty(), "nobody is dialled for nothing");

    let hex = world.payment();
    let tx: bitcoin::Transaction = deserialize_hex(&hex).unwrap();
    let ids = [tx.compute_txid().to_byte_array(), tx.compute_wtxid().to_byte_array()];
    let raw: Vec<u8> = bitcoin::hex::FromHex::from_hex(&hex).unwrap();
    let mut wallet = server.client();
    let began = std::time::Instant::now();
    let answer = wallet.call("blockchain.transaction.broadcast", json!([hex])).unwrap();
    println!("the wallet was answered after {:?}", began.elapsed());
    assert_eq!(answer, json!(txid_of(&hex)));
    assert!(began.elapsed() < ANSWERED, "{:?}", began.elapsed());
    // The wallet sees it at once, whoever else has it.
    let payee = script_of(
        &world.node,
        &text(&world.node.rpc("decoderawtransaction", json!([hex]))["vout"][0]["scriptPubKey"]["address"]),
    );
    let change = script_of(
        &world.node,
        &text(&world.node.rpc("decoderawtransaction", json!([hex]))["vout"][1]["scriptPubKey"]["address"]),
    );
    assert_eq!(wallet.history(&payee).unwrap().as_array().map(Vec::len), Some(1));
    assert_eq!(wallet.history(&change).unwrap().as_array().map(Vec::len), Some(1));

    wait_for("an echo", PATIENCE, || (world.report()["echo"] == json!(true)).then_some(()));
    println!("the network showed it after {:?}", began.elapsed());
    assert!(pool_of(&world.node).contains(&txid_of(&hex)), "it came to the node that we are connected to");
    let report = world.report();
    assert_eq!((&report["way"], &report["why"]), (&json!("private"), &Value::Null), "{report}");
    assert!(report["asked"].as_u64() >= Some(1), "{report}");

    // Nothing of it went over the ordinary connection but the question for it, as from anybody.
    let dials = world.proxy.dials();
    let ordinary: Vec<(String, Vec<u8>)> =
        dials.iter().filter(|dial| dial.host == ORDINARY).flat_map(|dial| dial.messages(magic)).collect();
    assert!(!ordinary.iter().any(|message| tells(message, &ids, &raw)), "{ordinary:?}");
    let asked = |(command, payload): &(String, Vec<u8>)| {
        command == "getdata" && payload.windows(32).any(|window| ids.iter().any(|id| id == window))
    };
    assert!(ordinary.iter().any(asked), "whoever has it not asks for it");
    assert!(ordinary.iter().any(|(command, _)| command == "getaddr"));

    // On each of its own connections nothing was said that Core would not say, and it was said in Core's order.
    let usual = ["version", "verack", "inv", "tx", "ping"];
    let recorded = include_str!("../../fixtures/p2p/private-broadcast.txt");
    let version = recorded.lines().find_map(|line| line.strip_prefix("> version ")).unwrap();
    let version: Vec<u8> = bitcoin::hex::FromHex::from_hex(version).unwrap();
    let mut nonces = BTreeSet::new();
    for dial in world.private_dials() {
        let messages = dial.messages(magic);
        assert!(usual.starts_with(&dial.commands(magic).iter().map(String::as_str).collect::<Vec<_>>()));
        let Some((_, said)) = messages.first() else { continue };
        assert_eq!((&said[..72], &said[80..]), (&version[..72], &version[80..]));
        assert!(nonces.insert(said[72..80].to_vec()), "a nonce was used twice");
        for message in &messages[2.min(messages.len())..] {
            assert!(tells(message, &ids, &raw) || message.0 == "ping");
        }
    }
    assert!(!nonces.is_empty());

    // Each connection, of either kind, has a name of its own, and all targets are names.
    let names: BTreeSet<&String> = dials.iter().map(|dial| &dial.username).collect();
    assert_eq!(names.len(), dials.len());
    for dial in &dials {
        assert_eq!(dial.username, dial.password);
        let (prefix, number) = dial.username.split_once('-').unwrap();
        assert!(prefix.len() == 16 && u64::from_str_radix(prefix, 16).is_ok(), "{}", dial.username);
        assert!(number.parse::<u64>().is_ok() && dial.host.ends_with(".onion") && dial.port == 18444);
    }

    // After the echo there are no more of them; those that are open end.
    let before = world.private_dials().len();
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(world.private_dials().len(), before);
    assert!(before <= 6, "{before} connections");
    assert_eq!(world.others.len(), 2);

    // Addresses outlive a stop: they are there before any peer is.
    let mut server = world.options.start_in(server.stop());
    server.wait_for_log(&["peer connected"], PATIENCE);
    let log = server.log();
    let line = |words| log.lines().position(|line| line.contains(words)).unwrap();
    assert!(line("private connections can be made for") < line("peer connected"), "{log}");
}

#[test]
fn what_was_private_is_so_after_a_kill_and_the_wallet_is_told_what_is_not_known() {
    let Some(world) = World::new(false) else { return };
    let magic = wire::magic(Network::Regtest);
    let mut server = world.start(None);
    let hex = world.payment();
    let error = server.client().call("blockchain.transaction.broadcast", json!([hex])).unwrap_err();
    assert!(error.message.contains("no peer confirmed it in time"), "{error:?}");
    let report = world.report();
    assert_eq!(
        (&report["way"], &report["sent"], &report["echo"]),
        (&json!("private"), &json!(0), &json!(false))
    );
    assert!(world.private_dials().len() >= 3, "it was tried");
    assert!(
        !pool_of(&world.node).contains(&txid_of(&hex)),
        "a proxy that reaches nobody is no reason to tell everybody"
    );

    let folder = server.kill();
    let _server = world.start(Some(folder));
    let report = wait_for("the broadcast to be restored", PATIENCE, || {
        let list = rpc(&world.rpc, &["broadcasts"]);
        list.as_array().filter(|list| !list.is_empty()).map(|list| list[0].clone())
    });
    assert_eq!((&report["way"], &report["echo"]), (&json!("private"), &json!(false)));
    let ids: [[u8; 32]; 1] =
        [deserialize_hex::<bitcoin::Transaction>(&hex).unwrap().compute_txid().to_byte_array()];
    for dial in world.proxy.dials() {
        assert!(!dial.messages(magic).iter().any(|message| tells(message, &ids, &[])));
    }
}

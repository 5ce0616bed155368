//! The known pitfalls of the protocol, each a test that names it.
//!
//! Those of envelopes and amounts stand beside `jsonrpc`, `json` and `methods`.

use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction};
use serde_json::{Value, json};

use crate::query::testing::transaction;
use crate::time::Now;

use super::wallet::{Wallet, hash_of, status_of};

fn script(name: &str) -> ScriptBuf {
    // Any bytes are a script: a push of the name.
    ScriptBuf::builder()
        .push_slice(bitcoin::script::PushBytesBuf::try_from(name.as_bytes().to_vec()).unwrap())
        .into_script()
}

fn spend(coins: &[OutPoint], outputs: &[(u64, &ScriptBuf)]) -> Transaction {
    let inputs: Vec<_> = coins.iter().map(|coin| (*coin, ScriptBuf::new())).collect();
    let outputs: Vec<_> =
        outputs.iter().map(|(btc, script)| (Amount::from_int_btc(*btc), (*script).clone())).collect();
    transaction(&inputs, &outputs)
}

#[test]
fn pitfall_1_requests_are_pipelined_and_a_half_closed_wallet_is_still_answered() {
    let mut wallet = Wallet::at(1);
    for id in 0..3 {
        let line = format!(r#"{{"id":{id},"method":"server.ping"}}"#);
        wallet.session.handle_line(Now::default(), line.as_bytes());
    }
    wallet.session.handle_end_of_input(Now::default());
    let expected = [0, 1, 2].map(|id| format!(r#"< {{"result":null,"id":{id}}}"#));
    let seen = wallet.outputs();
    assert_eq!(seen[..3], expected);
    assert_eq!(seen[3..], ["! close"]);
}

#[test]
fn pitfall_2_status_history_unspent_and_balance_agree_on_every_script() {
    let mut wallet = Wallet::at(181);
    let mut scripts: Vec<ScriptBuf> = (0..4).map(|index| script(&format!("wallet {index}"))).collect();
    let mut random = fastrand::Rng::with_seed(2);
    let mut coins: Vec<(OutPoint, u64)> = Vec::new();
    for _ in 0..12 {
        let mut spends = Vec::new();
        for _ in 0..random.usize(0..3).min(coins.len()) {
            let (coin, btc) = coins.swap_remove(random.usize(0..coins.len()));
            let first = random.choice(&scripts).unwrap().clone();
            let second = random.choice(&scripts).unwrap().clone();
            spends.push((spend(&[coin], &[(1, &first), (btc - 1, &second)]), btc));
        }
        let transactions: Vec<_> = spends.iter().map(|(transaction, _)| transaction.clone()).collect();
        let paid = random.choice(&scripts).unwrap().clone();
        let coinbase = wallet.chain.forge(paid, &transactions);
        coins.push((OutPoint::new(coinbase, 0), 50));
        coins.extend(
            spends
                .iter()
                .filter(|(_, btc)| *btc > 2)
                .map(|(tx, btc)| (OutPoint::new(tx.compute_txid(), 1), btc - 1)),
        );
        wallet.commit();
        scripts.push(script("never paid"));
        for script in &scripts {
            let hash = json!([hash_of(script)]);
            let history = wallet.call("blockchain.scripthash.get_history", hash.clone()).unwrap();
            let status = wallet.call("blockchain.scripthash.subscribe", hash.clone()).unwrap();
            let unspent = wallet.call("blockchain.scripthash.listunspent", hash.clone()).unwrap();
            let balance = wallet.call("blockchain.scripthash.get_balance", hash).unwrap();
            assert_eq!(status, status_of(&history));
            let sum: u64 =
                unspent.as_array().unwrap().iter().map(|entry| entry["value"].as_u64().unwrap()).sum();
            assert_eq!(balance, json!({"confirmed": sum, "unconfirmed": 0}));
            for entry in unspent.as_array().unwrap() {
                let made = |past: &&Value| past["tx_hash"] == entry["tx_hash"];
                assert!(history.as_array().unwrap().iter().any(|past| made(&past)), "{entry}");
            }
        }
        scripts.pop();
    }
}

/// Of each notification of a script, the script hash.
fn notified(seen: &[String]) -> Vec<String> {
    let message = |line: &String| serde_json::from_str::<Value>(line.strip_prefix("< ").unwrap()).unwrap();
    seen.iter().map(|line| message(line)["params"][0].as_str().unwrap().to_owned()).collect()
}

/// Subscribes to scripts; their hashes in the order of notifications.
fn subscribe(wallet: &mut Wallet, scripts: &[&ScriptBuf]) -> Vec<String> {
    let mut hashes: Vec<String> = scripts.iter().map(|script| hash_of(script)).collect();
    for hash in &hashes {
        wallet.call("blockchain.scripthash.subscribe", json!([hash])).unwrap();
    }
    hashes.sort_by_key(|hash| hash.as_bytes().chunks(2).rev().collect::<Vec<_>>().concat());
    hashes
}

#[test]
fn pitfall_3_a_parent_that_confirms_is_told_to_the_scripts_of_its_child() {
    let mut wallet = Wallet::at(5);
    let (alice, bob, carol) = (script("alice"), script("bob"), script("carol"));
    let coin = OutPoint::new(wallet.chain.forge(alice.clone(), &[]), 0);
    let parent = wallet.chain.receive(&spend(&[coin], &[(49, &bob)]));
    let child = wallet.chain.receive(&spend(&[OutPoint::new(parent, 0)], &[(48, &carol)]));
    wallet.commit();
    // Carol's script is in nothing but the child.
    let carol = subscribe(&mut wallet, &[&carol]);
    let height = |wallet: &mut Wallet| {
        let history = wallet.call("blockchain.scripthash.get_history", json!([carol[0]])).unwrap();
        assert_eq!(history[0]["tx_hash"], child.to_string());
        history[0]["height"].as_i64().unwrap()
    };
    assert_eq!(height(&mut wallet), -1);
    wallet.chain.forge_of(script("miner"), &[parent]);
    assert_eq!(notified(&wallet.commit()), carol);
    assert_eq!(height(&mut wallet), 0);
    wallet.chain.undo_to_mempool();
    wallet.chain.forge(script("miner"), &[]);
    assert_eq!(notified(&wallet.commit()), carol);
    assert_eq!(height(&mut wallet), -1);
}

#[test]
fn pitfall_4_a_transaction_is_in_the_mempool_or_in_a_block_never_in_both() {
    let mut wallet = Wallet::at(5);
    let (alice, bob) = (script("alice"), script("bob"));
    let coin = OutPoint::new(wallet.chain.forge(alice.clone(), &[]), 0);
    let payment = wallet.chain.receive(&spend(&[coin], &[(20, &bob), (29, &alice)]));
    wallet.commit();
    let hashes = subscribe(&mut wallet, &[&alice, &bob]);
    wallet.chain.forge_of(script("miner"), &[payment]);
    // One notification each: no state between is ever told.
    assert_eq!(notified(&wallet.commit()), hashes);
    for hash in hashes {
        let history = wallet.call("blockchain.scripthash.get_history", json!([hash])).unwrap();
        let payments =
            history.as_array().unwrap().iter().filter(|entry| entry["tx_hash"] == payment.to_string());
        let heights: Vec<_> = payments.map(|entry| entry["height"].as_i64().unwrap()).collect();
        assert_eq!(heights, [7]);
        assert_eq!(wallet.call("blockchain.scripthash.get_mempool", json!([hash])), Ok(json!([])));
    }
}

#[test]
fn pitfall_5_a_conflict_is_told_to_every_script_of_all_that_it_throws_out() {
    let mut wallet = Wallet::at(5);
    let [alice, bob, carol, dave, erin] = ["alice", "bob", "carol", "dave", "erin"].map(script);
    let coins = [&alice, &erin].map(|owner| OutPoint::new(wallet.chain.forge(owner.clone(), &[]), 0));
    wallet.commit();
    let everybody = subscribe(&mut wallet, &[&alice, &bob, &carol, &erin]);
    // Alice and Erin pay Bob, Bob pays Carol.
    let receive = |wallet: &mut Wallet| {
        let parent = wallet.chain.receive(&spend(&coins, &[(98, &bob)]));
        wallet.chain.receive(&spend(&[OutPoint::new(parent, 0)], &[(97, &carol)]));
        assert_eq!(notified(&wallet.commit()), everybody);
    };
    let is_gone = |wallet: &mut Wallet| {
        for script in [&bob, &carol] {
            let hash = json!([hash_of(script)]);
            assert_eq!(wallet.call("blockchain.scripthash.get_history", hash.clone()), Ok(json!([])));
            assert_eq!(wallet.call("blockchain.scripthash.subscribe", hash), Ok(Value::Null));
        }
        let unspent = json!([hash_of(&erin)]);
        let unspent = wallet.call("blockchain.scripthash.listunspent", unspent).unwrap();
        assert_eq!(unspent.as_array().unwrap().len(), 1);
    };
    // Replaced by a payment of Alice alone: Erin's script was only an input of what went.
    receive(&mut wallet);
    let other = wallet.chain.receive(&spend(&coins[..1], &[(40, &dave)]));
    assert_eq!(notified(&wallet.commit()), everybody);
    is_gone(&mut wallet);
    wallet.chain.evict(&other);
    assert_eq!(notified(&wallet.commit()), [hash_of(&alice)]);
    // The same by a block.
    receive(&mut wallet);
    wallet.chain.forge(script("miner"), &[spend(&coins[..1], &[(50, &dave)])]);
    assert_eq!(notified(&wallet.commit()), everybody);
    is_gone(&mut wallet);
}

#[test]
fn pitfall_6_a_reorg_puts_transactions_back_and_tells_old_and_new_scripts() {
    let mut wallet = Wallet::at(5);
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(script);
    let coins = [0, 1].map(|_| OutPoint::new(wallet.chain.forge(alice.clone(), &[]), 0));
    let kept = wallet.chain.receive(&spend(&coins[..1], &[(49, &bob)]));
    let lost = wallet.chain.receive(&spend(&coins[1..], &[(49, &carol)]));
    wallet.chain.forge_of(script("miner"), &[kept, lost]);
    wallet.commit();
    let hashes = subscribe(&mut wallet, &[&alice, &bob, &carol, &dave]);
    // The other branch has a payment to Dave in the place of that to Carol.
    wallet.chain.undo_to_mempool();
    wallet.chain.forge(script("other miner"), &[spend(&coins[1..], &[(50, &dave)])]);
    wallet.chain.forge(script("other miner"), &[]);
    assert_eq!(notified(&wallet.commit()), hashes);
    let mut history = |script: &ScriptBuf| {
        let history = wallet.call("blockchain.scripthash.get_history", json!([hash_of(script)])).unwrap();
        let entries = history.as_array().unwrap().iter();
        entries.map(|entry| entry["height"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(history(&alice), [6, 7, 8, 0]);
    assert_eq!(history(&bob), [0]);
    assert_eq!(history(&carol), [0; 0]);
    assert_eq!(history(&dave), [8]);
}

#[test]
fn pitfall_7_a_notification_comes_after_the_answer_that_made_its_subscription() {
    let mut wallet = Wallet::at(169);
    let alice = script("alice");
    // A batch that subscribes, held open by a broadcast.
    let payment = first_payment(&mut wallet);
    let hash = hash_of(&alice);
    let batch = format!(
        r#"[{{"id":1,"method":"blockchain.headers.subscribe"}},{{"id":2,"method":"blockchain.scripthash.subscribe","params":["{hash}"]}},{{"id":3,"method":"blockchain.transaction.broadcast","params":["{payment}"]}}]"#
    );
    assert_eq!(wallet.send(batch.as_bytes()).len(), 1, "only the broadcast itself");
    wallet.chain.forge(alice.clone(), &[]);
    assert_eq!(wallet.commit(), Vec::<String>::new());
    wallet.chain.forge(alice, &[]);
    assert_eq!(wallet.commit(), Vec::<String>::new());

    let seen = wallet.peers_take_it();

    assert!(seen[0].starts_with("< [") && seen[0].contains(r#""result":null,"id":2"#), "{}", seen[0]);
    assert!(
        seen[1].contains(r#""method":"blockchain.headers.subscribe","params":[{"height":171,"#),
        "{}",
        seen[1]
    );
    assert!(seen[2].contains(r#""method":"blockchain.scripthash.subscribe""#), "{}", seen[2]);
    assert_eq!(seen.len(), 3, "one notification for two changes");
}

/// Hex of the payment of block 170, from that block.
fn first_payment(wallet: &mut Wallet) -> String {
    let mut later = Wallet::at(170);
    let txid = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16";
    let raw = later.call("blockchain.transaction.get", json!([txid])).unwrap();
    assert!(wallet.call("blockchain.transaction.get", json!([txid])).is_err());
    raw.as_str().unwrap().to_owned()
}

#[test]
fn pitfall_8_the_tip_is_told_before_the_scripts() {
    let mut wallet = Wallet::at(3);
    let (alice, bob) = (script("alice"), script("bob"));
    for script in [&alice, &bob] {
        wallet.call("blockchain.scripthash.subscribe", json!([hash_of(script)])).unwrap();
    }
    wallet.call("blockchain.headers.subscribe", json!([])).unwrap();
    wallet.chain.forge(alice, &[]);
    wallet.chain.forge(bob, &[]);

    let seen = wallet.commit();

    let methods: Vec<_> = seen.iter().map(|line| line.split('"').nth(7).unwrap()).collect();
    let script = "blockchain.scripthash.subscribe";
    assert_eq!(methods, ["blockchain.headers.subscribe", script, script]);
}

#[test]
fn pitfall_9_fees_have_eight_decimals_and_no_exponent() {
    let mut wallet = Wallet::at(1);
    let seen = wallet.send(br#"{"id":1,"method":"blockchain.relayfee"}"#);
    assert_eq!(seen, [r#"< {"result":0.00000100,"id":1}"#]);
}

#[test]
fn pitfall_10_the_error_key_is_absent_on_success() {
    let mut wallet = Wallet::at(1);
    for (line, present, absent) in [
        (r#"{"id":1,"method":"server.ping"}"#, "\"result\"", "\"error\""),
        (r#"{"id":1,"method":"no.such"}"#, "\"error\"", "\"result\""),
    ] {
        let seen = wallet.send(line.as_bytes());
        assert!(seen[0].contains(present) && !seen[0].contains(absent), "{}", seen[0]);
    }
}

#[test]
fn pitfall_13_the_donation_address_is_a_string() {
    assert_eq!(Wallet::at(1).call("server.donation_address", json!([])), Ok(json!("")));
}

#[test]
fn pitfall_14_a_bare_key_and_its_hash_are_two_scripts() {
    let mut wallet = Wallet::at(9);
    // The key of block 9, which is paid as P2PK.
    let key = "0411db93e1dcdb8a016b49840f8c53bc1eb68a382e97b1482ecad7b148a6909a5cb2e0eaddfb84ccf9744464f82e160bfa9b8b64f9d4c03f999b8643f656b412a3";
    let key: bitcoin::PublicKey = key.parse().unwrap();
    let length = |wallet: &mut Wallet, script: &ScriptBuf| {
        let history = wallet.call("blockchain.scripthash.get_history", json!([hash_of(script)])).unwrap();
        history.as_array().unwrap().len()
    };
    assert_eq!(length(&mut wallet, &ScriptBuf::new_p2pk(&key)), 1);
    assert_eq!(length(&mut wallet, &ScriptBuf::new_p2pkh(&key.pubkey_hash())), 0);
}

#[test]
fn pitfall_15_of_two_equal_coinbases_the_history_shows_the_later() {
    let mut wallet = Wallet::at(5);
    let alice = script("alice");
    let hash = json!([hash_of(&alice)]);
    let coinbase = transaction(
        &[(OutPoint::null(), ScriptBuf::from_bytes(vec![1, 2, 3]))],
        &[(Amount::from_int_btc(50), alice)],
    );
    wallet.chain.forge_with(coinbase.clone(), &[]);
    wallet.chain.forge(script("bob"), &[]);
    wallet.commit();
    let first = wallet.call("blockchain.scripthash.subscribe", hash.clone()).unwrap();

    let txid = wallet.chain.forge_with(coinbase, &[]).to_string();
    assert_eq!(wallet.commit().len(), 1, "the status changed");

    let history = wallet.call("blockchain.scripthash.get_history", hash.clone()).unwrap();
    assert_eq!(history, json!([{"height": 8, "tx_hash": txid}]));
    assert_ne!(wallet.call("blockchain.scripthash.subscribe", hash.clone()).unwrap(), first);
    let unspent = wallet.call("blockchain.scripthash.listunspent", hash.clone()).unwrap();
    assert_eq!(unspent, json!([{"tx_hash": txid, "tx_pos": 0, "height": 8, "value": 5_000_000_000_u64}]));
    for height in [6, 8] {
        let proof = wallet.call("blockchain.transaction.get_merkle", json!([txid, height])).unwrap();
        assert_eq!(proof, json!({"block_height": height, "merkle": [], "pos": 0}));
    }
    assert!(wallet.call("blockchain.transaction.get_merkle", json!([txid, 7])).is_err());

    wallet.chain.undo();
    assert_eq!(wallet.commit().len(), 1);
    let history = wallet.call("blockchain.scripthash.get_history", hash).unwrap();
    assert_eq!(history, json!([{"height": 6, "tx_hash": txid}]));
}

#[test]
fn pitfall_16_a_transaction_is_in_a_history_once_however_often_it_meets_the_script() {
    let mut wallet = Wallet::at(5);
    let alice = script("alice");
    let first = wallet.chain.forge(alice.clone(), &[]);
    let second = wallet.chain.forge(alice.clone(), &[]);
    let coins = [first, second].map(|txid| OutPoint::new(txid, 0));
    let transaction = spend(&coins, &[(10, &alice), (20, &alice), (70, &alice)]);
    wallet.chain.forge(script("miner"), std::slice::from_ref(&transaction));
    wallet.commit();
    let history = wallet.call("blockchain.scripthash.get_history", json!([hash_of(&alice)])).unwrap();
    let heights: Vec<_> =
        history.as_array().unwrap().iter().map(|entry| entry["height"].as_u64().unwrap()).collect();
    assert_eq!(heights, [6, 7, 8]);
    let unspent = wallet.call("blockchain.scripthash.listunspent", json!([hash_of(&alice)])).unwrap();
    let outputs: Vec<_> =
        unspent.as_array().unwrap().iter().map(|entry| entry["tx_pos"].as_u64().unwrap()).collect();
    assert_eq!(outputs, [0, 1, 2]);
}

#[test]
fn pitfall_17_scripts_of_op_return_have_no_history_and_stay_null() {
    let mut wallet = Wallet::at(5);
    let note = ScriptBuf::new_op_return([1, 2, 3]);
    assert_eq!(wallet.call("blockchain.scripthash.subscribe", json!([hash_of(&note)])), Ok(Value::Null));
    let txid = wallet.chain.forge(note.clone(), &[]);
    let coin = OutPoint::new(wallet.chain.forge(script("alice"), &[]), 0);
    wallet.chain.receive(&spend(&[coin], &[(1, &note)]));
    assert_eq!(wallet.commit(), Vec::<String>::new());
    assert_eq!(wallet.call("blockchain.scripthash.get_mempool", json!([hash_of(&note)])), Ok(json!([])));
    assert_eq!(wallet.call("blockchain.scripthash.get_history", json!([hash_of(&note)])), Ok(json!([])));
    assert!(wallet.call("blockchain.transaction.get", json!([txid.to_string()])).is_ok());
}

#[test]
fn pitfall_18_unsubscribing_answers_whether_there_was_a_subscription() {
    let mut wallet = Wallet::at(5);
    wallet.call("server.version", json!(["test", "1.4.2"])).unwrap();
    let alice = script("alice");
    let hash = json!([hash_of(&alice)]);
    wallet.call("blockchain.scripthash.subscribe", hash.clone()).unwrap();
    assert_eq!(wallet.call("blockchain.scripthash.unsubscribe", hash.clone()), Ok(json!(true)));
    assert_eq!(wallet.call("blockchain.scripthash.unsubscribe", hash), Ok(json!(false)));
    wallet.chain.forge(alice, &[]);
    assert_eq!(wallet.commit(), Vec::<String>::new());
}

#[test]
fn a_script_that_a_reorg_empties_is_told_null() {
    let mut wallet = Wallet::at(5);
    let alice = script("alice");
    let hash = hash_of(&alice);
    wallet.chain.forge(alice, &[]);
    wallet.commit();
    assert!(wallet.call("blockchain.scripthash.subscribe", json!([hash])).unwrap().is_string());
    wallet.chain.undo();
    wallet.chain.forge(script("miner"), &[]);
    let expected = format!(
        r#"< {{"jsonrpc":"2.0","method":"blockchain.scripthash.subscribe","params":["{hash}",null]}}"#
    );
    assert_eq!(wallet.commit(), [expected]);
}

#[test]
fn a_script_that_comes_back_as_it_was_is_no_news() {
    let mut wallet = Wallet::at(5);
    let alice = script("alice");
    let coinbase = transaction(
        &[(OutPoint::null(), ScriptBuf::from_bytes(vec![1, 2, 3]))],
        &[(Amount::from_int_btc(50), alice.clone())],
    );
    wallet.chain.forge_with(coinbase.clone(), &[]);
    wallet.commit();
    wallet.call("blockchain.scripthash.subscribe", json!([hash_of(&alice)])).unwrap();
    // The same transaction at the same height, in another block.
    wallet.chain.undo();
    let coin = OutPoint::new(wallet.chain.forge(script("miner"), &[]), 0);
    wallet.chain.undo();
    let other = spend(&[coin], &[(1, &script("bob"))]);
    wallet.chain.forge_with(coinbase, &[other]);
    assert_eq!(wallet.commit(), Vec::<String>::new());
}

#[test]
fn more_broadcasts_than_one_session_may_have_are_refused_while_the_others_wait() {
    let mut wallet = Wallet::at(5);
    let mut answers = Vec::new();
    for index in 0..40_u8 {
        let unknown = OutPoint { txid: bitcoin::hashes::Hash::from_byte_array([index; 32]), vout: 1 };
        let raw = bitcoin::consensus::encode::serialize_hex(&spend(
            &[unknown],
            &[(1, &script("somebody's script"))],
        ));
        let line =
            format!(r#"{{"id":{index},"method":"blockchain.transaction.broadcast","params":["{raw}"]}}"#);
        answers.extend(wallet.send(line.as_bytes()));
    }
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("! submit ")).count(), 32);
    assert_eq!(answers.iter().filter(|answer| answer.contains("\"code\":-102")).count(), 8);
    let first = wallet.submissions[0].1[0];
    assert_eq!(wallet.peers_take_it(), [format!(r#"< {{"result":"{first}","id":0}}"#)]);
}

#[test]
fn an_address_is_notified_of_by_its_name() {
    let mut wallet = Wallet::at(1);
    wallet.call("server.version", json!(["old", "1.2"])).unwrap();
    let address = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";
    let script = address.parse::<bitcoin::Address<_>>().unwrap().assume_checked().script_pubkey();
    let hash = hash_of(&script);
    assert_eq!(wallet.call("blockchain.address.subscribe", json!([address])), Ok(Value::Null));
    assert_eq!(wallet.call("blockchain.scripthash.subscribe", json!([hash])), Ok(Value::Null));
    wallet.chain.forge(script, &[]);
    let heard = wallet.commit();
    let history = wallet.call("blockchain.address.get_history", json!([address])).unwrap();
    assert_eq!(history.as_array().unwrap().len(), 1);
    let status = status_of(&history);
    let told = |method: &str, name: &str| {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": [name, status]});
        format!("< {message}")
    };
    assert_eq!(
        heard,
        [told("blockchain.scripthash.subscribe", &hash), told("blockchain.address.subscribe", address)]
    );
}

#[test]
fn an_electrum_that_can_be_phished_does_not_broadcast() {
    for (name, refused) in [("3.2.3", true), ("electrum/4.8.1", false)] {
        let mut wallet = Wallet::at(1);
        wallet.call("server.version", json!([name, "1.1"])).unwrap();
        let request = br#"{"id":1,"method":"blockchain.transaction.broadcast","params":["00"]}"#;
        let seen = wallet.send(request);
        assert_eq!(seen[0].contains("Get a newer one"), refused, "{name}: {seen:?}");
        assert_eq!(wallet.submissions.is_empty(), refused);
    }
}

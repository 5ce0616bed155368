//! Plays the dialogues of `fixtures/electrum/`, which `fixtures/electrum/README.md` explains.
//!
//! `UPDATE_TRANSCRIPTS=1 cargo test --lib transcripts` writes down what comes now: read the difference.

use std::path::Path;

use crate::electrum::BroadcastError;
use crate::time::Now;

use super::wallet::Wallet;

#[test]
fn dialogues_go_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/electrum");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    assert!(paths.len() >= 10, "transcripts are missing");
    let mut played = Vec::new();
    for path in &paths {
        let written = std::fs::read_to_string(path).unwrap();
        played.push((path, play(&written), written));
    }
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        for (path, heard, _) in &played {
            std::fs::write(path, heard).unwrap();
        }
        return;
    }
    for (path, heard, written) in &played {
        for (number, (heard, written)) in heard.lines().zip(written.lines()).enumerate() {
            assert_eq!(heard, written, "{} line {}", path.display(), number + 1);
        }
        assert_eq!(heard, written, "{}", path.display());
    }
}

/// The dialogue with what really came back in the place of what is written.
fn play(written: &str) -> String {
    let mut wallet: Option<Wallet> = None;
    let mut heard = String::new();
    for line in written.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let outputs = match kind {
            "<" | "!" => continue,
            "#" | "" => Vec::new(),
            ">" => wallet.as_mut().unwrap().send(rest.as_bytes()),
            "@" => happens(&mut wallet, rest),
            _ => panic!("what is {line}?"),
        };
        heard.push_str(line);
        heard.push('\n');
        for output in outputs {
            heard.push_str(&output);
            heard.push('\n');
        }
    }
    heard
}

/// Something in the world that is not said by the wallet.
fn happens(slot: &mut Option<Wallet>, what: &str) -> Vec<String> {
    let words: Vec<&str> = what.split(' ').collect();
    if let ["mainnet", height] = words[..] {
        *slot = Some(Wallet::at(height.parse().unwrap()));
        return Vec::new();
    }
    let wallet = slot.as_mut().unwrap();
    match words[..] {
        ["connect"] => {
            wallet.reconnect();
            Vec::new()
        }
        ["mine", count] => {
            (0..count.parse().unwrap()).for_each(|_: u32| wallet.chain.mine());
            wallet.commit()
        }
        ["reorg", depth] => {
            let depth: u32 = depth.parse().unwrap();
            (0..depth).for_each(|_| wallet.chain.undo());
            (0..=depth).for_each(|_| {
                wallet.chain.forge(bitcoin::ScriptBuf::new(), &[]);
            });
            wallet.commit()
        }
        ["headers", count] => {
            wallet.chain.learn_headers(count.parse().unwrap());
            wallet.commit()
        }
        ["syncing", percent, secs] => wallet.commit_syncing(percent.parse().unwrap(), secs.parse().unwrap()),
        ["synced"] => wallet.commit(),
        ["peers", "take", "it"] => wallet.peers_say(Ok(())),
        ["peers", "refuse:", ..] => {
            let reason = what.split_once(": ").unwrap().1.to_owned();
            wallet.peers_say(Err(BroadcastError::Rejected(reason)))
        }
        ["nobody", "hears:", ..] => {
            let why = what.split_once(": ").unwrap().1.to_owned();
            wallet.peers_say(Err(BroadcastError::Unavailable(why)))
        }
        ["end", "of", "input"] => {
            wallet.session.handle_end_of_input(Now::default());
            wallet.outputs()
        }
        ["line", "too", "long"] => {
            wallet.session.handle_line_too_long(Now::default());
            wallet.outputs()
        }
        ["repeat", count, ref request @ ..] => {
            let request = request.join(" ");
            let batch = format!("[{}]", vec![request; count.parse().unwrap()].join(","));
            let seen = wallet.send(batch.as_bytes());
            // Too long to write down: the number of bytes, and how it ends.
            seen.iter()
                .map(|seen| format!("< {} bytes, ending in {}", seen.len(), &seen[seen.len() - 90..]))
                .collect()
        }
        _ => panic!("what is {what}?"),
    }
}

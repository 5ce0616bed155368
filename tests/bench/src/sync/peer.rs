//! A peer that serves a forged chain as fast as the machine sends, in a process of its own.
//!
//! Blocks go from the file to the socket without passing through here; their checksums are reckoned beforehand. So
//! it takes little of the processor that peerdex needs.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::chain::Chain;
use super::wire;

const MSG_WITNESS_BLOCK: u32 = 0x4000_0002;
const MAX_HEADERS: usize = 2_000;

struct Served {
    chain: Chain,
    path: PathBuf,
    checksums: Vec<[u8; 4]>,
    heights: HashMap<[u8; 32], usize>,
}

/// Serves until standard input ends; the first line on standard output is the address.
pub fn serve(folder: &Path) -> anyhow::Result<()> {
    let chain = Chain::open(folder)?;
    let checksums = chain.checksums(folder)?;
    let heights = chain.blocks.iter().map(|place| place.hash()).zip(0..).collect();
    chain.warm()?;
    let served = Arc::new(Served { chain, path: folder.join("blocks.dat"), checksums, heights });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let served = served.clone();
            std::thread::spawn(move || {
                if let Err(error) = converse(&served, &stream)
                    && error.downcast_ref::<io::Error>().is_none_or(|error| {
                        !matches!(
                            error.kind(),
                            io::ErrorKind::UnexpectedEof
                                | io::ErrorKind::ConnectionReset
                                | io::ErrorKind::BrokenPipe
                        )
                    })
                {
                    eprintln!("peer: {error:#}");
                }
            });
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// One connection.
fn converse(served: &Served, stream: &TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut to = stream;
    let mut from = BufReader::new(stream);
    let blocks = &served.chain.blocks;
    // With a position of its own.
    let mut file = std::fs::File::open(&served.path)?;
    let mut payload = Vec::new();
    loop {
        let command = wire::receive(&mut from, &mut payload)?;
        match command.as_str() {
            "version" => {
                wire::send(&mut to, "version", &wire::version(blocks.len() as u32 - 1))?;
                wire::send(&mut to, "wtxidrelay", &[])?;
                wire::send(&mut to, "sendaddrv2", &[])?;
                wire::send(&mut to, "verack", &[])?;
            }
            "ping" => wire::send(&mut to, "pong", &payload)?,
            "getheaders" => {
                let locator = wire::locator(&payload).context("getheaders that can't be read")?;
                let known = locator.iter().find_map(|hash| served.heights.get(hash)).copied().unwrap_or(0);
                let end = blocks.len().min(known + 1 + MAX_HEADERS);
                let headers = blocks[known + 1..end].iter().map(|place| &place.header);
                wire::send(&mut to, "headers", &wire::headers(headers))?;
            }
            "getdata" => {
                for (kind, hash) in wire::inventory(&payload).context("getdata that can't be read")? {
                    let Some(&height) = served.heights.get(&hash).filter(|_| kind == MSG_WITNESS_BLOCK)
                    else {
                        eprintln!("peer: getdata of type {kind:#x} is not served");
                        continue;
                    };
                    let place = &blocks[height];
                    to.write_all(&wire::head("block", place.length as usize, served.checksums[height]))?;
                    file.seek(SeekFrom::Start(place.offset))?;
                    // From file to socket the system does this by itself.
                    let sent = io::copy(&mut (&file).take(u64::from(place.length)), &mut to)?;
                    anyhow::ensure!(sent == u64::from(place.length), "the chain's file became shorter");
                }
            }
            _ => {}
        }
    }
}

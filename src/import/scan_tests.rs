use bitcoin::Network;

use super::*;
use crate::blocks::testing_forge::{Fault, Forge};

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

fn record(block: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &(block.len() as u32).to_le_bytes(), block].concat()
}

/// Scans with reads of `step` bytes; where each block begins and how long it is, and how many were cut off.
fn scan_by(file: &[u8], step: usize) -> (Vec<(usize, usize)>, u64) {
    let mut scanner = Scanner::new(Arc::new(Params::of(Network::Regtest)), file.len() as u64);
    let mut found = Vec::new();
    let mut reads = 0;
    while let Some(at) = scanner.wants() {
        let at = at as usize;
        scanner.push(&file[at..(at + step).min(file.len())], &mut found);
        reads += 1;
        assert!(reads <= 4 * file.len(), "it goes on");
    }
    for record in &found {
        assert_eq!(record.hash, record.header.block_hash());
    }
    let places = found.iter().map(|record| (record.offset as usize, record.length as usize)).collect();
    (places, scanner.cut_off())
}

/// The same however the bytes come.
fn scan(file: &[u8]) -> (Vec<(usize, usize)>, u64) {
    let at_once = scan_by(file, file.len().max(1));
    for step in (1..200).chain([500, 1_000, 4_096]) {
        assert_eq!(scan_by(file, step), at_once, "reads of {step} bytes");
    }
    at_once
}

/// Blocks of 200 bytes and more.
fn blocks(count: usize) -> Vec<Vec<u8>> {
    let mut forge = Forge::new();
    let mut tip = forge.genesis();
    let blocks = (0..count).map(|n| {
        tip = forge.mine_one(tip, 20 + 7 * n, Fault::None);
        forge.raw(tip).to_vec()
    });
    blocks.collect()
}

#[test]
fn records_are_found_wherever_a_read_ends() {
    let blocks = blocks(3);
    let records: Vec<Vec<u8>> = blocks.iter().map(|block| record(block)).collect();
    let file = records.concat();
    let offsets = [8, records[0].len() + 8, records[0].len() + records[1].len() + 8];
    let places: Vec<_> = offsets.into_iter().zip(blocks.iter().map(Vec::len)).collect();

    assert_eq!(scan(&file), (places.clone(), 0));
    // Two reads that part at every byte, where the first read does not jump past that.
    for split in 1..file.len() {
        let mut scanner = Scanner::new(Arc::new(Params::of(Network::Regtest)), file.len() as u64);
        let mut found = Vec::new();
        scanner.push(&file[..split], &mut found);
        while let Some(at) = scanner.wants() {
            scanner.push(&file[at as usize..], &mut found);
        }
        let found: Vec<_> = found.iter().map(|r| (r.offset as usize, r.length as usize)).collect();
        assert_eq!(found, places, "split at {split}");
    }
}

#[test]
fn what_lies_between_is_passed_over() {
    let [a, b] = &blocks(2)[..] else { panic!("two blocks") };
    let (ra, rb) = (record(a), record(b));
    let no_work = {
        let mut block = a.clone();
        // Another nonce, until it proves nothing.
        while Scanner::new(Arc::new(Params::of(Network::Regtest)), 0).record(&record(&block)[..88]).is_some()
        {
            block[76] = block[76].wrapping_add(1);
        }
        record(&block)
    };
    let lie = |length: u32| [&MAGIC[..], &length.to_le_bytes(), &a[..80]].concat();
    let garbage = |byte: u8, count: usize| vec![byte; count];
    for (what, between) in [
        ("nothing", vec![]),
        ("zeros", garbage(0, 1_000)),
        ("three zeros", garbage(0, 3)),
        ("garbage", garbage(0x5a, 777)),
        ("the start of a magic", MAGIC[..3].to_vec()),
        ("a magic", MAGIC.to_vec()),
        ("magics", MAGIC.repeat(40)),
        ("first bytes of magics", garbage(MAGIC[0], 99)),
        ("no proof of work", no_work),
        ("a length of nothing", lie(0)),
        ("a length of a header", lie(80)),
        ("a length of too much", lie(4_000_001)),
        ("a length of all", lie(u32::MAX)),
    ] {
        let file = [&ra[..], &between, &rb].concat();
        let expected = vec![(8, a.len()), (ra.len() + between.len() + 8, b.len())];
        assert_eq!(scan(&file), (expected, 0), "{what}");
        let file = [&between[..], &ra, &rb, &between].concat();
        let (places, _) = scan(&file);
        let expected = [(between.len() + 8, a.len()), (between.len() + ra.len() + 8, b.len())];
        assert_eq!(places, expected, "{what} before and behind");
    }
}

#[test]
fn a_record_that_was_cut_off_hides_no_other() {
    let [a, b, c] = &blocks(3)[..] else { panic!("three blocks") };
    let (ra, rb, rc) = (record(a), record(b), record(c));

    // Overwritten by the next ones: the end of what it claims to be lies in the middle of something.
    for left in [88, 89, 100, ra.len() - 1] {
        let file = [&ra[..left], &rb, &rc].concat();
        let (places, _) = scan(&file);
        let expected = [(left + 8, b.len()), (left + rb.len() + 8, c.len())];
        assert!(expected.iter().all(|place| places.contains(place)), "{left}: {places:?}");
    }
    // That end may be among zeros of the next record, or behind it.
    for zeros in [100, 1_000] {
        let file = [&ra[..100], &rb, &vec![0; zeros], &rc].concat();
        let (places, _) = scan(&file);
        assert!(places.contains(&(108, b.len())) && places.contains(&(108 + rb.len() + zeros, c.len())));
    }
    let zeros = [&b[..], &[0; 80], &[9; 40]].concat();
    for left in 88..ra.len() {
        let file = [&ra[..left], &record(&zeros), &rc].concat();
        let (places, _) = scan_by(&file, 300);
        assert!(places.contains(&(left + 8, zeros.len())), "{left}: {places:?}");
    }
    // At the end of the file.
    for left in 0..rc.len() {
        let file = [&ra[..], &rb, &rc[..left]].concat();
        let expected = vec![(8, a.len()), (ra.len() + 8, b.len())];
        assert_eq!(scan_by(&file, 64), (expected, u64::from(left >= 88)), "{left}");
    }
    // A length that lies, in both directions.
    for length in [a.len() - 10, a.len() + 10, a.len() + rb.len() - 1] {
        let mut file = [&ra[..], &rb, &rc].concat();
        file[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        let (places, _) = scan(&file);
        let expected = [(ra.len() + 8, b.len()), (ra.len() + rb.len() + 8, c.len())];
        assert!(expected.iter().all(|place| places.contains(place)), "{length}: {places:?}");
    }
}

#[test]
fn a_magic_inside_of_a_block_is_not_seen() {
    let [a, b] = &blocks(2)[..] else { panic!("two blocks") };
    // Even a whole record, as a transaction may carry one.
    let outer = [&a[..], &record(b), &[7; 50]].concat();
    let file = [record(&outer), record(b)].concat();

    assert_eq!(scan(&file), (vec![(8, outer.len()), (16 + outer.len(), b.len())], 0));
}

#[test]
fn a_file_that_grew_is_read_to_the_end_that_it_had() {
    let [a, b] = &blocks(2)[..] else { panic!("two blocks") };
    let (ra, rb) = (record(a), record(b));
    let file = [&ra[..], &rb].concat();
    for had in 0..file.len() {
        let mut scanner = Scanner::new(Arc::new(Params::of(Network::Regtest)), had as u64);
        let mut found = Vec::new();
        while let Some(at) = scanner.wants() {
            scanner.push(&file[at as usize..], &mut found);
        }
        let whole = usize::from(had >= ra.len()) + usize::from(had >= file.len());
        assert_eq!(found.len(), whole, "{had}");
    }
}

#[test]
fn any_bytes_are_read_to_the_end() {
    let [a, b] = &blocks(2)[..] else { panic!("two blocks") };
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..500 {
        let mut file = Vec::new();
        for _ in 0..rng.usize(0..12) {
            let bytes: Vec<u8> = (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect();
            match rng.u8(0..7) {
                0 => file.extend(record(a)),
                1 => file.extend(&record(b)[..100]),
                2 => file.extend(MAGIC),
                3 => file.extend([&MAGIC[..], &bytes, &a[..80]].concat()),
                4 => file.extend(vec![0; bytes.len()]),
                _ => file.extend(bytes),
            }
        }
        let (places, _) = scan_by(&file, rng.usize(1..300));
        for (offset, length) in places {
            assert!(offset + length <= file.len());
            assert_eq!(&file[offset - 8..offset - 4], &MAGIC[..]);
        }
    }
}

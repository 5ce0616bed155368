//! Parts beside a map: what was written is found, and nothing that was damaged is believed.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::changes::Change;
use super::rewrite::walk;
use super::write::PartWriter;
use super::*;
use crate::sim::SimDisk;

type Map<const N: usize> = BTreeMap<[u8; N], Vec<u8>>;
type Found<const N: usize> = Vec<([u8; N], Vec<u8>)>;

fn info(table: Table, bits: u8, depth: u8, at: usize) -> PartInfo {
    let range = KeyRange::split_all(depth).nth(at).unwrap();
    PartInfo { table, range, file: 7, bits, entries: 0, bytes: 0, reach: Reach::default(), cut: None }
}

fn write<const N: usize>(disk: &SimDisk, info: PartInfo, shape: Shape<N>, entries: &Map<N>) -> PartInfo {
    let mut writer = PartWriter::create(disk, info, shape).unwrap();
    for (key, content) in entries.iter().filter(|(key, _)| info.range.has(&key[..])) {
        writer.put(key, content).unwrap();
    }
    writer.finish(disk).unwrap()
}

fn lookup<const N: usize>(
    part: &Part,
    shape: Shape<N>,
    first: &[u8; N],
    last: &[u8; N],
) -> Result<Found<N>, Error> {
    let mut found = Vec::new();
    part.each(shape, first, last, |key, content| {
        found.push((*key, content.to_vec()));
        Ok(())
    })?;
    Ok(found)
}

fn all<const N: usize>(disk: &SimDisk, info: PartInfo, shape: Shape<N>) -> Result<Map<N>, Error> {
    let placed = Placed { info, part: Part::open(disk, &info, true)? };
    let mut found = Map::new();
    walk(&placed, shape, |key, content| {
        assert!(found.last_key_value().is_none_or(|(last, _)| *last < key), "in order");
        found.insert(key, content.to_vec());
        Ok(())
    })?;
    Ok(found)
}

/// Every key is found with its content, every other is not.
fn assert_has<const N: usize>(
    disk: &SimDisk,
    info: PartInfo,
    shape: Shape<N>,
    entries: &Map<N>,
    others: &[[u8; N]],
) {
    let of_part: Map<N> =
        entries.iter().filter(|(key, _)| info.range.has(&key[..])).map(|(k, c)| (*k, c.clone())).collect();
    for keep in [false, true] {
        let part = Part::open(disk, &info, keep).unwrap();
        for key in entries.keys().chain(others) {
            let wanted: Vec<_> =
                of_part.get(key).map(|content| (*key, content.clone())).into_iter().collect();
            assert_eq!(lookup(&part, shape, key, key).unwrap(), wanted, "{key:02x?}");
        }
    }
    assert_eq!(info.entries, of_part.len() as u64);
    assert_eq!(all(disk, info, shape).unwrap(), of_part);
}

/// A part of transactions with two buckets, and what it is named.
pub(crate) fn tx_part(disk: &SimDisk, keys: &[TxKey]) -> PartInfo {
    let entries = keys.iter().map(|key| (*key, Vec::new())).collect();
    write(disk, info(Table::Txs, 1, 0, 0), tx_shape(1), &entries)
}

/// What is found in it.
pub(crate) fn tx_keys(disk: &SimDisk, info: PartInfo) -> Result<Vec<TxKey>, Error> {
    Ok(all(disk, info, tx_shape(info.bits))?.into_keys().collect())
}

fn coin(start: u32, vout: u32) -> CoinKey {
    let mut prefix = [9; 6];
    prefix[..4].copy_from_slice(&start.to_be_bytes());
    coin_key(prefix, vout, TxNum(start % 1000))
}

#[test]
fn a_row_of_a_hundred_thousand_coins_is_not_read_whole_to_find_one() {
    let disk = SimDisk::new();
    let shape = coin_shape(7);
    let content = |vout: u32| [vout as u8; 20].to_vec();
    let mut entries: Map<COIN_KEY> = (0..100_000).map(|n| (coin(0x7777_7777, n * 2), content(n))).collect();
    entries.extend((0..500u32).map(|n| (coin(n.wrapping_mul(0x9e37_79b9), 1), content(n))));
    let info = write(&disk, info(Table::Coins, 7, 0, 0), shape, &entries);
    let part = Part::open(&disk, &info, false).unwrap();
    for n in (0..100_000).step_by(997).chain([0, 99_999]) {
        let key = coin(0x7777_7777, n * 2);
        assert_eq!(lookup(&part, shape, &key, &key).unwrap(), [(key, content(n))]);
        let beside = coin(0x7777_7777, n * 2 + 1);
        assert_eq!(lookup(&part, shape, &beside, &beside).unwrap(), []);
    }
    // A range over several pieces.
    let (first, last) = (coin(0x7777_7777, 1001), coin(0x7777_7777, 5000));
    let found = lookup(&part, shape, &first, &last).unwrap();
    assert_eq!(found, entries.range(first..=last).map(|(k, c)| (*k, c.clone())).collect::<Vec<_>>());
    assert_eq!(all(&disk, info, shape).unwrap(), entries);
    // Damage in the first piece of the row is not met by whoever wants the last.
    let whole = disk.clone();
    whole.tamper(&info.name(), |bytes| {
        let at = bytes.windows(8).position(|bytes| bytes == [0x77, 0x77, 0x77, 9, 9, 0, 0, 0]).unwrap();
        bytes[at + 30] ^= 1;
    });
    let (first, last) = (coin(0x7777_7777, 0), coin(0x7777_7777, 199_998));
    assert_eq!(lookup(&part, shape, &last, &last).unwrap(), [(last, content(99_999))]);
    let error = lookup(&part, shape, &first, &first).unwrap_err().to_string();
    assert!(error.starts_with("base/000007.part: checksum of a row does not match"), "{error}");
}

#[test]
fn a_script_with_a_long_history_has_neighbours() {
    let disk = SimDisk::new();
    let shape = script_shape(1);
    let mut entries: Map<SCRIPT_KEY> = (0..40u8).map(|n| ([n * 6; 12], vec![n; n.into()])).collect();
    entries.insert([100; 12], (0..300_000u32).map(|n| n as u8).collect());
    entries.insert([240; 12], vec![5; 4092 - 13]);
    let info = write(&disk, info(Table::Scripts, 1, 0, 0), shape, &entries);
    assert_has(&disk, info, shape, &entries, &[[1; 12], [101; 12], [255; 12]]);
}

#[test]
fn a_part_without_rows_is_a_part() {
    for (bits, depth, at) in [(0, 0, 0), (16, 16, 65_535), (9, 2, 1)] {
        let disk = SimDisk::new();
        let info = write(&disk, info(Table::Txs, bits, depth, at), tx_shape(bits), &Map::new());
        assert_has(&disk, info, tx_shape(bits), &Map::new(), &[[0; 10], [0xff; 10], [0x50; 10]]);
    }
}

/// Some entries of each table, their part, and keys beside them.
fn small<const N: usize>(
    seed: u64,
    shape: impl Fn(u8) -> Shape<N>,
    disk: &SimDisk,
    table: Table,
) -> (PartInfo, Shape<N>, Map<N>, Vec<[u8; N]>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut key = || {
        let mut key = [0; N];
        key.fill_with(|| rng.u8(..) & 0x73);
        key
    };
    let keys: Vec<[u8; N]> = (0..24).map(|_| key()).collect();
    let others: Vec<[u8; N]> = (0..12).map(|_| key()).collect();
    let entries = keys.into_iter().map(|key| {
        let content = vec![key[1]; shape(0).content_bytes.unwrap_or(usize::from(key[2] % 30))];
        (key, content)
    });
    let entries: Map<N> = entries.collect();
    let shape = shape(7);
    let info = write(disk, info(table, 7, 1, 0), shape, &entries);
    assert_has(disk, info, shape, &entries, &others);
    (info, shape, entries, others)
}

/// With any byte changed, whatever is answered is right.
fn damage<const N: usize>(table: Table, shape: impl Fn(u8) -> Shape<N>) {
    let disk = SimDisk::new();
    let (info, shape, entries, others) = small(table as u64, shape, &disk, table);
    let mut length = 0;
    disk.tamper(&info.name(), |bytes| length = bytes.len());
    let (mut opened, mut refused) = (0, 0);
    for at in 0..length {
        for bits in [1, 0x80, 0xff] {
            disk.tamper(&info.name(), |bytes| bytes[at] ^= bits);
            for part in
                [Part::open(&disk, &info, false), Part::open(&disk, &info, true)].into_iter().flatten()
            {
                opened += 1;
                for key in entries.keys().chain(&others) {
                    match lookup(&part, shape, key, key) {
                        Ok(found) => {
                            let found = found.into_iter().map(|(_, content)| content).next();
                            assert_eq!(found.as_ref(), entries.get(key), "byte {at} of {table:?}");
                        }
                        Err(Error::Corrupt { file, .. }) => {
                            assert_eq!(file, info.name());
                            refused += 1;
                        }
                        Err(error) => panic!("byte {at} of {table:?}: {error}"),
                    }
                }
                match all(&disk, info, shape) {
                    Ok(found) => assert_eq!(found, entries, "byte {at} of {table:?}"),
                    Err(Error::Corrupt { file, .. }) => assert_eq!(file, info.name()),
                    Err(error) => panic!("byte {at} of {table:?}: {error}"),
                }
            }
            disk.tamper(&info.name(), |bytes| bytes[at] ^= bits);
        }
    }
    assert!(
        opened == (length - 35) * 6 && refused > length,
        "only the head is read at open: {opened} {refused} {length}"
    );
    let mut whole = Vec::new();
    disk.tamper(&info.name(), |bytes| whole.clone_from(bytes));
    for length in (0..whole.len()).chain([whole.len() + 1]) {
        disk.tamper(&info.name(), |bytes| bytes.resize(length, 0));
        let error = Part::open(&disk, &info, false).unwrap_err().to_string();
        assert!(error.starts_with(&info.name()) && error.contains("were written"), "{length}: {error}");
        disk.tamper(&info.name(), |bytes| bytes.clone_from(&whole));
    }
}

#[test]
fn any_damaged_byte_is_found_and_any_length_but_its_own() {
    damage(Table::Scripts, script_shape);
    damage(Table::Coins, coin_shape);
    damage(Table::Txs, tx_shape);
}

#[test]
fn a_directory_that_leads_elsewhere_is_not_followed() {
    let disk = SimDisk::new();
    let entries: Map<TX_KEY> = [([1; 10], Vec::new())].into();
    let info = write(&disk, info(Table::Txs, 0, 0, 0), tx_shape(0), &entries);
    let directory = Layout::of(&info).directory as usize;
    let part = Part::open(&disk, &info, false).unwrap();
    // Sums are right, places are not: whoever wrote this was no friend.
    for (start, length) in
        [(0u64, 14u32), (36, 14), (35, 15), (u64::from(u32::MAX), 9), ((1 << 40) - 1, 65_535)]
    {
        let mut stretch = part::Stretch { start, lengths: [0; part::BUCKETS] };
        stretch.lengths[0] = length;
        let bytes = stretch.encode(0, &mut Vec::new(), 0).unwrap();
        disk.tamper(&info.name(), |file| file[directory..directory + 128].copy_from_slice(&bytes));
        let error = lookup(&part, tx_shape(0), &[1; 10], &[1; 10]).unwrap_err().to_string();
        assert!(error.contains("are not among its rows"), "{error}");
        assert!(all(&disk, info, tx_shape(0)).is_err());
    }
    let stretch = part::Stretch { start: 35, lengths: [70_000; part::BUCKETS] };
    for end in [35, 36, 1 << 30] {
        let bytes = stretch.encode(0, &mut Vec::new(), end).unwrap();
        disk.tamper(&info.name(), |file| file[directory..directory + 128].copy_from_slice(&bytes));
        assert!(matches!(lookup(&part, tx_shape(0), &[1; 10], &[1; 10]), Err(Error::Corrupt { .. })));
        assert!(matches!(all(&disk, info, tx_shape(0)), Err(Error::Corrupt { .. })));
    }
    assert!(stretch.encode(0, &mut Vec::new(), 1 << 40).is_err());
}

/// Changes by key: what is there afterwards.
struct MapChanges(std::vec::IntoIter<([u8; 12], Option<Vec<u8>>)>);

impl Change<12> for MapChanges {
    fn peek(&mut self) -> Result<Option<[u8; 12]>, Error> {
        Ok(self.0.as_slice().first().map(|(key, _)| *key))
    }

    fn apply(&mut self, _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<bool, Error> {
        let (_, content) = self.0.next().unwrap();
        out.extend(content.iter().flatten());
        Ok(content.is_some())
    }
}

fn contents() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => proptest::collection::vec(any::<u8>(), 0..60),
        1 => (4000usize..4200).prop_map(|length| vec![3; length]),
        1 => (60_000usize..70_000).prop_map(|length| vec![4; length]),
    ]
}

fn keys() -> impl Strategy<Value = [u8; 12]> {
    // Some share a bucket, however many there are.
    (any::<u16>(), 0u8..8, any::<[u8; 9]>()).prop_map(|(start, low, rest)| {
        let mut key = [0; 12];
        key[..2].copy_from_slice(&start.to_be_bytes());
        key[2] = low;
        key[3..].copy_from_slice(&rest);
        key
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_found(
        entries in proptest::collection::btree_map(keys(), contents(), 0..200),
        others in proptest::collection::vec(keys(), 0..20),
        depth in 0u8..4,
        more in 0u8..14,
    ) {
        let disk = SimDisk::new();
        let shape = script_shape(depth + more);
        for at in 0..1 << depth {
            let info = write(&disk, info(Table::Scripts, depth + more, depth, at), shape, &entries);
            assert_has(&disk, info, shape, &entries, &others);
        }
    }

    #[test]
    fn what_is_written_anew_is_what_was_there_with_its_changes(
        mut entries in proptest::collection::btree_map(keys(), contents(), 0..400),
        changes in proptest::collection::vec(
            proptest::collection::btree_map(keys(), proptest::option::of(contents()), 0..20), 1..4),
        picks in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        split in 0u8..3,
        guess in 1u64..2000,
    ) {
        let disk = Arc::new(SimDisk::new());
        let old = write(&disk, info(Table::Scripts, 4, 0, 0), script_shape(4), &entries);
        let mut olds = vec![old];
        for (mut changes, file) in changes.into_iter().zip((100..).step_by(100)) {
            // Some of what is there goes.
            for pick in picks.iter().filter(|_| !entries.is_empty()) {
                changes.insert(*entries.keys().nth(pick.index(entries.len())).unwrap(), None);
            }
            let mut news = Vec::new();
            for (old, file) in olds.iter().zip((file..).step_by(10)) {
                let plan = Plan {
                    table: Table::Scripts,
                    ranges: old.range.split(split).collect(),
                    file,
                    entries: guess,
                    reach: Reach::default(),
                };
                let placed = Placed { info: *old, part: Part::open(&*disk, old, true).unwrap() };
                let of_part = changes.iter().filter(|(key, _)| old.range.has(&key[..]));
                let of_part: Vec<_> = of_part.map(|(key, content)| (*key, content.clone())).collect();
                let mut of_part = MapChanges(of_part.into_iter());
                let made = rewrite(&*disk, &plan, Some(&placed), script_shape, None, &mut of_part).unwrap();
                news.extend(made);
            }
            for (key, content) in changes {
                match content {
                    Some(content) => entries.insert(key, content),
                    None => entries.remove(&key),
                };
            }
            for new in &news {
                assert_has(&disk, *new, script_shape(new.bits), &entries, &[]);
            }
            prop_assert_eq!(news.iter().map(|new| new.entries).sum::<u64>(), entries.len() as u64);
            olds = news;
        }
    }
}

//! What differs between the five networks: proof of work, soft-fork heights, magic and ports.
//!
//! Plain values, and the one question that needs three of them ([`Params::bip30_applies`]). Nothing here changes
//! while the program runs, except that tests and `--min-chain-work` may overwrite a field.
//!
//! Source: Bitcoin Core `kernel/chainparams.cpp` (31.99).

use bitcoin::consensus::encode::serialize;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Block, BlockHash, Network, ScriptBuf, Target, Work};
use chainstore::Height;

use crate::scripts::Flags;

/// Blocks between two changes of the difficulty.
pub const RETARGET_INTERVAL: u32 = 2016;
/// Seconds that a retarget period shall take: two weeks.
pub const RETARGET_TIMESPAN: u32 = 14 * 24 * 60 * 60;
/// Seconds that a block shall take: ten minutes.
pub const BLOCK_SPACING: u32 = 10 * 60;

/// Height from which BIP34 no longer rules out that a coinbase repeats: the first coinbase of before BIP34
/// whose script reads as a height not reached by then (Core's `BIP34_IMPLIES_BIP30_LIMIT`).
const BIP34_IMPLIES_BIP30_LIMIT: u32 = 1_983_702;

/// The rules of one network.
#[derive(Clone, Debug)]
pub struct Params {
    pub network: Network,
    /// First four bytes of every message, as they are on the wire.
    pub magic: [u8; 4],
    /// TCP port on which its nodes listen.
    pub default_port: u16,
    pub genesis: Block,

    /// The easiest target. Rounded as a header's `bits` round it, which no comparison can tell from Core's value.
    pub pow_limit: Target,
    /// A block more than 20 minutes after its parent may (and then must) have the easiest target.
    pub min_difficulty_blocks: bool,
    /// The difficulty never changes.
    pub no_retarget: bool,
    /// BIP94: a retarget starts from the first block of its period, and a period may not start more than ten
    /// minutes before its parent.
    pub bip94: bool,
    /// Total work below which a chain is not believed (`nMinimumChainWork`).
    pub min_chain_work: Work,
    /// A block whose chain is known to have valid scripts (`defaultAssumeValid`); `None`: all are verified.
    pub assume_valid: Option<BlockHash>,

    /// First height at which the rule holds; the same for those below.
    pub bip34_height: u32,
    pub bip66_height: u32,
    pub bip65_height: u32,
    /// BIP68, BIP112 and BIP113.
    pub csv_height: u32,
    pub segwit_height: u32,
    /// The block at `bip34_height` of the chain that everyone knows; where a chain has it, BIP34 makes coinbases
    /// unique. `None`: BIP30 is checked at every height.
    pub bip34_hash: Option<BlockHash>,
    /// Blocks that repeat an unspent transaction and are valid all the same.
    pub bip30_exceptions: Vec<(Height, BlockHash)>,
    /// Blocks whose scripts broke rules that were made later, and the rules that they keep of P2SH, witnesses and
    /// taproot.
    pub script_exceptions: Vec<(BlockHash, Flags)>,
    /// Blocks between two halvings of the subsidy.
    pub halving_interval: u32,
    /// Script that every block's solution must satisfy (BIP325); signet only.
    pub signet_challenge: Option<ScriptBuf>,
}

impl Params {
    /// The rules of `network`; its signet is the default one.
    pub fn of(network: Network) -> Self {
        match network {
            Network::Bitcoin => Self::mainnet(),
            Network::Testnet => Self::testnet3(),
            Network::Testnet4 => Self::testnet4(),
            Network::Signet => Self::signet(),
            Network::Regtest => Self::regtest(),
        }
    }

    /// Hash of the first block.
    pub fn genesis_hash(&self) -> BlockHash {
        self.genesis.block_hash()
    }

    /// Whether the block `hash` at `height` must not repeat the txid of a transaction with unspent outputs.
    ///
    /// `at_bip34_height` is the block of its own chain at `bip34_height`; `None` when the chain below `height` does
    /// not reach that high. Source: Core `ConnectBlock`, `IsBIP30Repeat`.
    pub fn bip30_applies(&self, height: Height, hash: BlockHash, at_bip34_height: Option<BlockHash>) -> bool {
        if height.0 >= BIP34_IMPLIES_BIP30_LIMIT {
            return true;
        }
        let unique_by_bip34 = at_bip34_height.is_some() && at_bip34_height == self.bip34_hash;
        !unique_by_bip34 && !self.bip30_exceptions.contains(&(height, hash))
    }

    /// The rules of a signet of one's own (BIP325): its challenge makes its magic.
    pub fn custom_signet(challenge: ScriptBuf) -> Self {
        let [a, b, c, d, ..] = sha256d::Hash::hash(&serialize(&challenge)).to_byte_array();
        Self {
            magic: [a, b, c, d],
            min_chain_work: Work::from_be_bytes([0; 32]),
            assume_valid: None,
            signet_challenge: Some(challenge),
            ..Self::signet()
        }
    }

    /// The rules for the scripts of the block `hash` at `height`.
    ///
    /// P2SH, witnesses and taproot hold from the first block on, but for the exceptions: nothing before them broke
    /// these rules. Source: Core `GetBlockScriptFlags`.
    pub fn script_flags(&self, height: Height, hash: BlockHash) -> Flags {
        let exception = self.script_exceptions.iter().find(|(block, _)| *block == hash);
        let always = Flags::P2SH | Flags::WITNESS | Flags::TAPROOT;
        let from = [
            (self.bip66_height, Flags::DERSIG),
            (self.bip65_height, Flags::CHECKLOCKTIMEVERIFY),
            (self.csv_height, Flags::CHECKSEQUENCEVERIFY),
            (self.segwit_height, Flags::NULLDUMMY),
        ];
        let first = exception.map_or(always, |(_, flags)| *flags);
        from.into_iter().filter(|(from, _)| height.0 >= *from).fold(first, |flags, (_, flag)| flags | flag)
    }

    fn mainnet() -> Self {
        Self {
            magic: [0xf9, 0xbe, 0xb4, 0xd9],
            default_port: 8333,
            pow_limit: Target::MAX_ATTAINABLE_MAINNET,
            min_chain_work: work("01128750f82f4c366153a3a030"),
            assume_valid: Some(hash("00000000000000000000ccebd6d74d9194d8dcdc1d177c478e094bfad51ba5ac")),
            bip34_height: 227_931,
            bip66_height: 363_725,
            bip65_height: 388_381,
            csv_height: 419_328,
            segwit_height: 481_824,
            bip34_hash: Some(hash("000000000000024b89b42a942fe0d9fea3bb44ab7bd1b19115dd6a759c0808b8")),
            bip30_exceptions: vec![
                (Height(91_842), hash("00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec")),
                (Height(91_880), hash("00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721")),
            ],
            // Of before BIP16 (170,060) and of before taproot (692,261).
            script_exceptions: vec![
                (hash("00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22"), Flags::NONE),
                (
                    hash("0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad"),
                    Flags::P2SH | Flags::WITNESS,
                ),
            ],
            ..Self::young(Network::Bitcoin)
        }
    }

    fn testnet3() -> Self {
        Self {
            magic: [0x0b, 0x11, 0x09, 0x07],
            default_port: 18333,
            pow_limit: Target::MAX_ATTAINABLE_TESTNET,
            min_difficulty_blocks: true,
            min_chain_work: work("17dde1c649f3708d14b6"),
            assume_valid: Some(hash("000000007a61e4230b28ac5cb6b5e5a0130de37ac1faf2f8987d2fa6505b67f4")),
            bip34_height: 21_111,
            bip66_height: 330_776,
            bip65_height: 581_885,
            csv_height: 770_112,
            segwit_height: 834_624,
            bip34_hash: Some(hash("0000000023b3a96d3484e5abb3755c413e7d41500f8e2a5c3f0dd01299cd8ef8")),
            // Of before BIP16 (514).
            script_exceptions: vec![(
                hash("00000000dd30457c001f4095d208cc1296b0eed002427aa599874af7a432b105"),
                Flags::NONE,
            )],
            ..Self::young(Network::Testnet)
        }
    }

    fn testnet4() -> Self {
        Self {
            magic: [0x1c, 0x16, 0x3f, 0x28],
            default_port: 48333,
            pow_limit: Target::MAX_ATTAINABLE_TESTNET,
            min_difficulty_blocks: true,
            bip94: true,
            min_chain_work: work("09a0fe15d0177d086304"),
            assume_valid: Some(hash("0000000002368b1e4ee27e2e85676ae6f9f9e69579b29093e9a82c170bf7cf8a")),
            ..Self::young(Network::Testnet4)
        }
    }

    fn signet() -> Self {
        Self {
            magic: [0x0a, 0x03, 0xcf, 0x40],
            default_port: 38333,
            pow_limit: Target::MAX_ATTAINABLE_SIGNET,
            min_chain_work: work("0b463ea0a4b8"),
            assume_valid: Some(hash("00000008414aab61092ef93f1aacc54cf9e9f16af29ddad493b908a01ff5c329")),
            signet_challenge: Some(default_signet_challenge()),
            ..Self::young(Network::Signet)
        }
    }

    fn regtest() -> Self {
        Self {
            magic: [0xfa, 0xbf, 0xb5, 0xda],
            default_port: 18444,
            pow_limit: Target::MAX_ATTAINABLE_REGTEST,
            min_difficulty_blocks: true,
            no_retarget: true,
            segwit_height: 0,
            halving_interval: 150,
            ..Self::young(Network::Regtest)
        }
    }

    /// What networks have in common that were born with every soft fork; each overwrites what is its own.
    fn young(network: Network) -> Self {
        Self {
            network,
            magic: [0; 4],
            default_port: 0,
            genesis: genesis_block(network),
            pow_limit: Target::MAX_ATTAINABLE_MAINNET,
            min_difficulty_blocks: false,
            no_retarget: false,
            bip94: false,
            min_chain_work: Work::from_be_bytes([0; 32]),
            assume_valid: None,
            bip34_height: 1,
            bip66_height: 1,
            bip65_height: 1,
            csv_height: 1,
            segwit_height: 1,
            bip34_hash: None,
            bip30_exceptions: Vec::new(),
            script_exceptions: Vec::new(),
            halving_interval: 210_000,
            signet_challenge: None,
        }
    }
}

/// One signature of two keys, bare.
fn default_signet_challenge() -> ScriptBuf {
    ScriptBuf::from_hex(
        "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430\
         210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae",
    )
    .expect("the literal is hex")
}

/// A total work from the digits of a literal above.
fn work(hex: &str) -> Work {
    Work::from_unprefixed_hex(hex).expect("the literal is hex")
}

/// A block hash from a literal above, in display order.
fn hash(hex: &str) -> BlockHash {
    let mut bytes: [u8; 32] = bitcoin::hex::FromHex::from_hex(hex).expect("the literal is 64 digits of hex");
    bytes.reverse();
    BlockHash::from_byte_array(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Network; 5] =
        [Network::Bitcoin, Network::Testnet, Network::Testnet4, Network::Signet, Network::Regtest];

    #[test]
    fn every_network_has_its_own_magic_port_and_genesis() {
        for network in ALL {
            let params = Params::of(network);
            assert_eq!(params.network, network);
            assert_eq!(params.magic, network.magic().to_bytes());
            assert_eq!(params.genesis.header.bits, params.pow_limit.to_compact_lossy(), "{network}");
            for other in ALL.into_iter().filter(|&other| other != network) {
                assert_ne!(params.default_port, Params::of(other).default_port);
                assert_ne!(params.genesis_hash(), Params::of(other).genesis_hash());
            }
        }
    }

    #[test]
    fn genesis_hashes_are_the_known_ones() {
        let known = [
            (Network::Bitcoin, "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"),
            (Network::Testnet, "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943"),
            (Network::Testnet4, "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043"),
            (Network::Signet, "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"),
            (Network::Regtest, "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"),
        ];
        for (network, expected) in known {
            assert_eq!(Params::of(network).genesis_hash().to_string(), expected);
        }
    }

    #[test]
    fn signet_magic_is_the_hash_of_its_challenge() {
        let params = Params::of(Network::Signet);
        let challenge = params.signet_challenge.clone().expect("signet has a challenge");
        assert_eq!(Params::custom_signet(challenge).magic, params.magic);
        // What a node says to `-signetchallenge=51`.
        let own = Params::custom_signet(ScriptBuf::from_bytes(vec![0x51]));
        assert_eq!(own.magic, [0x54, 0xd2, 0x6f, 0xbd]);
        assert_eq!((own.assume_valid, own.min_chain_work), (None, Work::from_be_bytes([0; 32])));
        assert_eq!(own.genesis_hash(), params.genesis_hash());
    }

    #[test]
    fn the_rules_for_scripts_follow_the_heights_but_for_three_blocks() {
        let params = Params::of(Network::Bitcoin);
        let any = params.genesis_hash();
        let first = Flags::P2SH | Flags::WITNESS | Flags::TAPROOT;
        let cltv = first | Flags::DERSIG | Flags::CHECKLOCKTIMEVERIFY;
        let rows = [
            (0, first),
            (363_724, first),
            (363_725, first | Flags::DERSIG),
            (388_381, cltv),
            (419_328, cltv | Flags::CHECKSEQUENCEVERIFY),
            (481_823, cltv | Flags::CHECKSEQUENCEVERIFY),
            (481_824, Flags::ALL),
        ];
        for (height, flags) in rows {
            assert_eq!(params.script_flags(Height(height), any), flags, "{height}");
        }
        let [(before_p2sh, _), (before_taproot, _)] = params.script_exceptions[..] else {
            panic!("there are two")
        };
        assert_eq!(params.script_flags(Height(170_060), before_p2sh), Flags::NONE);
        let flags = params.script_flags(Height(692_261), before_taproot);
        assert!(flags.contains(cltv_without_taproot()) && !flags.contains(Flags::TAPROOT));
        assert_eq!(Params::of(Network::Regtest).script_flags(Height(1), any), Flags::ALL);
    }

    fn cltv_without_taproot() -> Flags {
        Flags::P2SH | Flags::WITNESS | Flags::DERSIG | Flags::CHECKLOCKTIMEVERIFY | Flags::NULLDUMMY
    }

    #[test]
    fn bip30_is_skipped_after_bip34_until_old_coinbases_come_up() {
        let params = Params::of(Network::Bitcoin);
        let some = hash("00000000000000000000ccebd6d74d9194d8dcdc1d177c478e094bfad51ba5ac");
        let (repeat_height, repeat) = params.bip30_exceptions[0];
        let bip34 = params.bip34_hash;

        assert!(params.bip30_applies(Height(91_812), some, None));
        assert!(!params.bip30_applies(repeat_height, repeat, None));
        assert!(
            params.bip30_applies(repeat_height, some, None),
            "another block at that height is no exception"
        );
        assert!(params.bip30_applies(Height(227_931), some, None));
        assert!(!params.bip30_applies(Height(227_932), some, bip34));
        assert!(params.bip30_applies(Height(227_932), some, Some(some)), "another chain than everyone's");
        assert!(!params.bip30_applies(Height(1_983_701), some, bip34));
        assert!(params.bip30_applies(Height(1_983_702), some, bip34));
    }

    #[test]
    fn networks_without_a_known_bip34_block_always_check_bip30() {
        for network in [Network::Testnet4, Network::Signet, Network::Regtest] {
            let params = Params::of(network);
            assert!(params.bip30_applies(Height(5), params.genesis_hash(), Some(params.genesis_hash())));
        }
    }
}

//! A real signet block, changed in all that its miners sign.

use bitcoin::block::Version;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Amount, Block, Network, ScriptBuf};
use chainstore::Height;

use super::block::{BlockContext, check_block};
use super::error::{BlockError, Verdict};
use super::params::Params;
use super::testing::set_merkle_root;

const SIGNET_BLOCK: &[u8] = include_bytes!("../../fixtures/blocks/signet/block-0031500.bin");
const SIGNET_HEIGHT: Height = Height(31_500);

fn check_signet(block: &Block, params: &Params) -> Result<(), BlockError> {
    let context = BlockContext { height: SIGNET_HEIGHT, parent_mtp: block.header.time - 1 };
    check_block(serialize(block).into(), &context, params).map(drop)
}

#[test]
fn a_signet_block_needs_the_signature_of_its_network() {
    let params = Params::of(Network::Signet);
    let real: Block = deserialize(SIGNET_BLOCK).unwrap();
    check_signet(&real, &params).unwrap();

    let position =
        real.txdata[0].output.iter().position(|output| output.script_pubkey.is_op_return()).unwrap();
    let script = real.txdata[0].output[position].script_pubkey.to_bytes();
    let solution = script.windows(4).position(|bytes| bytes == [0xec, 0xc7, 0xda, 0xa2]).unwrap();
    let with_script = |script: Vec<u8>| {
        let mut block = real.clone();
        block.txdata[0].output[position].script_pubkey = ScriptBuf::from_bytes(script);
        set_merkle_root(&mut block);
        block
    };
    let mut refused = Vec::new();
    // Every byte of the solution matters, and so does whether it is there.
    for flipped in solution..script.len() {
        let mut script = script.clone();
        script[flipped] ^= 1;
        refused.push((format!("byte {flipped}"), with_script(script)));
    }
    refused.push(("no solution".into(), with_script(script[..solution - 1].to_vec())));
    // So does all that it signs.
    let mut later = real.clone();
    later.header.time += 1;
    refused.push(("time".into(), later));
    let mut other_parent = real.clone();
    other_parent.header.prev_blockhash = real.block_hash();
    refused.push(("parent".into(), other_parent));
    let mut other_version = real.clone();
    other_version.header.version = Version::from_consensus(4);
    refused.push(("version".into(), other_version));
    let mut other_payment = real.clone();
    other_payment.txdata[0].output[0].value -= Amount::ONE_SAT;
    set_merkle_root(&mut other_payment);
    refused.push(("payment".into(), other_payment));
    for (name, block) in refused {
        let error = check_signet(&block, &params).expect_err(&name);
        assert_eq!(
            (error.reject_reason(), error.verdict()),
            ("bad-signet-blksig", Verdict::Invalid),
            "{name}"
        );
    }

    // What a miner turns until there is work is not signed: nonce and bits.
    let mut other_nonce = real.clone();
    other_nonce.header.nonce ^= 1;
    check_signet(&other_nonce, &params).unwrap();
}

#[test]
fn a_challenge_of_ones_own_is_run_and_genesis_needs_no_solution() {
    let real: Block = deserialize(SIGNET_BLOCK).unwrap();
    // Any solution pushes something, so the challenge that demands nothing takes it; the one that fails takes none.
    let anyone = Params::custom_signet(ScriptBuf::from_bytes(vec![0x51]));
    let nobody = Params::custom_signet(ScriptBuf::from_bytes(vec![0x00]));
    check_signet(&real, &anyone).unwrap();
    let error = check_signet(&real, &nobody).unwrap_err();
    assert_eq!((error.reject_reason(), error.verdict()), ("bad-signet-blksig", Verdict::Invalid));
    // OP_NOT is no part of a usual script.
    let unusual = Params::custom_signet(ScriptBuf::from_bytes(vec![0x00, 0x91]));
    match check_signet(&real, &unusual) {
        Ok(()) => assert!(crate::scripts::is_available()),
        Err(error) => {
            assert!(!crate::scripts::is_available());
            assert_eq!((&error, error.verdict()), (&BlockError::UnsupportedChallenge, Verdict::Unsupported));
        }
    }

    let params = Params::of(Network::Signet);
    let raw = serialize(&params.genesis);
    check_block(raw.clone().into(), &BlockContext { height: Height::GENESIS, parent_mtp: 0 }, &params)
        .unwrap();
    let error =
        check_block(raw.into(), &BlockContext { height: Height(1), parent_mtp: 0 }, &params).unwrap_err();
    assert_eq!(error.reject_reason(), "bad-signet-blksig");
}

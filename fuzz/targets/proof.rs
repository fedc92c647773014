//! A CAR as a proof: as it comes, and as the tree and record below a commit with a good signature,
//! which no random bytes have.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Container, Proven, verify};
use atcomm_proto::syntax::Did;
use ipld_core::cid::Cid;
use ipld_core::cid::multihash::Multihash;
use ipld_core::ipld::Ipld;
use k256::ecdsa::signature::Signer as _;
use k256::ecdsa::{Signature, SigningKey as SecretKey};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

/// After every revision of the seeds.
const NOW: Timestamp = Timestamp::from_millis(4_133_980_800_000);
const REV: &str = "3zzzzzzzzzz2a";

static SECRET: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_slice(&[7; 32]).unwrap());
static ACCOUNT: LazyLock<(Did, SigningKey)> = LazyLock::new(|| {
    let point = SECRET.verifying_key().to_encoded_point(true);
    let multikey = [&[0xe7, 0x01], point.as_bytes()].concat();
    let did_key = format!("did:key:z{}", bs58::encode(multikey).into_string());
    let did = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap();
    (did, SigningKey::from_did_key(&did_key).unwrap())
});

fuzz_target!(|data: &[u8]| {
    check(data);
    check(&signed(data));
});

/// Whatever is proven is proven again by what is kept of it, and by nothing else.
fn check(car: &[u8]) {
    let (did, key) = &*ACCOUNT;
    for container in [Container::GetRecord, Container::Commit] {
        let Ok(proven) = verify(car, container, did, key, NOW) else {
            continue;
        };
        let kept = proven.commitment().car();
        let again = verify(kept, Container::GetRecord, did, key, NOW).expect("the same again");
        assert_eq!(again.commitment().commit(), proven.commitment().commit());
        if let Proven::Present(record) = &proven {
            assert_eq!(cid(record.record()), *record.cid());
        }
    }
}

/// Makes a CAR of the blocks in `data`, each behind its length in two bytes. The first is the root
/// of the tree. A link that a block needs is written as the number of the later block: 32 equal
/// bytes of that number stand for its hash.
fn signed(data: &[u8]) -> Vec<u8> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut rest = data;
    while let [high, low, more @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (block, next) = more.split_at(len);
        blocks.push(block.to_vec());
        rest = next;
    }
    for target in (0..blocks.len().min(32)).rev() {
        let hash = cid(&blocks[target]).hash().digest().to_owned();
        let placeholder = [u8::try_from(target).unwrap(); 32];
        for block in &mut blocks[..target] {
            replace(block, &placeholder, &hash);
        }
    }
    let root = blocks
        .first()
        .map_or_else(|| cid(&[0xa0]), |block| cid(block));
    let mut commit = BTreeMap::from([
        ("data".to_owned(), Ipld::Link(root)),
        ("did".to_owned(), Ipld::String(ACCOUNT.0.to_string())),
        ("prev".to_owned(), Ipld::Null),
        ("rev".to_owned(), Ipld::String(REV.to_owned())),
        ("version".to_owned(), Ipld::Integer(3)),
    ]);
    let unsigned = serde_ipld_dagcbor::to_vec(&commit).unwrap();
    let signature: Signature = SECRET.sign(&unsigned);
    let signature = signature.normalize_s().unwrap_or(signature);
    commit.insert("sig".to_owned(), Ipld::Bytes(signature.to_bytes().to_vec()));
    let commit = serde_ipld_dagcbor::to_vec(&commit).unwrap();
    let header = BTreeMap::from([
        (
            "roots".to_owned(),
            Ipld::List(vec![Ipld::Link(cid(&commit))]),
        ),
        ("version".to_owned(), Ipld::Integer(1)),
    ]);
    let mut car = Vec::new();
    section(&mut car, &[&serde_ipld_dagcbor::to_vec(&header).unwrap()]);
    for block in std::iter::once(&commit).chain(&blocks) {
        section(&mut car, &[&cid(block).to_bytes(), block]);
    }
    car
}

fn replace(block: &mut [u8], from: &[u8; 32], to: &[u8]) {
    let mut at = 0;
    while at + 32 <= block.len() {
        if block[at..at + 32] == from[..] {
            block[at..at + 32].copy_from_slice(to);
        }
        at += 1;
    }
}

fn section(car: &mut Vec<u8>, parts: &[&[u8]]) {
    let mut len = parts.iter().map(|part| part.len()).sum::<usize>();
    while len >= 0x80 {
        car.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    car.push(u8::try_from(len).unwrap());
    car.extend(parts.concat());
}

fn cid(block: &[u8]) -> Cid {
    let hash = Multihash::wrap(0x12, &Sha256::digest(block)).unwrap();
    Cid::new_v1(0x71, hash)
}

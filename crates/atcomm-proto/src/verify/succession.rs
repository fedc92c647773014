//! Succession: statements by which a messaging key names the key after it.
//!
//! A thief of an account can publish any key in its name, and so can the account's host. Neither
//! has the key that was published before: so that key signs a statement that names the new key, and
//! the record holds the statement. A client that has pinned the old key then accepts the new key
//! without asking its user.
//!
//! The statement is a DIDComm signed message: `from` the old did:peer, `to` the new one alone,
//! and the account in its body, so that it vouches for no other key and in no other account. Any
//! DIDComm library reads it.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::did_peer::PeerDid;
use crate::didcomm::envelope::{EnvelopeError, Layer, SecretKey, SelfCertified, sign, unpack};
use crate::didcomm::message::{Body, FieldError, FieldFault, Message};
use crate::syntax::Did;

/// The field of the record that holds the statement.
pub const FIELD: &str = "succession";

/// Longest statement, in bytes; one with two keys in each did:peer has about 1,300.
pub const MAX_STATEMENT: usize = 16 * 1024;

/// The body of a statement.
#[derive(Debug, Serialize, Deserialize)]
struct Statement {
    account: Did,
}

impl Body for Statement {
    const TYPE: &'static str = "https://didcomm.at/succession/1.0/statement";
    const PROTOCOL: &'static str = "https://didcomm.at/succession/1.0";

    fn read(body: &RawValue) -> Result<Self, FieldError> {
        serde_json::from_str(body.get()).map_err(|_| FieldError {
            field: "account".to_owned(),
            why: FieldFault::Rule("it is not the DID of an account".into()),
        })
    }

    fn write(&self) -> Box<RawValue> {
        #[expect(clippy::expect_used, reason = "a text under a constant name")]
        serde_json::value::to_raw_value(self).expect("a statement is JSON")
    }
}

/// Makes the statement of `old`, signed with its key `signing`, that `new` follows it in `account`,
/// for the field [`FIELD`] of the record.
pub fn statement(
    old: &PeerDid,
    signing: &SecretKey,
    new: &PeerDid,
    account: &Did,
    now: Timestamp,
) -> Result<String, EnvelopeError> {
    // There is one statement about two keys, so its id need not be random.
    let id = HEXLOWER.encode(&Sha256::digest(new.as_str().as_bytes()));
    let body = Statement {
        account: account.clone(),
    };
    let message = Message::new(id, &body)
        .from(old.as_str())
        .to(new.as_str())
        .created_time(now.millis().div_euclid(1000));
    let signed = sign(&message.to_vec(), signing)?;
    String::from_utf8(signed).map_err(|_| EnvelopeError::Json)
}

/// A statement with a valid signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    /// The did:peer that signed it.
    pub old: String,
    /// The did:peer that follows it.
    pub new: String,
    /// The account in which it follows.
    pub account: Did,
    /// The time at which the statement says it was made.
    pub created_at: Option<Timestamp>,
}

/// Reads a statement and verifies its signature. Statements of any age are valid.
pub fn read(statement: &str) -> Option<Succession> {
    if statement.len() > MAX_STATEMENT {
        return None;
    }
    let unpacked = unpack(statement.as_bytes(), &[], &SelfCertified).ok()?;
    if unpacked.layers != [Layer::Signed] {
        return None;
    }
    let message = Message::parse(&unpacked.plaintext).ok()?;
    let [new] = message.to.as_slice() else {
        return None;
    };
    Some(Succession {
        old: unpacked.signer?.party.did().to_owned(),
        new: new.clone(),
        account: message.body_of::<Statement>().ok()?.account,
        created_at: message
            .created_time
            .and_then(|seconds| Some(Timestamp::from_millis(seconds.checked_mul(1000)?))),
    })
}

/// Returns whether the did:peer `old` states in `statement` that `new` follows it in `account`.
pub fn vouches(statement: &str, old: &str, new: &str, account: &Did) -> bool {
    read(statement).is_some_and(|it| it.old == old && it.new == new && it.account == *account)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::account::TestKey;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn account(last: char) -> Did {
        Did::parse(&format!("did:plc:ewvi7nxzyoun6zhxrhs64oi{last}")).unwrap()
    }

    struct Rotation {
        old: TestKey,
        new: TestKey,
        account: Did,
    }

    fn rotation() -> Rotation {
        Rotation {
            old: TestKey::generate(),
            new: TestKey::generate(),
            account: account('z'),
        }
    }

    impl Rotation {
        fn statement(&self) -> String {
            self.old.vouch(&self.new, &self.account, NOW)
        }

        fn accepts(&self, statement: &str) -> bool {
            let (old, new) = (self.old.peer.as_str(), self.new.peer.as_str());
            vouches(statement, old, new, &self.account)
        }

        /// Returns a valid statement, which tests change before it is signed.
        fn plaintext(&self) -> Value {
            json!({
                "id": "1",
                "type": Statement::TYPE,
                "typ": "application/didcomm-plain+json",
                "from": self.old.peer.as_str(),
                "to": [self.new.peer.as_str()],
                "body": {"account": self.account.as_str()},
            })
        }

        fn signed(&self, plaintext: &Value, by: &TestKey) -> String {
            let signed = sign(plaintext.to_string().as_bytes(), &by.signing).unwrap();
            String::from_utf8(signed).unwrap()
        }
    }

    #[test]
    fn the_old_key_vouches_for_the_new_one() {
        let it = rotation();
        let statement = it.statement();
        assert!(it.accepts(&statement));
        assert!(it.accepts(&it.signed(&it.plaintext(), &it.old)));
        assert!(statement.len() < 2000, "{}", statement.len());
    }

    #[test]
    fn a_statement_vouches_for_no_other_key_and_in_no_other_account() {
        let it = rotation();
        let statement = it.statement();
        let (old, new) = (it.old.peer.as_str(), it.new.peer.as_str());
        let other = TestKey::generate();
        assert!(!vouches(&statement, old, other.peer.as_str(), &it.account));
        assert!(!vouches(&statement, other.peer.as_str(), new, &it.account));
        assert!(!vouches(&statement, new, old, &it.account));
        assert!(!vouches(&statement, old, new, &account('a')));
        // A part of a DID is another DID.
        assert!(!vouches(
            &statement,
            &old[..old.len() - 1],
            new,
            &it.account
        ));
    }

    #[test]
    fn no_other_key_vouches() {
        let it = rotation();
        let other = TestKey::generate();
        // In the old key's name, signed by the new key or by another account's.
        assert!(!it.accepts(&it.signed(&it.plaintext(), &it.new)));
        assert!(!it.accepts(&it.signed(&it.plaintext(), &other)));
        // In the name of the other account's key.
        let by_other = other.vouch(&it.new, &it.account, NOW);
        assert!(!it.accepts(&by_other));
        // The old key's id beside a signature of another account's key.
        let mut forged: Value = serde_json::from_str(&it.signed(&it.plaintext(), &other)).unwrap();
        forged["signatures"][0]["header"]["kid"] = json!(it.old.signing.kid());
        assert!(!it.accepts(&forged.to_string()));
    }

    #[test]
    fn every_field_counts() {
        let it = rotation();
        let other = TestKey::generate();
        for (pointer, value) in [
            ("/type", json!("https://didcomm.at/dm/1.0/message")),
            (
                "/type",
                json!("https://didcomm.at/succession/2.0/statement"),
            ),
            ("/type", Value::Null),
            ("/from", json!(other.peer.as_str())),
            ("/from", Value::Null),
            ("/to", json!([])),
            ("/to", json!([other.peer.as_str()])),
            ("/to", json!([it.new.peer.as_str(), other.peer.as_str()])),
            ("/to", Value::Null),
            ("/body", json!({})),
            ("/body", json!([])),
            ("/body/account", json!("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")),
            ("/body/account", json!("alice.test")),
            ("/body/account", json!(null)),
            ("/id", json!("")),
        ] {
            let mut plaintext = it.plaintext();
            *plaintext.pointer_mut(pointer).unwrap() = value.clone();
            let statement = it.signed(&plaintext, &it.old);
            assert!(!it.accepts(&statement), "{pointer} {value}");
        }
    }

    #[test]
    fn plaintext_other_envelopes_and_noise_are_no_statements() {
        use crate::didcomm::envelope::authcrypt;

        let it = rotation();
        let plaintext = it.plaintext().to_string();
        assert!(!it.accepts(&plaintext));
        let to = [it.new.agreement.public()];
        let sealed = authcrypt(plaintext.as_bytes(), &it.old.agreement, &to).unwrap();
        assert!(!it.accepts(&String::from_utf8(sealed).unwrap()));
        for noise in ["", "{}", "null", "\u{0}", "[[[["] {
            assert!(!it.accepts(noise));
        }
        let long = format!("{}{}", it.statement(), " ".repeat(MAX_STATEMENT));
        assert!(!it.accepts(&long));
        let statement = it.statement();
        for at in 0..statement.len() {
            let mut bytes = statement.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(damaged) = String::from_utf8(bytes) {
                let same = serde_json::from_str::<Value>(&damaged).ok()
                    == serde_json::from_str::<Value>(&statement).ok();
                assert!(same || !it.accepts(&damaged), "{at}");
            }
        }
    }
}

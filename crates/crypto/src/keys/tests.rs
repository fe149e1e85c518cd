//! What every kind of key supports and refuses, and compatibility with OpenBao.

use super::digest::Hash;
use super::ecdsa::{Curve, EcKey, Marshaling};
use super::ed25519::Ed25519Key;
use super::rsa::{RsaKey, RsaScheme};
use super::symmetric::{Cipher, SymmetricKey};
use super::*;

#[test]
fn every_kind_generates_loads_and_works() {
    for (kind, name) in KeyKind::ALL {
        assert_eq!(KeyKind::from_name(name), Some(kind));
        assert_eq!(kind.name(), name);
        let material = Key::generate(kind, 32).unwrap();
        match Key::load(kind, material.expose()).unwrap() {
            Key::Symmetric(key) => {
                let sealed = key.seal(b"aad", b"text").unwrap();
                assert_eq!(key.open(b"aad", &sealed).unwrap(), b"text");
                assert_eq!(key.open(b"", &sealed), Err(KeyError::Unauthentic));
            }
            Key::MlKem(key) => {
                let sealed = key.seal(b"aad", b"text").unwrap();
                assert_eq!(key.open(b"aad", &sealed).unwrap(), b"text");
                // In the hybrid, offset 1100 is in the X25519 half.
                for at in [0, 1100, sealed.len() / 2, sealed.len() - 1] {
                    let mut changed = sealed.clone();
                    changed[at] ^= 1;
                    assert_eq!(key.open(b"aad", &changed), Err(KeyError::Unauthentic));
                }
            }
            Key::Ed25519(key) => assert!(key.verify(b"text", &key.sign(b"text").unwrap())),
            Key::MlDsa(key) => {
                assert!(key.verify(b"text", &key.sign(b"text").unwrap()));
                assert!(!key.verify(b"other", &key.sign(b"text").unwrap()));
            }
            Key::Ecdsa(key) => works_ecdsa(kind, &key),
            Key::Rsa(key) => works_rsa(kind, &key),
            Key::Hmac(key) => assert_eq!(key.expose().len(), 32),
        }
        assert!(Key::load(kind, &material.expose()[1..]).is_err(), "{name} cut");
        assert!(Key::load(kind, b"").is_err(), "{name} empty");
    }
}

#[test]
fn a_curve_is_found_by_its_object_identifier() {
    let p256 = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    assert_eq!(Curve::from_oid(&p256), Some(Curve::P256));
    assert_eq!(Curve::from_oid(&[6, 5, 0x2b, 0x81, 4, 0, 0x23]), Some(Curve::P521));
    assert_eq!(Curve::from_oid(&p256[..9]), None);
}

fn works_ecdsa(kind: KeyKind, key: &EcKey) {
    let digest = Hash::Sha512.digest(b"text");
    for _ in 0..200 {
        // Many, to include numbers with leading zeros and high bits.
        let der = key.sign(&digest, Marshaling::Asn1).unwrap();
        let fixed = key.sign(&digest, Marshaling::Jws).unwrap();
        assert!(key.verify(&digest, &der, Marshaling::Asn1).unwrap());
        assert!(key.verify(&digest, &fixed, Marshaling::Jws).unwrap());
        assert_eq!(key.verify(&digest, &fixed, Marshaling::Asn1), Err(KeyError::Malformed));
        assert!(!key.verify(&digest, &der, Marshaling::Jws).unwrap());
    }
    let pem = key.private_pem().unwrap();
    assert!(pem.expose().starts_with("-----BEGIN EC PRIVATE KEY-----\nM"));
    let Key::Ecdsa(public) = Key::load_public(kind, &key.spki().unwrap()).unwrap() else { unreachable!() };
    assert_eq!(public.sign(&digest, Marshaling::Asn1), Err(KeyError::PublicOnly));
    assert!(matches!(public.pkcs8(), Err(KeyError::PublicOnly)));
    assert!(key.agree(&public).is_ok());
    assert!(matches!(public.agree(key), Err(KeyError::PublicOnly)));
}

fn works_rsa(kind: KeyKind, key: &RsaKey) {
    for hash in Hash::ALL {
        let digest = hash.digest(b"text");
        for salt in [SaltLength::Auto, SaltLength::Hash, SaltLength::Bytes(0), SaltLength::Bytes(17)] {
            let scheme = RsaScheme::Pss(hash, salt);
            let signature = key.sign(scheme, &digest).unwrap();
            assert!(key.verify(scheme, &digest, &signature).unwrap());
            assert!(key.verify(RsaScheme::Pss(hash, SaltLength::Auto), &digest, &signature).unwrap());
            assert!(!key.verify(RsaScheme::Pss(hash, SaltLength::Bytes(5)), &digest, &signature).unwrap());
        }
        let signature = key.sign(RsaScheme::Pkcs1(Some(hash)), &digest).unwrap();
        assert!(key.verify(RsaScheme::Pkcs1(Some(hash)), &digest, &signature).unwrap());
        assert!(!key.verify(RsaScheme::Pkcs1(None), &digest, &signature).unwrap());
        assert_eq!(key.sign(RsaScheme::Pkcs1(Some(hash)), b"short"), Err(KeyError::WrongDigestSize));
    }
    let bare = key.sign(RsaScheme::Pkcs1(None), b"any bytes").unwrap();
    assert!(key.verify(RsaScheme::Pkcs1(None), b"any bytes", &bare).unwrap());
    let too_long = RsaScheme::Pss(Hash::Sha256, SaltLength::Bytes(500));
    assert_eq!(key.sign(too_long, &[0; 32]), Err(KeyError::WrongSaltLength));
    let sealed = key.encrypt(b"text").unwrap();
    assert_eq!(key.decrypt(&sealed).unwrap().expose(), b"text");
    let Key::Rsa(public) = Key::load_public(kind, &key.spki().unwrap()).unwrap() else { unreachable!() };
    assert_eq!(key.decrypt(&public.encrypt(b"text").unwrap()).unwrap().expose(), b"text");
    assert!(matches!(public.decrypt(&sealed), Err(KeyError::PublicOnly)));
    let wrapped = wrapping::wrap_key(&public, Hash::Sha256, b"some key of odd length").unwrap();
    assert_eq!(wrapping::unwrap_key(key, Hash::Sha256, &wrapped).unwrap().expose(), b"some key of odd length");
    assert!(wrapping::unwrap_key(key, Hash::Sha512, &wrapped).is_err());
}

// From OpenBao 2.7.2: exported keys, contexts and the output of its transit engine.
#[test]
fn derived_keys_match_openbao() {
    let context = b"my context";
    use base64::Engine;
    let bytes = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    for (cipher, convergent, key, sealed) in [
        (Cipher::Aes128Gcm, true, "g1MROXxY3JdeXqe2pPoOSw==", "N3BbxQvC401ccRnxMtf4sYPQT2+6LHN9lvzbduC15GRL"),
        (Cipher::Aes128Gcm, false, "rIYDWvWc6SbqeXzlT3pzMw==", "iVX242UN9q4qwoN3mAiDYicOm6BHEXdQ/BIYHuF1n68C"),
        (
            Cipher::Aes256Gcm,
            true,
            "S8g/0UYQhwOvPnZyiT+BIEh4nQ5CLZ7wORXvYPgi10g=",
            "QGKBcP+rgAO1qEnnMLq4Ztyg90b6M01r2E+WwExelODB",
        ),
        (
            Cipher::Aes256Gcm,
            false,
            "pfGOT7h8uUL0lJQxUHGlOqCrcM50rUDw6/P8OT9/MA8=",
            "qAITtuzgY8aLdMDp2zuaWTZiLuMoKGXlbFG5ACGRwPrf",
        ),
        (
            Cipher::ChaCha20Poly1305,
            true,
            "TJZsmr8VgxT7HTY/ygiUqJnqpBgwXW44nFoWXROxlco=",
            "mSOv/DUqtPx01AhDhnnIZic4CrX8+eBGqc0IO4123xQL",
        ),
        (
            Cipher::ChaCha20Poly1305,
            false,
            "fu/eIf9+Sqe/pZteoctxSwQKW0mDp75hwSvaRZwpwiM=",
            "F8vvfeoMcz3JeB76C+ECpN/AbtLrsFEm36ZB69xLVRyS",
        ),
        (
            Cipher::XChaCha20Poly1305,
            true,
            "iWNsgrwA+BWvhBLgcQhn/3KmUsJ6jW7wY7oMD8ld/dA=",
            "QUErMNHcIc8E1jX81Mr6mkVYvRWqD0swmzq7rTi4EDMZh63pUx7LCchuMkrZ",
        ),
        (
            Cipher::XChaCha20Poly1305,
            false,
            "zImnrXMmpefJTNVDtSqwRGGVBONzRR6KIu4MMPNhoYU=",
            "SXQ9GGqjtGGFVeT6VxdylDonwiXIfZnloz4yeYQbXxCpIsOq3SJUXWHCU1w4",
        ),
    ] {
        let key = SymmetricKey::derive(cipher, &bytes(key), context, convergent).unwrap();
        assert_eq!(key.open(b"", &bytes(sealed)).unwrap(), b"hello", "{cipher:?}");
        assert_eq!(key.seal(b"", b"hello").unwrap() == bytes(sealed), convergent, "{cipher:?}");
    }
    let exported = bytes("hjj8GvZbfG4RtGi7KCm+aW85QRL7cg80nV1To6I3DD17iGyh5bxnSBaqYSQdXp3uh3Gz1mn+xGYkptbSsMj31w==");
    let key = Ed25519Key::derive(&exported[..32], context).unwrap();
    assert_eq!(key.public().as_slice(), bytes("zQ17TkKtLKd2lEu2uUMFw81V+CJniEuG0iB3olG47hM="));
    assert_eq!(
        key.sign(b"hello").unwrap(),
        bytes("TvvkeJhU6X9HCZvdSFqoDKQOqk0Rca/VvitCrpjOgPU52Rshswdzz6Ufc12DuHvHslRT7b+3ae659VfL1Mg7Cw==")
    );
}

#[test]
fn convergent_nonces_depend_on_the_associated_data() {
    let key = SymmetricKey::derive(Cipher::Aes256Gcm, &[7; 32], b"context", true).unwrap();
    let nonce = |aad: &[u8], plain: &[u8]| key.seal(aad, plain).unwrap()[..12].to_vec();
    assert_eq!(key.seal(b"", b"text").unwrap(), key.seal(b"", b"text").unwrap());
    assert_eq!(key.seal(b"a", b"text").unwrap(), key.seal(b"a", b"text").unwrap());
    assert_ne!(nonce(b"", b"text"), nonce(b"", b"next"));
    assert_ne!(nonce(b"", b"text"), nonce(b"a", b"text"));
    assert_ne!(nonce(b"b", b"text"), nonce(b"a", b"text"));
}

// SE-01: a million encryptions, a million nonces.
#[test]
fn sec_se01_random_nonces_do_not_repeat() {
    let key = SymmetricKey::new(Cipher::Aes256Gcm, &[7; 32]).unwrap();
    let mut nonces = std::collections::HashSet::with_capacity(1_000_000);
    for _ in 0..1_000_000 {
        let sealed = key.seal(b"", b"").unwrap();
        assert!(nonces.insert(*sealed.first_chunk::<12>().unwrap()));
    }
}

/// SubjectPublicKeyInfo of an odd modulus of `bits` bits and exponent 65537.
fn spki_with_modulus_of(bits: usize) -> Vec<u8> {
    let mut number = vec![0; bits / 8 + 1];
    number[1] = 0x80;
    number[bits / 8] = 1;
    // Long lengths have the minimal encoding, as DER demands.
    let tlv = |tag: u8, body: &[u8]| match body.len() {
        length @ 0..0x80 => [&[tag, u8::try_from(length).unwrap()], body].concat(),
        length @ 0x80..0x100 => [&[tag, 0x81, u8::try_from(length).unwrap()], body].concat(),
        length => [&[tag, 0x82], u16::try_from(length).unwrap().to_be_bytes().as_slice(), body].concat(),
    };
    let key = tlv(0x30, &[tlv(2, &number), vec![2, 3, 1, 0, 1]].concat());
    let algorithm = [0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let bits = tlv(3, &[vec![0], key].concat());
    tlv(0x30, &[algorithm.to_vec(), bits].concat())
}

// DS-07: a modulus whose use would occupy a core for long is refused when it is read.
#[test]
fn sec_ds07_huge_and_small_moduli_are_refused() {
    for (bits, accepted) in [(1024, false), (2048, true), (8192, true), (8256, false), (16_384, false), (65_536, false)]
    {
        assert_eq!(RsaKey::from_spki(&spki_with_modulus_of(bits)).is_ok(), accepted, "{bits}");
    }
}

#[test]
fn imports_pkcs8_only_of_the_kind() {
    let p256 = Key::generate(KeyKind::Ecdsa(Curve::P256), 0).unwrap();
    assert!(Key::import(KeyKind::Ecdsa(Curve::P256), p256.expose()).is_ok());
    assert!(Key::import(KeyKind::Ecdsa(Curve::P384), p256.expose()).is_err());
    assert!(Key::import(KeyKind::Rsa(2048), p256.expose()).is_err());
    assert!(Key::import(KeyKind::Ed25519, p256.expose()).is_err());
    let mut trailing = p256.expose().clone();
    trailing.push(0);
    assert!(Key::import(KeyKind::Ecdsa(Curve::P256), &trailing).is_err());
    // RFC 8410, section 10.3.
    let (_, ed) = pem::decode(
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    let seed = Key::import(KeyKind::Ed25519, &ed).unwrap();
    assert_eq!(
        hex::encode(Ed25519Key::from_seed(seed.expose()).unwrap().public()),
        "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
    );
}

// CS-09: aws-lc does operations with private keys; these libraries had timing leaks or could come to be used for one.
#[test]
fn sec_cs09_no_other_library_for_private_keys() {
    let locked = include_str!("../../../../Cargo.lock");
    assert!(locked.contains("name = \"aws-lc-rs\""));
    for name in ["rsa", "ml-dsa", "ml-kem", "ed25519-dalek", "curve25519-dalek", "p256", "p384", "p521", "openssl"] {
        assert!(!locked.contains(&format!("name = \"{name}\"\n")), "{name} is in the dependency tree");
    }
}

#[test]
fn each_kind_has_the_capabilities_of_its_algorithm() {
    // encrypts, signs, derives, binds associated data, has a public key, slow to use, slow to generate
    let expected = |kind| match kind {
        KeyKind::Symmetric(_) => "e-db---",
        KeyKind::Ed25519 => "-sd-p--",
        KeyKind::Ecdsa(_) => "-s--p--",
        KeyKind::Rsa(_) => "es--pug",
        KeyKind::Hmac => "-------",
        KeyKind::MlDsa(_) => "-s--pu-",
        KeyKind::MlKem(_) => "e--bp--",
        KeyKind::External => "es-b---",
    };
    for (kind, name) in KeyKind::ALL.into_iter().chain([(KeyKind::External, EXTERNAL)]) {
        let flags = [
            (kind.encrypts(), 'e'),
            (kind.signs(), 's'),
            (kind.derives(), 'd'),
            (kind.binds_associated_data(), 'b'),
            (kind.has_public_key(), 'p'),
            (kind.is_slow_to_use(), 'u'),
            (kind.is_slow_to_generate(), 'g'),
        ];
        let found: String = flags.into_iter().map(|(has, letter)| if has { letter } else { '-' }).collect();
        assert_eq!(found, expected(kind), "{name}");
    }
}

#[test]
fn hash_functions_and_curves_have_the_names_of_the_api() {
    let names =
        ["sha1", "sha2-224", "sha2-256", "sha2-384", "sha2-512", "sha3-224", "sha3-256", "sha3-384", "sha3-512"];
    for (hash, name) in Hash::ALL.into_iter().zip(names) {
        assert_eq!((hash.name(), Hash::from_name(name)), (name, Some(hash)));
    }
    assert_eq!(Hash::from_name("sha2-225"), None);
    assert_eq!(Curve::ALL.map(Curve::name).as_slice(), ["P-224", "P-256", "P-384", "P-521"]);
}

#[test]
fn an_hmac_key_has_a_bounded_length() {
    for size in [32, 512] {
        assert_eq!(Key::generate(KeyKind::Hmac, size).unwrap().expose().len(), size);
    }
    for size in [0, 31, 513] {
        assert_eq!(Key::generate(KeyKind::Hmac, size).err(), Some(KeyError::Malformed));
    }
}

#[test]
fn only_the_cipher_with_a_long_nonce_seals_without_limit() {
    for (kind, name) in KeyKind::ALL {
        let KeyKind::Symmetric(cipher) = kind else { continue };
        let limit = (cipher != Cipher::XChaCha20Poly1305).then_some(4_294_967_296);
        assert_eq!(cipher.seal_limit(), limit, "{name}");
    }
}

#[test]
fn a_bare_private_number_gives_the_key_on_its_curve() {
    let hex = |text: &str| hex::decode(text).unwrap();
    // The public key of 1 is the generator (SP 800-186, 3.2.1.3).
    let generator = hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
    for number in [&[1_u8][..], &[0, 0, 1]] {
        let material = EcKey::pkcs8_from_number(Curve::P256, number).unwrap();
        let key = EcKey::from_pkcs8(Curve::P256, material.expose()).unwrap();
        assert!(key.spki().unwrap().windows(32).any(|window| window == generator));
    }
    for number in [&[0_u8; 32][..], &[], &[1; 33]] {
        assert!(EcKey::pkcs8_from_number(Curve::P256, number).is_err());
    }
}

#[test]
fn the_numbers_of_a_private_rsa_key_give_the_same_key() {
    let material = RsaKey::generate(2048).unwrap();
    let parts = der::children(der::whole(material.expose(), der::SEQUENCE).unwrap().content).unwrap();
    let numbers = der::children(der::whole(parts[2].content, der::SEQUENCE).unwrap().content).unwrap();
    let numbers: Vec<&[u8]> = numbers[1..].iter().map(|n| n.content.strip_prefix(&[0]).unwrap_or(n.content)).collect();
    let again = RsaKey::pkcs8_from_numbers(numbers.try_into().unwrap()).unwrap();
    assert_eq!(again.expose(), material.expose());
}

#[test]
fn an_ecdsa_signature_in_der_has_two_integers() {
    let key = EcKey::from_pkcs8(Curve::P256, EcKey::generate(Curve::P256).unwrap().expose()).unwrap();
    let digest = Hash::Sha256.digest(b"text");
    let signature = key.sign(&digest, Marshaling::Asn1).unwrap();
    let second = 4 + usize::from(signature[3]);
    for tag in [2, second] {
        let mut changed = signature.clone();
        changed[tag] = 0x04;
        assert_eq!(key.verify(&digest, &changed, Marshaling::Asn1), Err(KeyError::Malformed), "{tag}");
    }
}

#[test]
fn the_salt_of_a_pss_signature_fits_into_the_modulus() {
    let key = RsaKey::from_pkcs8(RsaKey::generate(2048).unwrap().expose()).unwrap();
    let digest = Hash::Sha256.digest(b"text");
    // RFC 8017, 9.1.1: 256 bytes have room for a digest of 32, two bytes, and the salt.
    let signed = |salt| key.sign(RsaScheme::Pss(Hash::Sha256, SaltLength::Bytes(salt)), &digest).map(|_| ());
    assert_eq!(signed(222), Ok(()));
    assert_eq!(signed(223), Err(KeyError::WrongSaltLength));
}

#[test]
fn post_quantum_keys_give_their_public_keys() {
    for set in [MlDsa::MlDsa44, MlDsa::MlDsa65, MlDsa::MlDsa87] {
        let key = MlDsaKey::from_seed(set, &[7; 32]).unwrap();
        let spki = key.spki().unwrap();
        assert!(spki.len() > key.public().len() && spki.ends_with(key.public()));
    }
    for (set, size) in [(MlKem::MlKem768, 1184), (MlKem::MlKem1024, 1568), (MlKem::X25519MlKem768, 1184 + 32)] {
        let bytes = MlKemKey::generate(set).unwrap();
        let key = MlKemKey::from_bytes(set, bytes.expose()).unwrap();
        let public = key.public().unwrap();
        assert_eq!(public.len(), size);
        let lattice = if set == MlKem::X25519MlKem768 { 1184 } else { size };
        assert!(bytes.expose().ends_with(&public[..lattice]));
    }
}

#[test]
fn a_hybrid_key_needs_both_of_its_halves() {
    let bytes = MlKemKey::generate(MlKem::X25519MlKem768).unwrap();
    let sealed = MlKemKey::from_bytes(MlKem::X25519MlKem768, bytes.expose()).unwrap().seal(b"", b"text").unwrap();
    // The private number of X25519 is in front; its lowest three bits are ignored (RFC 7748, 5).
    let mut other = bytes.expose().to_vec();
    other[1] ^= 1;
    let other = MlKemKey::from_bytes(MlKem::X25519MlKem768, &other).unwrap();
    assert_eq!(other.open(b"", &sealed), Err(KeyError::Unauthentic));
    assert!(MlKemKey::from_bytes(MlKem::X25519MlKem768, &bytes.expose()[32..]).is_err());
}

#[test]
fn imported_keys_are_stored_in_the_form_of_this_library() {
    for kind in [KeyKind::Ecdsa(Curve::P256), KeyKind::Rsa(2048)] {
        let own = Key::generate(kind, 0).unwrap();
        let content = der::whole(own.expose(), der::SEQUENCE).unwrap().content;
        // Attributes (RFC 5958, 2) that the library does not need.
        let foreign = der::write(der::SEQUENCE, &[content, &der::write(0xa0, &[])].concat());
        assert_eq!(Key::import(kind, &foreign).unwrap().expose(), own.expose());
    }
}

#[test]
fn an_imported_curve_key_without_its_public_half_is_stored_with_it() {
    let number = [9; 32];
    let sec1 = [der::write_number(&[1]).as_slice(), &der::write(0x04, &number)].concat();
    let algorithm =
        der::children(der::whole(&spki_of(Curve::P256), der::SEQUENCE).unwrap().content).unwrap()[0].whole.to_vec();
    let bare = der::write_pkcs8(&algorithm, &der::write(der::SEQUENCE, &sec1));
    let stored = Key::import(KeyKind::Ecdsa(Curve::P256), bare.expose()).unwrap();
    assert!(stored.expose().len() > bare.expose().len() + 64);
}

fn spki_of(curve: Curve) -> Vec<u8> {
    EcKey::from_pkcs8(curve, EcKey::generate(curve).unwrap().expose()).unwrap().spki().unwrap()
}

#[test]
fn the_public_half_of_ed25519_verifies_and_does_not_sign() {
    let seed = Key::generate(KeyKind::Ed25519, 0).unwrap();
    let Key::Ed25519(key) = Key::load(KeyKind::Ed25519, seed.expose()).unwrap() else { unreachable!() };
    let Key::Ed25519(public) = Key::load_public(KeyKind::Ed25519, &key.spki()).unwrap() else { unreachable!() };
    assert!(public.verify(b"text", &key.sign(b"text").unwrap()));
    assert!(public.sign(b"text").is_err());
}

#[test]
fn a_public_key_is_rebuilt_from_its_numbers_or_its_point() {
    let rsa = RsaKey::from_pkcs8(RsaKey::generate(2048).unwrap().expose()).unwrap();
    let spki = rsa.spki().unwrap();
    let parts = |der: &[u8]| {
        let whole = der::whole(der, der::SEQUENCE).unwrap().content.to_vec();
        der::children(&whole).unwrap().iter().map(|part| part.content.to_vec()).collect::<Vec<_>>()
    };
    let numbers = parts(&parts(&spki)[1][1..]);
    assert_eq!(RsaKey::spki_from_numbers(&numbers[0], &numbers[1]), spki);
    assert!(matches!(Key::from_spki(&spki), Ok(Key::Rsa(_))));
    for curve in Curve::ALL {
        let key = EcKey::from_pkcs8(curve, EcKey::generate(curve).unwrap().expose()).unwrap();
        let spki = key.spki().unwrap();
        assert_eq!(curve.spki_of_point(&parts(&spki)[1][1..]), spki);
        assert!(matches!(Key::from_spki(&spki), Ok(Key::Ecdsa(key)) if key.curve() == curve));
        let (digest, asn1, jws) = ([7; 32], Marshaling::Asn1, Marshaling::Jws);
        let signature = key.sign(&digest, asn1).unwrap();
        let fixed = curve.remarshal(&signature, asn1, jws).unwrap();
        assert!(key.verify(&digest, &fixed, jws).unwrap());
        assert_eq!(curve.remarshal(&fixed, jws, asn1).unwrap(), signature);
        assert_eq!(curve.remarshal(&fixed[1..], jws, asn1), None);
        assert_eq!(curve.remarshal(&fixed, asn1, jws), None);
    }
    let ed = Ed25519Key::from_seed(&[7; 32]).unwrap();
    assert!(matches!(Key::from_spki(&ed.spki()), Ok(Key::Ed25519(_))));
    assert!(Key::from_spki(b"none").is_err());
}

#[test]
fn an_external_key_has_a_name_and_no_material() {
    assert_eq!(KeyKind::External.name(), "external-key");
    assert_eq!(KeyKind::from_name("external-key"), None);
    assert!(Key::generate(KeyKind::External, 0).is_err() && Key::load(KeyKind::External, &[0; 32]).is_err());
}
